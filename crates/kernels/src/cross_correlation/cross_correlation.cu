// Around the products of the Barlow Twins loss: columns' moments, standardized views, sums over C or over the Gram
// matrices, and gradients on their way back through the standardization. Sums are in double, in chunks of rows whose
// parts are added in order.

#include "../cuda/common.cuh"
#include "cross_correlation_index.h"

namespace cross_correlation {

// ---- sums over columns ------------------------------------------------------------------------------------------------

// Adds the block's K sums of each column over the groups, and leaves them in the threads of the first.
template <int K> __device__ __forceinline__ void add_groups(double (&sums)[K]) {
    __shared__ double room[K][GROUPS][LANES];
#pragma unroll
    for (int k = 0; k < K; k++) room[k][threadIdx.y][threadIdx.x] = sums[k];
    __syncthreads();
    if (threadIdx.y) return;
#pragma unroll
    for (int k = 0; k < K; k++) {
        for (int group = 1; group < GROUPS; group++) sums[k] += room[k][group][threadIdx.x];
    }
}

// K sums of each of `columns` columns over a chunk of rows, `partial` [chunks, K, columns]: `add(sums, row, column)`.
template <int K, typename F> __device__ __forceinline__ void column_sums(int rows, int columns, int each, double* partial, F add) {
    const int column = column_of(blockIdx.x, threadIdx.x, 1);
    const Range range = chunk_of(blockIdx.y, each, rows);
    double sums[K] = {};
    if (column < columns) {
#pragma unroll 4
        for (int row = range.begin + threadIdx.y; row < range.end; row += GROUPS) add(sums, row, column);
    }
    add_groups<K>(sums);
    if (threadIdx.y || column >= columns) return;
#pragma unroll
    for (int k = 0; k < K; k++) partial[partial_at(blockIdx.y, k, K, columns, column)] = sums[k];
}

__device__ __forceinline__ double merged(const double* partial, int chunks, int which, int count, int columns, int column) {
    double sum = 0.0;
    for (int chunk = 0; chunk < chunks; chunk++) sum += partial[partial_at(chunk, which, count, columns, column)];
    return sum;
}

// ---- the way back -----------------------------------------------------------------------------------------------------

// What a column's diagonal value c adds to its gradient, by the other view: 2 ((c - 1) - lambda c).
__device__ __forceinline__ double coefficient(double c, double lambda) { return 2.0 * ((c - 1.0) - lambda * c); }

// Part [rows, width] of an [all rows, d] matrix, from (first_row, first_column) on.
struct Part {
    int rows;
    int width;
    long long first_row;
    int first_column;
    int d;
};

// f(row) for the rows of a thread.
template <typename F> __device__ __forceinline__ void each_row(const Part& part, F f) {
    for (int step = 0;; step++) {
        const long long row = row_of(blockIdx.y, threadIdx.y, step, gridDim.y);
        if (row >= part.rows) return;
        f(row);
    }
}

template <int W>
__device__ __forceinline__ void standardize(const Part& part, const float* z, const double* mean, const double* inverse, float* out) {
    const int column = column_of(blockIdx.x, threadIdx.x, W);
    if (column >= part.width) return;
    double means[W], factors[W];
#pragma unroll
    for (int i = 0; i < W; i++) means[i] = mean[part.first_column + column + i], factors[i] = inverse[part.first_column + column + i];
    each_row(part, [&](long long row) {
        auto v = load<float, W>(z + value_at(part.first_row + row, part.d, part.first_column, column));
#pragma unroll
        for (int i = 0; i < W; i++) v.at[i] = (float)(((double)v.at[i] - means[i]) * factors[i]);
        store(out + value_at(row, part.width, 0, column), v);
    });
}

// What is known of columns when their gradient goes back, in double: [d] each, or [width] where it says so.
struct Columns {
    const double* diagonal; // Of C.
    const double* inverse;  // 1 / deviation.
    const double* squares;  // Sums of squares of C's rows (or columns), from which the gradient along the view follows; or null, then
    const double* sums;     // [2, width], the gradient's own sums, and those with the view.
    double lambda;
    int n;
};

// out = (g + coefficient other - mean - own along) upstream / (deviation n).
template <int W>
__device__ __forceinline__ void back(const Part& part, const float* g, const float* own, const float* other, const Columns& columns, const float* upstream, float* out) {
    const int column = column_of(blockIdx.x, threadIdx.x, W);
    if (column >= part.width) return;
    double by[W], mean[W], along[W], factor[W];
#pragma unroll
    for (int i = 0; i < W; i++) {
        const int k = column + i, j = part.first_column + k;
        const double c = columns.diagonal[j];
        by[i] = coefficient(c, columns.lambda);
        mean[i] = columns.squares ? 0.0 : columns.sums[k] / columns.n;
        along[i] = columns.squares ? 2.0 * columns.lambda * columns.squares[j] + by[i] * c : columns.sums[part.width + k] / columns.n;
        factor[i] = columns.inverse[j] * (double)*upstream / columns.n;
    }
    each_row(part, [&](long long row) {
        const long long at = value_at(row, part.width, 0, column);
        auto v = load<float, W>(g + at);
        const auto a = load<float, W>(own + at), b = load<float, W>(other + at);
#pragma unroll
        for (int i = 0; i < W; i++) {
            v.at[i] = (float)(((double)v.at[i] + by[i] * (double)b.at[i] - mean[i] - (double)a.at[i] * along[i]) * factor[i]);
        }
        store(out + value_at(part.first_row + row, part.d, part.first_column, column), v);
    });
}

} // namespace cross_correlation

