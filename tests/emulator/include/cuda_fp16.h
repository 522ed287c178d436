// Half precision, as Candle's kernels use it: the compiler's own type.
#pragma once

#include "../core/math.h"

using __half = _Float16;
using half = __half;
struct __half2 { __half x, y; };
using __half_raw = __half;

inline float __half2float(__half x) { return (float)x; }
inline __half __float2half(float x) { return (__half)x; }
inline unsigned short __half_as_ushort(__half x) { return diptych_bits<unsigned short>(x); }
inline __half __ushort_as_half(unsigned short x) { return diptych_bits<__half>(x); }
inline bool __hisnan(__half x) { return x != x; }
inline __half __habs(__half x) { return (__half)fabsf((float)x); }
inline __half __hmax_nan(__half a, __half b) { return a != a || a > b ? a : b; }
inline __half __hmin_nan(__half a, __half b) { return a != a || a < b ? a : b; }
inline __half hsqrt(__half x) { return (__half)sqrtf((float)x); }
inline __half hcos(__half x) { return (__half)cosf((float)x); }
inline __half hsin(__half x) { return (__half)sinf((float)x); }
inline __half hlog(__half x) { return (__half)logf((float)x); }
inline __half hexp(__half x) { return (__half)expf((float)x); }
