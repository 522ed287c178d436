// f32 to bf16 and back: 6 bytes a value, 8 values a thread.

#include "common.cuh"
#include "elementwise.h"

template <typename From, typename To>
__device__ __forceinline__ void cast(const From* x, To* y, long long n, bool aligned) {
    constexpr int N = 8;
    const Span span = span_of((long long)blockIdx.x * blockDim.x + threadIdx.x, N, n);
    if (aligned && span.whole(N)) {
        // 32 bytes of floats are two accesses.
        constexpr int IN = sizeof(From) == 2 ? 8 : 4, OUT = sizeof(To) == 2 ? 8 : 4;
        float values[N];
#pragma unroll
        for (int part = 0; part < N; part += IN) {
            const auto in = load<From, IN>(x + span.start + part);
#pragma unroll
            for (int i = 0; i < IN; i++) values[part + i] = widen(in.at[i]);
        }
#pragma unroll
        for (int part = 0; part < N; part += OUT) {
            Vector<To, OUT> out;
#pragma unroll
            for (int i = 0; i < OUT; i++) out.at[i] = narrow<To>(values[part + i]);
            store(y + span.start + part, out);
        }
    } else {
        for (long long i = span.start; i < span.end; i++) y[i] = narrow<To>(widen(x[i]));
    }
}

// To the nearest bf16, ties to even.
extern "C" __global__ void cast_narrow(const float* x, bf16* y, long long n, bool aligned) { cast(x, y, n, aligned); }

extern "C" __global__ void cast_widen(const bf16* x, float* y, long long n, bool aligned) { cast(x, y, n, aligned); }