using namespace cross_correlation;

// ---- moments ----------------------------------------------------------------------------------------------------------

// Of each column of both views over a chunk of rows: sums, sums of squares and the sum of products, all less the first
// row's values, so that a large mean costs no digits: `partial` [chunks, 5, d].
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_sums(const float* z1, const float* z2, int n, int d, int each, double* partial) {
    const int own = column_of(blockIdx.x, threadIdx.x, 1);
    const double first = own < d ? z1[own] : 0.0f, second = own < d ? z2[own] : 0.0f;
    column_sums<5>(n, d, each, partial, [&](double (&sums)[5], int row, int column) {
        const long long at = value_at(row, d, 0, column);
        const double a = (double)z1[at] - first, b = (double)z2[at] - second;
        sums[0] += a;
        sums[1] += b;
        sums[2] += a * a;
        sums[3] += b * b;
        sums[4] += a * b;
    });
}

// The mean and 1 / sqrt(biased variance + eps) of each column of both views, [2, d], and the diagonal of C, [d].
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_moments(
    const double* partial, int chunks, const float* z1, const float* z2, int n, int d, double eps, double* mean, double* inverse, double* diagonal
) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= d) return;
    double sums[5];
    for (int k = 0; k < 5; k++) sums[k] = merged(partial, chunks, k, 5, d, j) / n;
    mean[j] = z1[j] + sums[0];
    mean[d + j] = z2[j] + sums[1];
    // Rounding may leave less than nothing; a NaN stays.
    double first = sums[2] - sums[0] * sums[0], second = sums[3] - sums[1] * sums[1];
    first = 1.0 / sqrt((first < 0.0 ? 0.0 : first) + eps);
    second = 1.0 / sqrt((second < 0.0 ? 0.0 : second) + eps);
    inverse[j] = first;
    inverse[d + j] = second;
    diagonal[j] = (sums[4] - sums[0] * sums[1]) * first * second;
}

// ---- standardized views, and gradients --------------------------------------------------------------------------------

// Part of both views: blocks of z 0 the first, of z 1 the second.
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_standardize(
    Part part, const float* z1, const float* z2, const double* mean, const double* inverse, float* out1, float* out2, bool vectors
) {
    const float* z = blockIdx.z ? z2 : z1;
    float* out = blockIdx.z ? out2 : out1;
    const int first = blockIdx.z * part.d;
    if (vectors) {
        standardize<4>(part, z, mean + first, inverse + first, out);
    } else {
        standardize<1>(part, z, mean + first, inverse + first, out);
    }
}

// Of each column of g + coefficient other, over a chunk of rows: its sum, and that of its product with the view itself.
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_back_sums(
    const float* g, const float* own, const float* other, int rows, int width, int each, const double* diagonal, double lambda, double* partial
) {
    const int column = column_of(blockIdx.x, threadIdx.x, 1);
    const double by = column < width ? coefficient(diagonal[column], lambda) : 0.0;
    column_sums<2>(rows, width, each, partial, [&](double (&sums)[2], int row, int column) {
        const long long at = value_at(row, width, 0, column);
        const double v = (double)g[at] + by * (double)other[at];
        sums[0] += v;
        sums[1] += v * (double)own[at];
    });
}

extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_back(
    Part part, const float* g, const float* own, const float* other, Columns columns, const float* upstream, float* out, bool vectors
) {
    if (vectors) {
        back<4>(part, g, own, other, columns, upstream, out);
    } else {
        back<1>(part, g, own, other, columns, upstream, out);
    }
}

// ---- sums over C and the Gram matrices --------------------------------------------------------------------------------

// Of each column of C [rows, d] over a chunk of rows the sum of squares, `partial` [chunks, 1, d].
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_column_squares(const float* c, int d, int each, double* partial) {
    column_sums<1>(d, d, each, partial, [&](double (&sums)[1], int row, int column) {
        const double v = c[value_at(row, d, 0, column)];
        sums[0] += v * v;
    });
}

// out[k, j] = sum of its parts, `[chunks, count, columns]`.
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_merge(const double* partial, int chunks, int count, int columns, double* out) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < columns) out[(long long)blockIdx.y * columns + j] = merged(partial, chunks, blockIdx.y, count, columns, j);
}

// Of each row of C, a block for each: the sum of squares, and the same without the diagonal.
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_row_squares(const float* c, int d, double* all, double* off) {
    __shared__ double room[32];
    const int row = blockIdx.x;
    double sum = 0.0;
    for (int j = threadIdx.x; j < d; j += THREADS) {
        const double v = c[value_at(row, d, 0, j)];
        if (j != row) sum += v * v;
    }
    sum = block_sum(sum, room);
    if (threadIdx.x) return;
    const double own = c[value_at(row, d, 0, row)];
    off[row] = sum;
    all[row] = sum + own * own;
}

// The sum over a block's share of a b, `terms` [blocks].
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_dot(const float* a, const float* b, long long count, double* terms) {
    __shared__ double room[32];
    double sum = 0.0;
#pragma unroll 4
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < count; i += (long long)gridDim.x * THREADS) {
        sum += (double)a[i] * (double)b[i];
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) terms[blockIdx.x] = sum;
}

// The loss and its terms by one block: the sum of `count` terms by `factor` is that of C's squares, off the diagonal, or
// with it, then that of the diagonal is taken away.
extern "C" __global__ void __launch_bounds__(THREADS) cross_correlation_loss(
    const double* diagonal, int d, const double* terms, int count, double factor, bool with_diagonal, double lambda, float* total, float* invariance,
    float* redundancy
) {
    __shared__ double room[32];
    double on = 0.0, squares = 0.0, sum = 0.0;
    for (int j = threadIdx.x; j < d; j += THREADS) {
        const double c = diagonal[j];
        on += (c - 1.0) * (c - 1.0);
        squares += c * c;
    }
    for (int i = threadIdx.x; i < count; i += THREADS) sum += terms[i];
    on = block_sum(on, room);
    squares = block_sum(squares, room);
    sum = block_sum(sum, room) * factor;
    if (threadIdx.x) return;
    if (with_diagonal) sum -= squares;
    if (sum < 0.0) sum = 0.0; // What rounding may leave; a NaN stays.
    *total = (float)(on + lambda * sum);
    *invariance = (float)on;
    *redundancy = (float)sum;
}
