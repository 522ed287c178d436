// Stand-ins for what crates/kernels/src/cuda/common.cuh writes in PTX: tensor cores, and copies to shared memory.
#pragma once

#include "fibers.h"

#include <utility>

namespace emulator {

struct Product {
    float* d;
    const unsigned *a, *b;
};

inline float as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
// Half `half` of a register of two bf16.
inline float as_bf16(unsigned pair, int half) { return as_float(half ? pair & 0xffff0000u : pair << 16); }

inline void whole_warp(void* (&lanes)[32], const char* what) {
    for (void* lane : lanes)
        if (!lane) fail("%s needs all 32 lanes of a warp", what);
}

// d += a b with a [16, k] and b [k, 8], both read through the layout of fragments.
template <int K, typename A, typename B> void multiply(void* (&lanes)[32], A&& a, B&& b) {
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + (i / 2) * 8, column = (lane % 4) * 2 + i % 2;
            float* d = static_cast<Product*>(lanes[lane])->d;
            double sum = 0;
            for (int k = 0; k < K; k++) sum += (double)a(row, k) * (double)b(k, column);
            d[i] = (float)((double)d[i] + sum);
        }
}

inline void resolve_mma_bf16(void* (&lanes)[32], unsigned) {
    whole_warp(lanes, "mma_bf16");
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto* p = static_cast<Product*>(lanes[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 4; i++) a[g + (i % 2) * 8][2 * t + half + (i / 2) * 8] = as_bf16(p->a[i], half);
            for (int i = 0; i < 2; i++) b[2 * t + half + i * 8][g] = as_bf16(p->b[i], half);
        }
    }
    multiply<16>(lanes, [&](int r, int k) { return a[r][k]; }, [&](int k, int c) { return b[k][c]; });
}

inline void resolve_mma_tf32(void* (&lanes)[32], unsigned) {
    whole_warp(lanes, "mma_tf32");
    float a[16][8], b[8][8];
    // The tensor core does not look at the lower 13 bits.
    const auto tf32 = [](unsigned bits) { return as_float(bits & 0xffffe000u); };
    for (int lane = 0; lane < 32; lane++) {
        const auto* p = static_cast<Product*>(lanes[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[g + (i % 2) * 8][t + (i / 2) * 4] = tf32(p->a[i]);
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = tf32(p->b[i]);
    }
    multiply<8>(lanes, [&](int r, int k) { return a[r][k]; }, [&](int k, int c) { return b[k][c]; });
}

struct Rows {
    unsigned* r;
    const unsigned char* row;
};

template <bool TRANSPOSED> void resolve_ldmatrix(void* (&lanes)[32], unsigned) {
    whole_warp(lanes, "ldmatrix_x4");
    for (int lane = 0; lane < 32; lane++)
        for (int matrix = 0; matrix < 4; matrix++) {
            unsigned short pair[2];
            for (int half = 0; half < 2; half++) {
                int row = lane / 4, column = 2 * (lane % 4) + half;
                if (TRANSPOSED) std::swap(row, column);
                memcpy(&pair[half], static_cast<Rows*>(lanes[8 * matrix + row])->row + 2 * column, 2);
            }
            static_cast<Rows*>(lanes[lane])->r[matrix] = pair[0] | (unsigned)pair[1] << 16;
        }
}

inline void finish(const Copy& copy) {
    if (copy.from) memcpy(copy.to, copy.from, 16);
    else memset(copy.to, 0, 16);
}

} // namespace emulator

inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::Product mine{d, a, b};
    emulator::meet_warp(0xffffffffu, emulator::resolve_mma_bf16, &mine, "mma_bf16", 0);
}
inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::Product mine{d, a, b};
    emulator::meet_warp(0xffffffffu, emulator::resolve_mma_tf32, &mine, "mma_tf32", 0);
}
inline void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    emulator::must_be_shared(row, 16, 16, "ldmatrix_x4");
    emulator::Rows mine{r, static_cast<const unsigned char*>(row)};
    emulator::meet_warp(0xffffffffu, emulator::resolve_ldmatrix<false>, &mine, "ldmatrix_x4", 0);
}
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    emulator::must_be_shared(row, 16, 16, "ldmatrix_x4_trans");
    emulator::Rows mine{r, static_cast<const unsigned char*>(row)};
    emulator::meet_warp(0xffffffffu, emulator::resolve_ldmatrix<true>, &mine, "ldmatrix_x4_trans", 0);
}
inline void copy_async16(void* shared, const void* global, bool valid) {
    emulator::must_be_shared(shared, 16, 16, "copy_async16");
    if (valid && (uintptr_t)global % 16 != 0) emulator::fail("copy_async16 reads %p, not a multiple of 16", global);
    const emulator::Copy copy{shared, valid ? global : nullptr, emulator::copies().group};
    if (emulator::copy_early()) emulator::finish(copy);
    else emulator::copies().under_way.push_back(copy);
}
inline void copy_async_commit() { emulator::copies().group++; }
template <int N> void copy_async_wait() {
    emulator::Copies& copies = emulator::copies();
    // Groups that were ended are those below `group`; the newest N of them may still be under way.
    size_t kept = 0;
    for (const emulator::Copy& copy : copies.under_way) {
        if ((int)(copies.group - copy.group) > N) emulator::finish(copy);
        else copies.under_way[kept++] = copy;
    }
    copies.under_way.resize(kept);
}
