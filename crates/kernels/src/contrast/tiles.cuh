// Products of tiles of embeddings: bf16 or TF32 on tensor cores, or float without. All three leave their sums the same
// way among the threads (contrast_index.h), so that what is done with a tile is written once.
#pragma once

#include "../cuda/common.cuh"
#include "contrast_index.h"

namespace contrast {

// 2^x to about two units in the last place; 0 below 2^-126.
__device__ __forceinline__ float power_of_2(float x) {
#ifdef DIPTYCH_EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// How products are made. COLUMNS: of a tile; DEPTH: values of a chunk; STEP: depths that are multiplied at a time;
// SCRATCH: floats of shared memory that a warp needs of its own.
struct Bf16 {
    using T = bf16;
    static constexpr int COLUMNS = 64, DEPTH = ROW_BYTES / 2, STRIDE = STRIDE_BYTES / 2, STEP = 16, SCRATCH = 0;
    static constexpr bool UNROLL = false; // Going back, registers are better spent on sums.
};

struct Tf32 {
    using T = float;
    static constexpr int COLUMNS = 32, DEPTH = ROW_BYTES / 4, STRIDE = STRIDE_BYTES / 4, STEP = 8, SCRATCH = 0;
    static constexpr bool UNROLL = true;
};

struct F32 {
    using T = float;
    static constexpr int COLUMNS = 32, DEPTH = ROW_BYTES / 4, STRIDE = STRIDE_BYTES / 4, STEP = 8;
    // 16 columns of the warp's rows, and 16 bytes more for each.
    static constexpr int SCRATCH_STRIDE = 20, SCRATCH = WARP_ROWS * SCRATCH_STRIDE;
    static constexpr bool UNROLL = true;
};

// A warp's part of a tile of logits, and of a chunk of what it is multiplied with.
template <typename P> using Logits = float[2][P::COLUMNS / 8][4];
template <typename P> using Sums = float[2][P::DEPTH / 8][4];

// Begins to copy `ROWS_` rows from `first` on, depths from `start` on, to shared memory; zeros where there are none.
template <typename P, int ROWS_>
__device__ __forceinline__ void load_chunk(typename P::T* shared, const typename P::T* from, int first, int count, int depth, int start) {
    constexpr int EACH = THREADS / VECTORS;
    const int row = threadIdx.x / VECTORS, vector = threadIdx.x % VECTORS * WIDTH<typename P::T>;
    const bool inside = start + vector < depth;
    const typename P::T* source = from + (long long)(first + row) * depth + start + vector;
    typename P::T* target = shared + row * P::STRIDE + vector;
#pragma unroll
    for (int i = 0; i < ROWS_ / EACH; i++) {
        const bool valid = inside && first + row + i * EACH < count;
        copy_async16(target + i * EACH * P::STRIDE, valid ? source : from, valid);
        source += (long long)EACH * depth;
    }
}

// ---- bf16 -------------------------------------------------------------------------------------------------------------

// The warp's rows, depths [16 step, 16 step + 16).
__device__ __forceinline__ void load_a(unsigned (&a)[2][4], const bf16* rows, int step) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        ldmatrix_x4(a[i], rows + (warp * WARP_ROWS + 16 * i + a_row(lane)) * Bf16::STRIDE + 16 * step + a_depth(lane));
    }
}

__device__ __forceinline__ void multiply_step(Logits<Bf16>& s, const unsigned (&a)[2][4], const bf16* columns, int step) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < Bf16::COLUMNS / 8; j += 2) {
        unsigned b[4];
        ldmatrix_x4(b, columns + (8 * j + b_row(lane)) * Bf16::STRIDE + 16 * step + b_depth(lane));
        const unsigned even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            mma_bf16(s[i][j], a[i], even);
            mma_bf16(s[i][j + 1], a[i], odd);
        }
    }
}

__device__ __forceinline__ void multiply_step(Bf16, Logits<Bf16>& s, const bf16* rows, const bf16* columns, int step) {
    unsigned a[2][4];
    load_a(a, rows, step);
    multiply_step(s, a, columns, step);
}

// sums += w columns: a tile's weights, rounded to bf16, are operands as they lie.
__device__ __forceinline__ void add_weighted(Bf16, Sums<Bf16>& sums, const Logits<Bf16>& w, const bf16* columns, float*) {
    const int lane = threadIdx.x % 32;
    unsigned a[Bf16::COLUMNS / 16][2][4];
#pragma unroll
    for (int step = 0; step < Bf16::COLUMNS / 16; step++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const auto& even = w[i][2 * step];
            const auto& odd = w[i][2 * step + 1];
            a[step][i][0] = pack_bf16(even[0], even[1]);
            a[step][i][1] = pack_bf16(even[2], even[3]);
            a[step][i][2] = pack_bf16(odd[0], odd[1]);
            a[step][i][3] = pack_bf16(odd[2], odd[3]);
        }
    }
#pragma unroll
    for (int j = 0; j < Bf16::DEPTH / 8; j += 2) {
#pragma unroll
        for (int step = 0; step < Bf16::COLUMNS / 16; step++) {
            unsigned b[4];
            ldmatrix_x4_trans(b, columns + (16 * step + a_row(lane)) * Bf16::STRIDE + 8 * j + a_depth(lane));
            const unsigned even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma_bf16(sums[i][j], a[step][i], even);
                mma_bf16(sums[i][j + 1], a[step][i], odd);
            }
        }
    }
}

// ---- TF32: values come rounded ----------------------------------------------------------------------------------------

__device__ __forceinline__ void multiply_step(Tf32, Logits<Tf32>& s, const float* rows, const float* columns, int step) {
    const int depth = Tf32::STEP * step + threadIdx.x % 4;
    unsigned a[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            a[i][e] = __float_as_uint(rows[row_of(threadIdx.x, i, e % 2 * 2) * Tf32::STRIDE + depth + e / 2 * 4]);
        }
    }
#pragma unroll
    for (int j = 0; j < Tf32::COLUMNS / 8; j++) {
        const float* row = columns + (8 * j + threadIdx.x % 32 / 4) * Tf32::STRIDE + depth;
        const unsigned b[2] = {__float_as_uint(row[0]), __float_as_uint(row[4])};
#pragma unroll
        for (int i = 0; i < 2; i++) mma_tf32(s[i][j], a[i], b);
    }
}

// A product may take what it sums over in any order: here columns 0, 2, 4, 6 of eight come before 1, 3, 5, 7, which is
// how a thread's weights lie.
__device__ __forceinline__ void add_weighted(Tf32, Sums<Tf32>& sums, const Logits<Tf32>& w, const float* columns, float*) {
    const int group = threadIdx.x % 32 / 4;
#pragma unroll
    for (int step = 0; step < Tf32::COLUMNS / 8; step++) {
        unsigned a[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const auto& own = w[i][step];
            a[i][0] = to_tf32(own[0]);
            a[i][1] = to_tf32(own[2]);
            a[i][2] = to_tf32(own[1]);
            a[i][3] = to_tf32(own[3]);
        }
        const float* even = columns + column_of(threadIdx.x, step, 0) * Tf32::STRIDE + group;
#pragma unroll
        for (int j = 0; j < Tf32::DEPTH / 8; j++) {
            const unsigned b[2] = {__float_as_uint(even[8 * j]), __float_as_uint(even[8 * j + Tf32::STRIDE])};
#pragma unroll
            for (int i = 0; i < 2; i++) mma_tf32(sums[i][j], a[i], b);
        }
    }
}

// ---- float ------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float dot4(const Vector<float, 4>& a, const Vector<float, 4>& b, float sum) {
#pragma unroll
    for (int i = 0; i < 4; i++) sum = fmaf(a.at[i], b.at[i], sum);
    return sum;
}

__device__ __forceinline__ void multiply_step(F32, Logits<F32>& s, const float* rows, const float* columns, int step) {
#pragma unroll
    for (int depth = F32::STEP * step; depth < F32::STEP * (step + 1); depth += 4) {
        Vector<float, 4> a[2][2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int e = 0; e < 2; e++) a[i][e] = load<float, 4>(rows + row_of(threadIdx.x, i, 2 * e) * F32::STRIDE + depth);
        }
#pragma unroll
        for (int j = 0; j < F32::COLUMNS / 8; j++) {
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const auto b = load<float, 4>(columns + column_of(threadIdx.x, j, c) * F32::STRIDE + depth);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    s[i][j][c] = dot4(a[i][0], b, s[i][j][c]);
                    s[i][j][2 + c] = dot4(a[i][1], b, s[i][j][2 + c]);
                }
            }
        }
    }
}

// The weights go through shared memory, 16 columns at a time: every thread of a row needs all of them.
__device__ __forceinline__ void add_weighted(F32, Sums<F32>& sums, const Logits<F32>& w, const float* columns, float* scratch) {
    constexpr int HALF = 16;
    const int first = threadIdx.x / 32 * WARP_ROWS;
#pragma unroll
    for (int half = 0; half < F32::COLUMNS / HALF; half++) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int j = 0; j < HALF / 8; j++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int row = row_of(threadIdx.x, i, e) - first;
                    scratch[row * F32::SCRATCH_STRIDE + column_of(threadIdx.x, j, e)] = w[i][half * (HALF / 8) + j][e];
                }
            }
        }
        __syncwarp();
#pragma unroll 1
        for (int start = 0; start < HALF; start += 4) {
            Vector<float, 4> a[2][2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    a[i][e] = load<float, 4>(scratch + (row_of(threadIdx.x, i, 2 * e) - first) * F32::SCRATCH_STRIDE + start);
                }
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float* row = columns + (half * HALF + start + k) * F32::STRIDE;
#pragma unroll
                for (int j = 0; j < F32::DEPTH / 8; j++) {
                    const auto b = load<float, 2>(row + column_of(threadIdx.x, j, 0));
#pragma unroll
                    for (int i = 0; i < 2; i++) {
#pragma unroll
                        for (int e = 0; e < 4; e++) sums[i][j][e] = fmaf(a[i][e / 2].at[k], b.at[e % 2], sums[i][j][e]);
                    }
                }
            }
        }
    }
}

} // namespace contrast
