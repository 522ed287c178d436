// Rows to unit length, and the gradient: a row is read twice, the second time from the cache. Norms and dot products are
// in double, so that no row over- or underflows.

#include "../cuda/common.cuh"
#include "l2_normalize_index.h"

// 1 / norm of a row from the sum of its squares, or 0 for a row of (all but) zeros: norms below float's smallest normal
// number, 2^-126.
__device__ __forceinline__ double inverse_norm(double squares) {
    const double norm = sqrt(squares);
    return norm < (double)__uint_as_float(0x00800000u) ? 0.0 : 1.0 / norm;
}

// The sum over the threads that share a row, in each of them. All threads of the block must come here.
__device__ __forceinline__ double row_sum(double v, int team, double* room) {
    return team == 32 ? warp_sum(v) : block_sum(v, room);
}

// `team`: threads that share a row, 32 or the whole block.
template <typename T, int W>
__device__ __forceinline__ void normalize(const T* x, T* y, long long rows, int channels, int team) {
    __shared__ double room[32];
    const Row at = row_of(blockIdx.x, blockDim.x, threadIdx.x, team, W);
    const bool inside = at.row < rows;
    const T* from = x + at.row * channels;
    double squares = 0.0;
    for (int c = at.first; inside && c < channels; c += at.step) {
        const auto values = load<T, W>(from + c);
#pragma unroll
        for (int i = 0; i < W; i++) squares = fma((double)widen(values.at[i]), (double)widen(values.at[i]), squares);
    }
    const double inverse = inverse_norm(row_sum(squares, team, room));
    for (int c = at.first; inside && c < channels; c += at.step) {
        auto values = load<T, W>(from + c);
#pragma unroll
        for (int i = 0; i < W; i++) values.at[i] = narrow<T>((float)((double)widen(values.at[i]) * inverse));
        store(y + at.row * channels + c, values);
    }
}

// dx = (dy - y (y . dy)) / |x| with y = x / |x|, taken from x again: it was rounded.
template <typename T, int W>
__device__ __forceinline__ void normalize_backward(const T* dy, const T* x, T* dx, long long rows, int channels,
                                                   int team) {
    __shared__ double room[32];
    const Row at = row_of(blockIdx.x, blockDim.x, threadIdx.x, team, W);
    const bool inside = at.row < rows;
    const T *from = x + at.row * channels, *gradient = dy + at.row * channels;
    double squares = 0.0, product = 0.0;
    for (int c = at.first; inside && c < channels; c += at.step) {
        const auto values = load<T, W>(from + c), gradients = load<T, W>(gradient + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const double v = widen(values.at[i]);
            squares = fma(v, v, squares);
            product = fma(v, (double)widen(gradients.at[i]), product);
        }
    }
    const double inverse = inverse_norm(row_sum(squares, team, room));
    const double along = row_sum(product, team, room) * inverse * inverse;
    for (int c = at.first; inside && c < channels; c += at.step) {
        const auto values = load<T, W>(from + c), gradients = load<T, W>(gradient + c);
        Vector<T, W> out;
#pragma unroll
        for (int i = 0; i < W; i++) {
            const double d = (double)widen(gradients.at[i]) - (double)widen(values.at[i]) * along;
            out.at[i] = narrow<T>((float)(d * inverse));
        }
        store(dx + at.row * channels + c, out);
    }
}

// `vectors`: all rows may be read 16 bytes at a time.
#define L2_NORMALIZE(SUFFIX, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        l2_normalize_forward_##SUFFIX(const T* x, T* y, long long rows, int channels, int team, bool vectors) {        \
        vectors ? normalize<T, WIDTH<T>>(x, y, rows, channels, team) : normalize<T, 1>(x, y, rows, channels, team);    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        l2_normalize_backward_##SUFFIX(const T* dy, const T* x, T* dx, long long rows, int channels, int team,         \
                                       bool vectors) {                                                                 \
        vectors ? normalize_backward<T, WIDTH<T>>(dy, x, dx, rows, channels, team)                                     \
                : normalize_backward<T, 1>(dy, x, dx, rows, channels, team);                                           \
    }

L2_NORMALIZE(f32, float)
L2_NORMALIZE(bf16, bf16)
