// max(x, 0) and its gradient: one read and one write a value (two reads going back), 16 bytes at a time.

#include "../cuda/common.cuh"
#include "../cuda/elementwise.h"

// Applies f to WIDTH<T> values of x (and of other, if F takes two); `aligned`: all arrays begin at 16 bytes.
template <typename T, typename F>
__device__ __forceinline__ void each(const T* x, const T* other, T* y, long long n, bool aligned, F f) {
    const Span span = span_of((long long)blockIdx.x * blockDim.x + threadIdx.x, WIDTH<T>, n);
    if (aligned && span.whole(WIDTH<T>)) {
        const auto a = load<T, WIDTH<T>>(x + span.start);
        const auto b = load<T, WIDTH<T>>(other + span.start);
        Vector<T, WIDTH<T>> out;
#pragma unroll
        for (int i = 0; i < WIDTH<T>; i++) out.at[i] = f(a.at[i], b.at[i]);
        store(y + span.start, out);
    } else {
        for (long long i = span.start; i < span.end; i++) y[i] = f(x[i], other[i]);
    }
}

// A NaN stays a NaN, as the comparison is false for it.
template <typename T> struct Forward {
    __device__ T operator()(T x, T) const { return widen(x) <= 0.0f ? narrow<T>(0.0f) : x; }
};

template <typename T> struct Backward {
    __device__ T operator()(T dy, T y) const { return widen(y) <= 0.0f ? narrow<T>(0.0f) : dy; }
};

#define RELU(SUFFIX, T)                                                                                                \
    extern "C" __global__ void relu_forward_##SUFFIX(const T* x, T* y, long long n, bool aligned) {                    \
        each(x, x, y, n, aligned, Forward<T>());                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void relu_backward_##SUFFIX(const T* dy, const T* y, T* dx, long long n, bool aligned) {     \
        each(dy, y, dx, n, aligned, Backward<T>());                                                                    \
    }

RELU(f32, float)
RELU(bf16, bf16)
