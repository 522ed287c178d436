// What a fully connected layer needs beside its matrix products: the bias on the way to memory, and the bias's gradient.

#include "../cuda/common.cuh"
#include "linear_index.h"

// y = sums + bias: f32 sums of a matrix product, rounded once. `sums` may be y.
template <typename T>
__device__ __forceinline__ void
add_bias(const float* sums, const float* bias, T* y, long long rows, long long columns, long long rows_per_part, bool vectors) {
    constexpr int N = 4;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const LinearRows part = linear_rows(blockIdx.y, warp, rows_per_part, rows);
    const long long first = linear_column(blockIdx.x, lane, 0, N, vectors);
    if (vectors && first < columns) {
        const auto b = load<float, N>(bias + first);
        for (long long row = part.first; row < part.end; row += LINEAR_WARPS) {
            const auto sum = load<float, N>(sums + row * columns + first);
            Vector<T, N> out;
#pragma unroll
            for (int i = 0; i < N; i++) out.at[i] = narrow<T>(sum.at[i] + b.at[i]);
            store(y + row * columns + first, out);
        }
    } else if (!vectors) {
        for (int i = 0; i < N; i++) {
            const long long column = linear_column(blockIdx.x, lane, i, N, false);
            for (long long row = part.first; column < columns && row < part.end; row += LINEAR_WARPS) {
                const long long at = row * columns + column;
                y[at] = narrow<T>(sums[at] + bias[column]);
            }
        }
    }
}

// The sum of each column over the rows of a part, in f64: parts[part, column].
template <typename T>
__device__ __forceinline__ void
column_sums(const T* dy, double* parts, long long rows, long long columns, long long rows_per_part, bool vectors) {
    constexpr int N = WIDTH<T>;
    __shared__ double room[LINEAR_WARPS][32 * N];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const LinearRows part = linear_rows(blockIdx.y, warp, rows_per_part, rows);
    double sums[N];
#pragma unroll
    for (int i = 0; i < N; i++) sums[i] = 0.0;
    for (long long row = part.first; row < part.end; row += LINEAR_WARPS) {
        const T* at = dy + row * columns;
        const long long first = linear_column(blockIdx.x, lane, 0, N, vectors);
        if (vectors && first < columns) {
            const auto v = load<T, N>(at + first);
#pragma unroll
            for (int i = 0; i < N; i++) sums[i] += widen(v.at[i]);
        } else if (!vectors) {
#pragma unroll
            for (int i = 0; i < N; i++) {
                const long long column = linear_column(blockIdx.x, lane, i, N, false);
                if (column < columns) sums[i] += widen(at[column]);
            }
        }
    }
    // In the order of linear_column without vectors, so that neighbors in a warp write neighbors.
#pragma unroll
    for (int i = 0; i < N; i++) room[warp][lane + 32 * i] = sums[i];
    __syncthreads();
    for (int at = threadIdx.x; at < 32 * N; at += blockDim.x) {
        double sum = 0.0;
        for (int w = 0; w < LINEAR_WARPS; w++) sum += room[w][at];
        const long long column = linear_column(blockIdx.x, at % 32, at / 32, N, vectors);
        if (column < columns) parts[blockIdx.y * columns + column] = sum;
    }
}

#define LINEAR(SUFFIX, T)                                                                                              \
    extern "C" __global__ void linear_bias_##SUFFIX(const float* sums, const float* bias, T* y, long long rows,        \
                                                    long long columns, long long rows_per_part, bool vectors) {        \
        add_bias(sums, bias, y, rows, columns, rows_per_part, vectors);                                                \
    }                                                                                                                  \
    extern "C" __global__ void linear_column_sums_##SUFFIX(const T* dy, double* parts, long long rows,                 \
                                                           long long columns, long long rows_per_part, bool vectors) { \
        column_sums(dy, parts, rows, columns, rows_per_part, vectors);                                                 \
    }

LINEAR(f32, float)
LINEAR(bf16, bf16)

// The parts' sums, in their order.
extern "C" __global__ void linear_sum_parts(const double* parts, float* sums, long long columns, int count) {
    const long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    double sum = 0.0;
    for (int part = 0; part < count; part++) sum += parts[part * columns + column];
    sums[column] = (float)sum;
}
