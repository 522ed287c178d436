// Max pooling and global average pooling, channels last.
//
// Maximum, forward: reads x (windows that overlap find it in the cache), writes y and a byte per value of y, the place of
// the maximum. Backward: each pixel of x gathers from the windows that it lies in, in row-major order, so that nothing is
// added to by two threads; it reads dy and the places, and writes dx once.

#include "../cuda/columns.cuh"
#include "pool_index.h"

// Pixels of an image that are summed in float before the sum moves to double.
constexpr int PIXELS = 64;

template <typename T, int W>
__device__ __forceinline__ void max_forward(const T* x, T* y, unsigned char* places, const Window& window) {
    const int height = window.height, width = window.width, channels = window.channels;
    const unsigned thread = blockIdx.y * blockDim.x + threadIdx.x;
    const Pixel at = pixel_of(window.out_height, window.out_width, channels, W, blockIdx.x, thread);
    if (!at.inside) return;
    const Range rows = under(window, at.row, height), columns = under(window, at.column, width);
    float best[W];
    int place[W];
#pragma unroll
    for (int c = 0; c < W; c++) {
        best[c] = -__int_as_float(0x7f800000);
        place[c] = place_in(window, at.row, at.column, rows.start, columns.start);
    }
    for (int row = rows.start; row < rows.end; row++) {
        const T* from = x + offset_of(at.image, row, columns.start, at.channel, height, width, channels);
        int here = place_in(window, at.row, at.column, row, columns.start);
        for (int column = columns.start; column < columns.end; column++, here++, from += channels) {
            const auto values = load<T, W>(from);
#pragma unroll
            for (int c = 0; c < W; c++) {
                const float v = widen(values.at[c]);
                // Of several NaNs the last, as in PyTorch.
                const bool better = v > best[c] || v != v;
                best[c] = better ? v : best[c];
                place[c] = better ? here : place[c];
            }
        }
    }
    Vector<T, W> out;
    Vector<unsigned char, W> out_places;
#pragma unroll
    for (int c = 0; c < W; c++) {
        out.at[c] = narrow<T>(best[c]);
        out_places.at[c] = (unsigned char)place[c];
    }
    const long long to =
        offset_of(at.image, at.row, at.column, at.channel, window.out_height, window.out_width, channels);
    store(y + to, out);
    store(places + to, out_places);
}

template <typename T, int W>
__device__ __forceinline__ void max_backward(const T* dy, const unsigned char* places, T* dx, const Window& window) {
    const int channels = window.channels, out_width = window.out_width;
    const unsigned thread = blockIdx.y * blockDim.x + threadIdx.x;
    const Pixel at = pixel_of(window.height, window.width, channels, W, blockIdx.x, thread);
    if (!at.inside) return;
    const Range rows = holders(window, at.row, window.out_height), columns = holders(window, at.column, out_width);
    float sum[W];
#pragma unroll
    for (int c = 0; c < W; c++) sum[c] = 0.0f;
#pragma unroll 1
    for (int i = rows.start; i < rows.end; i++) {
        long long from = offset_of(at.image, i, columns.start, at.channel, window.out_height, out_width, channels);
        int here = place_in(window, i, columns.start, at.row, at.column);
#pragma unroll 2
        for (int j = columns.start; j < columns.end; j++, from += channels, here -= window.stride) {
            const auto gradients = load<T, W>(dy + from);
            const auto maxima = load<unsigned char, W>(places + from);
#pragma unroll
            for (int c = 0; c < W; c++) sum[c] += maxima.at[c] == here ? widen(gradients.at[c]) : 0.0f;
        }
    }
    Vector<T, W> out;
#pragma unroll
    for (int c = 0; c < W; c++) out.at[c] = narrow<T>(sum[c]);
    store(dx + offset_of(at.image, at.row, at.column, at.channel, window.height, window.width, channels), out);
}

// The mean over the rows of each group (the pixels of an image), which are in one piece.
template <typename T, int W>
__device__ __forceinline__ void average(const T* x, T* y, const Columns& columns) {
    __shared__ ColumnRoom<W, 1> room;
    const Place at = place_of(columns, W, blockIdx.x, blockIdx.y, threadIdx.x);
    double total = 0.0;
    // As many rounds for every thread, since all of them must come to the sums.
    for (long long first = 0; first < columns.rows; first += PIXELS * columns.lanes) {
        float sum[1][W];
#pragma unroll
        for (int c = 0; c < W; c++) sum[0][c] = 0.0f;
        if (at.inside) {
            Place part = at;
            const long long end = at.begin + first + PIXELS * columns.lanes;
            part.first = at.first + first;
            part.end = end < at.end ? end : at.end;
            each_row<2>(part, columns, [&](long long i, long long step, auto count) {
                constexpr int N = decltype(count)::value;
                Vector<T, W> rows[N];
#pragma unroll
                for (int k = 0; k < N; k++) rows[k] = load<T, W>(x + i + k * step);
#pragma unroll
                for (int k = 0; k < N; k++) {
#pragma unroll
                    for (int c = 0; c < W; c++) sum[0][c] += widen(rows[k].at[c]);
                }
            });
        }
        double sums[1];
        column_sums<W, 1>(sum, columns, room, sums);
        total += sums[0];
    }
    const long long k = threadIdx.x, channel = blockIdx.y * columns.tile * W + k;
    if (k >= columns.tile * W || channel >= columns.channels) return;
    y[at.group * columns.channels + channel] = narrow<T>((float)(total / (double)columns.rows));
}

// Each pixel's share of its image's gradient.
template <typename T, int W>
__device__ __forceinline__ void average_backward(const T* dy, T* dx, const Columns& columns) {
    const Place at = place_of(columns, W, blockIdx.x, blockIdx.y, threadIdx.x);
    if (!at.inside) return;
    const float share = 1.0f / (float)columns.rows;
    auto out = load<T, W>(dy + at.group * columns.channels + at.channel);
#pragma unroll
    for (int c = 0; c < W; c++) out.at[c] = narrow<T>(widen(out.at[c]) * share);
    each_row<1>(at, columns, [&](long long i, long long, auto) { store(dx + i, out); });
}

// `vectors`: all rows may be read 16 bytes at a time.
#define POOL(SUFFIX, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        pool_max_forward_##SUFFIX(const T* x, T* y, unsigned char* places, Window window, bool vectors) {              \
        vectors ? max_forward<T, WIDTH<T>>(x, y, places, window) : max_forward<T, 1>(x, y, places, window);            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        pool_max_backward_##SUFFIX(const T* dy, const unsigned char* places, T* dx, Window window, bool vectors) {     \
        vectors ? max_backward<T, WIDTH<T>>(dy, places, dx, window) : max_backward<T, 1>(dy, places, dx, window);      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        pool_average_##SUFFIX(const T* x, T* y, Columns columns, bool vectors) {                                       \
        vectors ? average<T, WIDTH<T>>(x, y, columns) : average<T, 1>(x, y, columns);                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        pool_average_backward_##SUFFIX(const T* dy, T* dx, Columns columns, bool vectors) {                            \
        vectors ? average_backward<T, WIDTH<T>>(dy, dx, columns) : average_backward<T, 1>(dy, dx, columns);            \
    }

POOL(f32, float)
POOL(bf16, bf16)
