// The weight gradient of a convolution without cuDNN: products of the output's gradient and gathered pixels, summed over all pixels.
//
// dw[o, term] = sum over pixels of dy[pixel, o] x[pixel, term]. The pixels are cut into parts, so that there are blocks enough; a second
// kernel adds the parts in their order, so that the result is always the same.

#include "conv2d_tile.h"

constexpr int COLUMNS = 128;

// A chunk's place in a tile with one row for each term of the sum (here a pixel), as `Sums::add_terms` reads it.
__device__ __forceinline__ int place(const bf16*, int row, int chunk, int chunks) { return chunk_of_row(row, chunk, chunks); }
__device__ __forceinline__ int place(const float*, int row, int chunk, int chunks) { return chunk_of_pairs(row, chunk, chunks); }

// parts[part, o, term] for the pixels from blockIdx.y `per_part` on.
template <typename Sums, int ROWS>
__device__ __forceinline__ void weight_grad(const ConvSizes& sizes, const typename Sums::T* x, const typename Sums::T* dy,
                                            float* parts, int per_part, bool vectors_of_x, bool vectors_of_dy) {
    using T = typename Sums::T;
    constexpr int TILE = (ROWS + COLUMNS) * TERMS<T>;
    DYNAMIC_SHARED(memory);
    T* const tiles = reinterpret_cast<T*>(memory);

    const Gather g = forward_gather(sizes);
    const int terms = g.terms();
    const Tile tile = tile_of(blockIdx.x, ROWS, COLUMNS, terms);
    const int start = blockIdx.y * per_part;
    const int end = g.pixels() - start < per_part ? g.pixels() : start + per_part;

    // A thread copies one chunk of every APART-th pixel: the same outputs, and the same terms, in each step.
    constexpr int OUTPUT_CHUNKS = ROWS / WIDTH<T>, TERM_CHUNKS = COLUMNS / WIDTH<T>;
    constexpr int OUTPUT_APART = THREADS / OUTPUT_CHUNKS, TERM_APART = THREADS / TERM_CHUNKS;
    const int output_chunk = threadIdx.x % OUTPUT_CHUNKS, output_row = threadIdx.x / OUTPUT_CHUNKS;
    const int term_chunk = threadIdx.x % TERM_CHUNKS, term_row = threadIdx.x / TERM_CHUNKS;
    const int output = tile.row + output_chunk * WIDTH<T>, first = tile.column + term_chunk * WIDTH<T>;
    const Term term = term_of(g, first, terms);

    const auto copy = [&](int step) {
        T* const a = tiles + step % STAGES * TILE;
        T* const b = a + ROWS * TERMS<T>;
        const int pixel = start + step * TERMS<T>;
#pragma unroll
        for (int i = 0; i < TERMS<T> / OUTPUT_APART; i++) {
            const int row = output_row + i * OUTPUT_APART;
            copy_chunk(a + place(a, row, output_chunk, OUTPUT_CHUNKS) * WIDTH<T>, dy, vectors_of_dy, [&](int k) {
                return pixel + row < end && output + k < sizes.o ? (long long)(pixel + row) * sizes.o + output + k : -1;
            });
        }
#pragma unroll
        for (int i = 0; i < TERMS<T> / TERM_APART; i++) {
            const int row = term_row + i * TERM_APART;
            const Pixel at = pixel_of(g, pixel + row, end);
            copy_chunk(b + place(b, row, term_chunk, TERM_CHUNKS) * WIDTH<T>, x, vectors_of_x, [&](int k) {
                return source_of(g, at, k == 0 ? term : term_of(g, first + k, terms));
            });
        }
    };

    Sums sums;
    pipeline(ceil_div(end - start, TERMS<T>), copy, [&](int step) {
        const T* const a = tiles + step % STAGES * TILE;
        sums.add_terms(a, a + ROWS * TERMS<T>);
    });

    float* const part = parts + (long long)blockIdx.y * sizes.o * terms;
    sums.each([&](int r, int c, auto sum) {
        const int row = tile.row + r, column = tile.column + c;
        if (row >= sizes.o) return;
#pragma unroll
        for (int i = 0; i < (int)(sizeof(sum) / sizeof(float)); i++)
            if (column + i < terms) part[(long long)row * terms + column + i] = sum.at[i];
    });
}

#define CONV2D(NAME, SUMS, ROWS, BLOCKS)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                      \
        conv2d_weight_grad_##NAME(ConvSizes sizes, const SUMS::T* x, const SUMS::T* dy, float* parts, int per_part,    \
                                  bool vectors_of_x, bool vectors_of_dy) {                                             \
        weight_grad<SUMS, ROWS>(sizes, x, dy, parts, per_part, vectors_of_x, vectors_of_dy);                           \
    }

using Bf16x64 = TensorCores<Bf16, 64, COLUMNS>;
using Bf16x128 = TensorCores<Bf16, 128, COLUMNS>;
using Tf32x64 = TensorCores<Tf32, 64, COLUMNS>;
using Tf32x128 = TensorCores<Tf32, 128, COLUMNS>;
using F32x64 = Exact<64, COLUMNS>;
using F32x128 = Exact<128, COLUMNS>;

CONV2D(bf16_64, Bf16x64, 64, 2)
CONV2D(bf16_128, Bf16x128, 128, 2)
CONV2D(tf32_64, Tf32x64, 64, 2)
CONV2D(tf32_128, Tf32x128, 128, 2)
CONV2D(f32_64, F32x64, 64, 1)
CONV2D(f32_128, F32x128, 128, 1)

// dw = the sum of the parts, in their order, in f64.
extern "C" __global__ void conv2d_sum_parts(const float* parts, float* dw, long long n, int count) {
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) return;
    double sum = 0.0;
    for (int part = 0; part < count; part++) sum += parts[part * n + at];
    dw[at] = (float)sum;
}

// [o, taps, c] as [c, taps, o], for the input gradient: a block turns 32 x 32 values of a tap.
template <typename T> __device__ __forceinline__ void turn(const float* w, T* turned, int o, int taps, int c) {
    __shared__ float room[32][33];
    const int tap = blockIdx.z, across = threadIdx.x % 32, down = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 32; i += THREADS / 32) {
        const long long row = blockIdx.y * 32 + down + i, column = blockIdx.x * 32 + across;
        if (row < o && column < c) room[down + i][across] = w[(row * taps + tap) * c + column];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 32; i += THREADS / 32) {
        const long long row = blockIdx.x * 32 + down + i, column = blockIdx.y * 32 + across;
        if (row < c && column < o) turned[(row * taps + tap) * o + column] = narrow<T>(room[across][down + i]);
    }
}

extern "C" __global__ void conv2d_turn_f32(const float* w, float* turned, int o, int taps, int c) { turn(w, turned, o, taps, c); }

extern "C" __global__ void conv2d_turn_bf16(const float* w, bf16* turned, int o, int taps, int c) { turn(w, turned, o, taps, c); }
