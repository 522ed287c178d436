// What one step of a tiled product does with two tiles in shared memory, in three arithmetics: bf16 and TF32 on tensor cores, exact f32.
//
// A tile of the product is ROWS x COLUMNS, summed by THREADS threads. Each arithmetic has its own share of the tile for a thread (`Sums`), adds
// the products of one pair of tiles to it, and gives every sum with its place to a function. Tiles are TERMS terms deep.
#pragma once

#include "../cuda/common.cuh"
#include "conv2d_index.h"

constexpr int THREADS = 256;

// Places for a pair of tiles in shared memory.
constexpr int STAGES = 4;

// Terms of a tile: 64 bytes of them.
template <typename T> constexpr int TERMS = 64 / sizeof(T);

// One chunk of a row to shared memory: 16 bytes at once, or value by value where vectors cannot be read. `at(i)` says where value i
// lies in memory, -1 for none.
template <typename T, typename F> __device__ __forceinline__ void copy_chunk(T* shared, const T* from, bool vectors, F at) {
    if (vectors) {
        const long long first = at(0);
        copy_async16(shared, from + (first < 0 ? 0 : first), first >= 0);
    } else {
#pragma unroll 1
        for (int i = 0; i < WIDTH<T>; i++) {
            const long long value = at(i);
            shared[i] = value < 0 ? narrow<T>(0.0f) : from[value];
        }
    }
}

// `add(step)` for each step, while the tiles of the STAGES - 1 steps that follow are on their way: `copy(step)` begins to bring
// those of a step to place step % STAGES.
template <typename Copy, typename Add> __device__ __forceinline__ void pipeline(int steps, Copy copy, Add add) {
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) copy(step);
        copy_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); // This step's tiles are there, and nobody reads those that are written over next.
        if (step + STAGES - 1 < steps) copy(step + STAGES - 1);
        copy_async_commit();
        add(step);
    }
}

// How tensor-core warps share a tile: ROWS / 64 or ROWS / 32 of them below each other, each with 32 columns.
template <int ROWS, int COLUMNS> struct Warps {
    static constexpr int ACROSS = COLUMNS / 32, DOWN = THREADS / 32 / ACROSS;
    static constexpr int M = ROWS / DOWN / 16, N = 4; // fragments of 16 x 8
    static_assert(ROWS % (DOWN * 16) == 0, "a warp has whole fragments");
    __device__ static int row() { return threadIdx.x / 32 / ACROSS * (ROWS / DOWN); }
    __device__ static int column() { return threadIdx.x / 32 % ACROSS * 32; }
};

// A fragment of operands for the sums' warps, and the products of two of them.
struct Bf16 {
    using T = bf16;
    __device__ static void prepare(unsigned (&)[4]) {}
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_bf16(d, a, b); }
};

struct Tf32 {
    using T = float;
    __device__ static void prepare(unsigned (&r)[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = to_tf32(__uint_as_float(r[i]));
    }
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_tf32(d, a, b); }
};

template <typename Unit, int ROWS, int COLUMNS> struct TensorCores {
    using T = typename Unit::T;
    using Share = Warps<ROWS, COLUMNS>;
    float sums[Share::M][Share::N][4] = {};

    // Both tiles in rows of TERMS: rows of the product, and columns of it.
    __device__ __forceinline__ void add_rows(const T* a, const T* b) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int step = 0; step < 2; step++) {
            unsigned fa[Share::M][4], fb[Share::N / 2][4];
#pragma unroll
            for (int m = 0; m < Share::M; m++) {
                const int row = Share::row() + m * 16 + lane % 16;
                ldmatrix_x4(fa[m], a + chunk_of_four(row, step * 2 + lane / 16) * WIDTH<T>);
                Unit::prepare(fa[m]);
            }
#pragma unroll
            for (int n = 0; n < Share::N / 2; n++) {
                const int row = Share::column() + n * 16 + lane % 8 + lane / 16 * 8;
                ldmatrix_x4(fb[n], b + chunk_of_four(row, step * 2 + lane / 8 % 2) * WIDTH<T>);
                Unit::prepare(fb[n]);
            }
            multiply(fa, fb);
        }
    }

    // Both tiles in rows of one term each.
    __device__ __forceinline__ void add_terms(const T* a, const T* b) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            unsigned fa[Share::M][4], fb[Share::N / 2][4];
#pragma unroll
            for (int m = 0; m < Share::M; m++) turned(fa[m], a, ROWS, step, Share::row() + m * 16, true);
