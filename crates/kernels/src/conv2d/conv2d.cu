// Convolution without cuDNN: forward pass and input gradient, as one product of gathered pixels and weights.
//
// A block makes 128 pixels x COLUMNS channels of the result. Its tiles of terms (64 bytes of every pixel and of every weight's row) come through
// STAGES places in shared memory: while one is multiplied, the next are on their way.

#include "conv2d_tile.h"

constexpr int ROWS = 128;

// Rows of a tile that a thread copies, one chunk of each: 4 threads share a row.
constexpr int ROWS_APART = THREADS / 4;

// out[pixel, column] = sum over terms of source[pixel, term] weights[column, term], + add[pixel, column] where there is one.
template <typename Sums, int COLUMNS>
__device__ __forceinline__ void gather(const Gather& g, const typename Sums::T* source, const typename Sums::T* weights,
                                       const typename Sums::T* add, typename Sums::T* out, int columns, bool vectors, bool pairs) {
    using T = typename Sums::T;
    constexpr int TILE = (ROWS + COLUMNS) * TERMS<T>;
    DYNAMIC_SHARED(memory);
    T* const tiles = reinterpret_cast<T*>(memory);

    const int pixels = g.pixels(), terms = g.terms();
    const Tile tile = tile_of(blockIdx.x, ROWS, COLUMNS, columns);
    if (tile.row >= pixels) return; // a smaller phase than the largest
    const int row = threadIdx.x / 4, chunk = threadIdx.x % 4;
    Pixel pixel[ROWS / ROWS_APART];
#pragma unroll
    for (int i = 0; i < ROWS / ROWS_APART; i++) pixel[i] = pixel_of(g, tile.row + row + i * ROWS_APART, pixels);

    const auto copy = [&](int step) {
        T* const a = tiles + step % STAGES * TILE;
        T* const b = a + ROWS * TERMS<T>;
        const int first = step * TERMS<T> + chunk * WIDTH<T>;
        const Term term = term_of(g, first, terms);
#pragma unroll
        for (int i = 0; i < ROWS / ROWS_APART; i++)
            copy_chunk(a + chunk_of_four(row + i * ROWS_APART, chunk) * WIDTH<T>, source, vectors, [&](int k) {
                return source_of(g, pixel[i], k == 0 ? term : term_of(g, first + k, terms));
            });
#pragma unroll
        for (int i = 0; i < COLUMNS / ROWS_APART; i++) {
            const int column = tile.column + row + i * ROWS_APART;
            copy_chunk(b + chunk_of_four(row + i * ROWS_APART, chunk) * WIDTH<T>, weights, vectors, [&](int k) {
                const int weight = (k == 0 ? term : term_of(g, first + k, terms)).weight;
                return column < columns && weight >= 0 ? (long long)column * g.kernel_taps * g.channels + weight : -1;
            });
        }
    };

    Sums sums;
    pipeline(ceil_div(terms, TERMS<T>), copy, [&](int step) {
        const T* const a = tiles + step % STAGES * TILE;
        sums.add_rows(a, a + ROWS * TERMS<T>);
    });

    sums.each([&](int r, int c, auto sum) {
        constexpr int N = sizeof(sum) / sizeof(float);
        if (tile.row + r >= pixels || tile.column + c >= columns) return;
        const long long at = output_of(g, tile.row + r) * columns + tile.column + c;
        if (N == 1 || pairs) {
            Vector<T, N> v;
            if (add) v = load<T, N>(add + at);
#pragma unroll
            for (int i = 0; i < N; i++) v.at[i] = narrow<T>(sum.at[i] + (add ? widen(v.at[i]) : 0.0f));
            store(out + at, v);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (tile.column + c + i < columns) out[at + i] = narrow<T>(sum.at[i] + (add ? widen(add[at + i]) : 0.0f));
        }
    });
}

// BLOCKS: of a multiprocessor at once. Exact sums want more registers than half of one has.
//
// `vectors`: source and weights may be read 16 bytes at a time; `pairs`: the result may be written two values at a time.
#define CONV2D(NAME, SUMS, COLUMNS, BLOCKS)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                           \
        conv2d_forward_##NAME(ConvSizes sizes, const SUMS::T* x, const SUMS::T* w, SUMS::T* y, bool vectors,           \
                              bool pairs) {                                                                            \
        const Gather g = forward_gather(sizes);                                                                        \
        gather<SUMS, COLUMNS>(g, x, w, nullptr, y, sizes.o, vectors, pairs);                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                           \
        conv2d_input_grad_##NAME(ConvSizes sizes, const SUMS::T* dy, const SUMS::T* w, const SUMS::T* add,             \
                                 SUMS::T* dx, bool vectors, bool pairs) {                                              \
        const Gather g = backward_gather(sizes, blockIdx.z);                                                           \
        gather<SUMS, COLUMNS>(g, dy, w, add, dx, sizes.c, vectors, pairs);                                             \
    }

using Bf16x64 = TensorCores<Bf16, ROWS, 64>;
using Bf16x128 = TensorCores<Bf16, ROWS, 128>;
using Tf32x64 = TensorCores<Tf32, ROWS, 64>;
using Tf32x128 = TensorCores<Tf32, ROWS, 128>;
using F32x64 = Exact<ROWS, 64>;
using F32x128 = Exact<ROWS, 128>;

CONV2D(bf16_64, Bf16x64, 64, 2)
CONV2D(bf16_128, Bf16x128, 128, 2)
CONV2D(tf32_64, Tf32x64, 64, 2)
CONV2D(tf32_128, Tf32x128, 128, 2)
CONV2D(f32_64, F32x64, 64, 1)
CONV2D(f32_128, F32x128, 128, 1)
