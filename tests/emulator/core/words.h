// The words that CUDA adds to C++: qualifiers, and vector types.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#ifndef DIPTYCH_EMULATOR
#define DIPTYCH_EMULATOR 1
#endif

// The builder looks for these two in the preprocessed text, and writes there what they stand for.
#ifndef DIPTYCH_EMULATOR_KEEP
#define __global__
// Every block runs on one thread of the machine from its first to its last line.
#define __shared__ static thread_local
#endif
#define __device__
#define __host__
#define __constant__ static const
#define __managed__
#define __grid_constant__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __cluster_dims__(...)

#define DIPTYCH_VECTOR(name, T, bytes2, bytes4)                                                                        \
    struct name##1 { T x; };                                                                                           \
    struct __align__(bytes2) name##2 { T x, y; };                                                                      \
    struct name##3 { T x, y, z; };                                                                                     \
    struct __align__(bytes4) name##4 { T x, y, z, w; };                                                                \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

DIPTYCH_VECTOR(char, signed char, 2, 4)
DIPTYCH_VECTOR(uchar, unsigned char, 2, 4)
DIPTYCH_VECTOR(short, short, 4, 8)
DIPTYCH_VECTOR(ushort, unsigned short, 4, 8)
DIPTYCH_VECTOR(int, int, 8, 16)
DIPTYCH_VECTOR(uint, unsigned, 8, 16)
DIPTYCH_VECTOR(longlong, long long, 16, 16)
DIPTYCH_VECTOR(ulonglong, unsigned long long, 16, 16)
DIPTYCH_VECTOR(float, float, 8, 16)
DIPTYCH_VECTOR(double, double, 16, 16)
#undef DIPTYCH_VECTOR

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

constexpr int warpSize = 32;