#pragma unroll
            for (int n = 0; n < Share::N / 2; n++) turned(fb[n], b, COLUMNS, step, Share::column() + n * 16, false);
            multiply(fa, fb);
        }
    }

    // f(row, column, sums of this column and those beside it) for the thread's share.
    template <typename F> __device__ __forceinline__ void each(F f) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < Share::M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = Share::row() + m * 16 + half * 8 + lane / 4;
#pragma unroll
                for (int n = 0; n < Share::N; n++) {
                    const float(&d)[4] = sums[m][n];
                    f(row, Share::column() + n * 8 + lane % 4 * 2, Vector<float, 2>{d[2 * half], d[2 * half + 1]});
                }
            }
    }

private:
    __device__ __forceinline__ void multiply(const unsigned (&fa)[Share::M][4], const unsigned (&fb)[Share::N / 2][4]) {
#pragma unroll
        for (int m = 0; m < Share::M; m++)
#pragma unroll
            for (int n = 0; n < Share::N; n++) {
                const unsigned b[2] = {fb[n / 2][n % 2 * 2], fb[n / 2][n % 2 * 2 + 1]};
                Unit::multiply(sums[m][n], fa[m], b);
            }
    }

    // 16 rows (or columns) from `first` on of one step's terms. Their four parts: for rows, of the same terms come two blocks of 8
    // rows, then those of the next terms; for columns, of the same 8 columns come two blocks of terms.
    __device__ __forceinline__ static void turned(unsigned (&r)[4], const bf16* tile, int across, int step, int first, bool rows) {
        const int lane = threadIdx.x % 32, low = lane / 8 % 2, high = lane / 16;
        const int term = step * 16 + lane % 8 + (rows ? high : low) * 8;
        ldmatrix_x4_trans(r, tile + chunk_of_row(term, first / 8 + (rows ? low : high), across / 8) * WIDTH<bf16>);
    }
    __device__ __forceinline__ static void turned(unsigned (&r)[4], const float* tile, int across, int step, int first, bool rows) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int low = i % 2, high = i / 2;
            const int term = step * 8 + lane % 4 + (rows ? high : low) * 4, at = first + lane / 4 + (rows ? low : high) * 8;
            r[i] = to_tf32(tile[chunk_of_pairs(term, at / 4, across / 4) * 4 + at % 4]);
        }
    }
};

// Thread (r, c) of 16 x 16 has rows 4r to 4r + 3, 64 below those, ... and columns c, c + 16, ...
template <int ROWS, int COLUMNS> struct Exact {
    using T = float;
    static constexpr int M = ROWS / 64, N = COLUMNS / 16;
    float sums[M][4][N] = {};

    __device__ __forceinline__ void add_rows(const float* a, const float* b) {
        const int r = threadIdx.x / 16, c = threadIdx.x % 16;
#pragma unroll
        for (int chunk = 0; chunk < 4; chunk++) {
            Vector<float, 4> fa[M][4];
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) fa[m][i] = load<float, 4>(a + chunk_of_four(64 * m + 4 * r + i, chunk) * 4);
#pragma unroll
            for (int n = 0; n < N; n++) {
                const auto fb = load<float, 4>(b + chunk_of_four(16 * n + c, chunk) * 4);
#pragma unroll
                for (int k = 0; k < 4; k++)
#pragma unroll
                    for (int m = 0; m < M; m++)
#pragma unroll
                        for (int i = 0; i < 4; i++) sums[m][i][n] = fmaf(fa[m][i].at[k], fb.at[k], sums[m][i][n]);
            }
        }
    }

    __device__ __forceinline__ void add_terms(const float* a, const float* b) {
        const int r = threadIdx.x / 16, c = threadIdx.x % 16;
#pragma unroll 4
        for (int term = 0; term < TERMS<float>; term++) {
            Vector<float, 4> fa[M];
#pragma unroll
            for (int m = 0; m < M; m++) fa[m] = load<float, 4>(a + chunk_of_pairs(term, 16 * m + r, ROWS / 4) * 4);
#pragma unroll
            for (int n = 0; n < N; n++) {
                const int column = 16 * n + c;
                const float fb = b[chunk_of_pairs(term, column / 4, COLUMNS / 4) * 4 + column % 4];
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[m][i][n] = fmaf(fa[m].at[i], fb, sums[m][i][n]);
            }
        }
    }

    template <typename F> __device__ __forceinline__ void each(F f) const {
        const int r = threadIdx.x / 16, c = threadIdx.x % 16;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int n = 0; n < N; n++) f(64 * m + 4 * r + i, 16 * n + c, Vector<float, 1>{sums[m][i][n]});
    }
};
