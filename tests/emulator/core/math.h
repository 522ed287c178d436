// Functions that CUDA gives to device code, as far as C++ has them not.
#pragma once

#include "words.h"

// CUDA has these without `std::`, for every mixture of types.
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

#define DIPTYCH_LEAST(T)                                                                                               \
    inline T min(T a, T b) { return b < a ? b : a; }                                                                   \
    inline T max(T a, T b) { return a < b ? b : a; }
DIPTYCH_LEAST(int)
DIPTYCH_LEAST(unsigned)
DIPTYCH_LEAST(long)
DIPTYCH_LEAST(unsigned long)
DIPTYCH_LEAST(long long)
DIPTYCH_LEAST(unsigned long long)
#undef DIPTYCH_LEAST
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
// A NaN loses, as in CUDA.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

template <typename To, typename From> To diptych_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits as another type");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
inline unsigned __float_as_uint(float x) { return diptych_bits<unsigned>(x); }
inline int __float_as_int(float x) { return diptych_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return diptych_bits<float>(x); }
inline float __int_as_float(int x) { return diptych_bits<float>(x); }
inline long long __double_as_longlong(double x) { return diptych_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return diptych_bits<double>(x); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
inline float sinpif(float x) { return (float)sin(M_PI * (double)x); }
inline float cospif(float x) { return (float)cos(M_PI * (double)x); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
inline float exp10f_(float x) { return powf(10.0f, x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// The fast versions, here as exact as the others.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f_(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }

// Rounded to the nearest, and never contracted into one instruction with what is around.
#define DIPTYCH_ROUNDED(name, T, expression)                                                                           \
    __attribute__((optimize("fp-contract=off"))) inline T name(T a, T b) { return expression; }
DIPTYCH_ROUNDED(__fadd_rn, float, a + b)
DIPTYCH_ROUNDED(__fsub_rn, float, a - b)
DIPTYCH_ROUNDED(__fmul_rn, float, a * b)
DIPTYCH_ROUNDED(__fdiv_rn, float, a / b)
DIPTYCH_ROUNDED(__dadd_rn, double, a + b)
DIPTYCH_ROUNDED(__dsub_rn, double, a - b)
DIPTYCH_ROUNDED(__dmul_rn, double, a * b)
DIPTYCH_ROUNDED(__ddiv_rn, double, a / b)
#undef DIPTYCH_ROUNDED
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline float __frsqrt_rn(float x) { return (float)(1.0 / sqrt((double)x)); }

inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }
inline unsigned __float2uint_rn(float x) { return x > 0.0f ? (unsigned)rintf(x) : 0u; }
inline unsigned __float2uint_rz(float x) { return x > 0.0f ? (unsigned)x : 0u; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __double2float_rn(double x) { return (float)x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift ? high << shift | low >> (32 - shift) : high;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift ? low >> shift | high << (32 - shift) : low;
}

template <typename T> T __ldg(const T* p) { return *p; }
template <typename T> T __ldcg(const T* p) { return *p; }
template <typename T> T __ldcs(const T* p) { return *p; }
template <typename T> void __stcs(T* p, T v) { *p = v; }
template <typename T> void __stcg(T* p, T v) { *p = v; }
