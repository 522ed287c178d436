// bf16, as Candle's kernels use it: every operation is done in float and rounded, as on a GPU.
#pragma once

#include "../core/math.h"

#include <type_traits>

struct __nv_bfloat16 {
    unsigned short __x;

    __nv_bfloat16() = default;
    template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T> || std::is_same_v<T, _Float16>>>
    __nv_bfloat16(T value) : __x(round((float)value)) {}
    operator float() const { return __uint_as_float((unsigned)__x << 16); }

    static unsigned short round(float x) {
        const unsigned bits = __float_as_uint(x);
        if (x != x) return (unsigned short)(bits >> 16 | 0x40);
        return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
};
using nv_bfloat16 = __nv_bfloat16;
struct __nv_bfloat162 { __nv_bfloat16 x, y; };

#define DIPTYCH_OPERATOR(op)                                                                                           \
    inline __nv_bfloat16 operator op(__nv_bfloat16 a, __nv_bfloat16 b) { return (float)a op(float) b; }                \
    inline __nv_bfloat16& operator op##=(__nv_bfloat16& a, __nv_bfloat16 b) { return a = (float)a op(float) b; }
DIPTYCH_OPERATOR(+)
DIPTYCH_OPERATOR(-)
DIPTYCH_OPERATOR(*)
DIPTYCH_OPERATOR(/)
#undef DIPTYCH_OPERATOR
inline __nv_bfloat16 operator-(__nv_bfloat16 x) { return -(float)x; }
#define DIPTYCH_COMPARISON(op)                                                                                         \
    inline bool operator op(__nv_bfloat16 a, __nv_bfloat16 b) { return (float)a op(float) b; }
DIPTYCH_COMPARISON(<)
DIPTYCH_COMPARISON(<=)
DIPTYCH_COMPARISON(>)
DIPTYCH_COMPARISON(>=)
DIPTYCH_COMPARISON(==)
DIPTYCH_COMPARISON(!=)
#undef DIPTYCH_COMPARISON

inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.__x; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return diptych_bits<__nv_bfloat16>(x); }
inline bool __hisnan(__nv_bfloat16 x) { return isnan((float)x); }
inline __nv_bfloat16 __habs(__nv_bfloat16 x) { return fabsf(x); }
inline __nv_bfloat16 __hmax_nan(__nv_bfloat16 a, __nv_bfloat16 b) { return a != a || a > b ? a : b; }
inline __nv_bfloat16 __hmin_nan(__nv_bfloat16 a, __nv_bfloat16 b) { return a != a || a < b ? a : b; }
inline __nv_bfloat16 hsqrt(__nv_bfloat16 x) { return sqrtf(x); }
inline __nv_bfloat16 hcos(__nv_bfloat16 x) { return cosf(x); }
inline __nv_bfloat16 hsin(__nv_bfloat16 x) { return sinf(x); }
inline __nv_bfloat16 hlog(__nv_bfloat16 x) { return logf(x); }
inline __nv_bfloat16 hexp(__nv_bfloat16 x) { return expf(x); }
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }
