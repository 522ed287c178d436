// What comes before and after the tiles of contrast.cu, row by row: rows made ready, parts put together, gradients
// brought back to the embeddings. A warp has a row, or a thread where a row is a few numbers. Sums are in double, always
// in the same order.

#include "../cuda/common.cuh"
#include "contrast_index.h"

namespace contrast {

// Row `row` of two arrays [first, width] and [.., width], one after the other.
template <typename T> __device__ __forceinline__ T* row_at(T* x, T* y, int first, int row, int width) {
    return (row < first ? x : y) + (long long)(row < first ? row : row - first) * width;
}

// The warp's row, of `rows`; n or more where there is none.
__device__ __forceinline__ int own_row() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

// out [n, depth]: rows of two arrays, at length 1 if `inverse` (1 / length of each, 0 for a zero row) is wanted, rounded to
// TF32 if `rounded`, with zeros behind `width`.
template <typename T>
__device__ __forceinline__ void prepare(const T* x, const T* y, int first, int n, int width, int depth, bool rounded, T* out, double* inverse) {
    const int row = own_row(), lane = threadIdx.x % 32;
    if (row >= n) return;
    const T* from = row_at(x, y, first, row, width);
    double factor = 1.0;
    if (inverse) {
        double squares = 0.0;
        for (int i = lane; i < width; i += 32) squares += (double)widen(from[i]) * (double)widen(from[i]);
        squares = warp_sum(squares);
        factor = squares == 0.0 ? 0.0 : 1.0 / sqrt(squares);
        if (lane == 0) inverse[row] = factor;
    }
    for (int i = lane; i < depth; i += 32) {
        float v = i < width ? widen(from[i]) : 0.0f;
        if (inverse) v = (float)(v * factor);
        if (rounded) v = __uint_as_float(to_tf32(v));
        out[(long long)row * depth + i] = narrow<T>(v);
    }
}

// positives[i] = scale <q_i, k_i>, for [n, width].
template <typename T> __device__ __forceinline__ void positives_of(const T* q, const T* k, int n, int width, double scale, float* positives) {
    const int row = own_row(), lane = threadIdx.x % 32;
    if (row >= n) return;
    const long long at = (long long)row * width;
    double sum = 0.0;
    for (int i = lane; i < width; i += 32) sum += (double)widen(q[at + i]) * (double)widen(k[at + i]);
    sum = warp_sum(sum);
    if (lane == 0) positives[row] = (float)(sum * scale);
}

// A row's gradient, but for the upstream one: the parts of the sums in order, and a weight of another row.
template <typename T> struct Gradient {
    const float* sums; // [parts, n, depth]
    int parts;
    int n;
    int depth;
    const T* other; // [n, width], or null
    const float* weights;
    int width;

    __device__ double at(int row, int i) const {
        double sum = 0.0;
        for (int part = 0; part < parts; part++) sum += sums[partial_at(part, n, row) * depth + i];
        if (other) sum += (double)weights[row] * (double)widen(other[(long long)row * width + i]);
        return sum;
    }
};

// out = factor upstream gradient.
template <typename T> __device__ __forceinline__ void finish(const Gradient<T>& gradient, const float* upstream, double factor, T* out) {
    const int row = own_row(), lane = threadIdx.x % 32;
    if (row >= gradient.n) return;
    factor *= *upstream;
    for (int i = lane; i < gradient.width; i += 32) {
        out[(long long)row * gradient.width + i] = narrow<T>((float)(gradient.at(row, i) * factor));
    }
}

// The same through the normalization, g - z <z, g> over the length, for rows of two arrays.
template <typename T>
__device__ __forceinline__ void finish_normalized(
    const Gradient<T>& gradient, const float* upstream, double factor, const T* x, const T* y, int first, const double* inverse, T* dx, T* dy
) {
    const int row = own_row(), lane = threadIdx.x % 32, width = gradient.width;
    if (row >= gradient.n) return;
    const T* from = row_at(x, y, first, row, width);
    T* out = row_at(dx, dy, first, row, width);
    const double length = inverse[row];
    double along = 0.0;
    for (int i = lane; i < width; i += 32) along += gradient.at(row, i) * (widen(from[i]) * length);
    along = warp_sum(along);
    factor *= *upstream * length;
    for (int i = lane; i < width; i += 32) {
        out[i] = narrow<T>((float)((gradient.at(row, i) - widen(from[i]) * length * along) * factor));
    }
}

} // namespace contrast

#define CONTRAST_ROWS(SUFFIX, T)                                                                                       \
    extern "C" __global__ void contrast_prepare_##SUFFIX(const T* x, const T* y, int first, int n, int width,          \
                                                         int depth, bool rounded, T* out, double* inverse) {            \
        contrast::prepare(x, y, first, n, width, depth, rounded, out, inverse);                                        \
    }                                                                                                                  \
    extern "C" __global__ void contrast_positives_##SUFFIX(const T* q, const T* k, int n, int width, double scale,     \
                                                           float* positives) {                                         \
        contrast::positives_of(q, k, n, width, scale, positives);                                                      \
    }                                                                                                                  \
    extern "C" __global__ void contrast_finish_##SUFFIX(contrast::Gradient<T> gradient, const float* upstream,         \
                                                        double factor, T* out) {                                       \
        contrast::finish(gradient, upstream, factor, out);                                                             \
    }                                                                                                                  \
    extern "C" __global__ void contrast_finish_normalized_##SUFFIX(                                                    \
        contrast::Gradient<T> gradient, const float* upstream, double factor, const T* x, const T* y, int first,       \
        const double* inverse, T* dx, T* dy) {                                                                         \
        contrast::finish_normalized(gradient, upstream, factor, x, y, first, inverse, dx, dy);                         \
    }

CONTRAST_ROWS(f32, float)
CONTRAST_ROWS(bf16, bf16)

// The parts of each row's sum of exponentials become its log-sum-exp (base 2), and that less the positive's logit a term
// of the loss; `terms`: a sum for each block. A thread has a row.
//
// `beside`: the positive is no column, so it joins the sum, and gets its share of the row less 1 as its weight.
// `of_rows`: the log-sum-exp; where all rows share a ceiling, 2 to what the ceiling is above it.
extern "C" __global__ void contrast_join(const float2* partial, int parts, int n, const float* positives, float* beside, float ceiling, float* of_rows, double* terms) {
    __shared__ double room[32];
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    double term = 0.0;
    if (row < n) {
        const double positive = positives[row];
        double top = beside ? positive : -INFINITY, sum = beside ? 1.0 : 0.0;
        for (int part = 0; part < parts; part++) {
            const float2 next = partial[contrast::partial_at(part, n, row)];
            const double higher = next.x > top ? next.x : top;
            sum = sum * exp2(top - higher) + next.y * exp2(next.x - higher);
            top = higher;
        }
        const double all = top + log2(sum);
        if (beside) beside[row] = (float)expm1((positive - all) * 0.6931471805599453);
        of_rows[row] = ceiling == INFINITY ? (float)all : (float)exp2(ceiling - all);
        term = (all - positive) * 0.6931471805599453;
    }
    term = block_sum(term, room);
    if (threadIdx.x == 0) terms[blockIdx.x] = term;
}

// loss = factor times the sum of terms, by one block.
extern "C" __global__ void contrast_loss(const double* terms, int count, double factor, float* loss) {
    __shared__ double room[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += terms[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) *loss = (float)(sum * factor);
}
