// Where a tile holds somebody's positive, or what is not to be seen: rare, and found without holding up the rest.
#pragma once

#include "../cuda/common.cuh"
#include "contrast_index.h"

namespace contrast {

// The columns from the least to the greatest that a rule names for a warp's rows.
struct Reach {
    int least;
    int greatest;

    __device__ void find(const Rule& rule, int first, int n) {
        const int row = first + (int)threadIdx.x;
        int low = rule.of(row < n ? row : n - 1), high = low;
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) {
            const int other_low = __shfl_xor_sync(FULL_WARP, low, offset), other_high = __shfl_xor_sync(FULL_WARP, high, offset);
            low = other_low < low ? other_low : low;
            high = other_high > high ? other_high : high;
        }
        if (threadIdx.x % 32 == 0) least = low, greatest = high;
        __syncwarp();
    }

    __device__ bool meets(int start, int width) const { return least < start + width && greatest >= start; }
};

// In shared memory, where they take no registers.
struct Reaches {
    Reach wanted[WARPS];
    Reach hidden[WARPS];

    __device__ void find(const Rule& positive, const Rule& excluded, int first, int n) {
        wanted[threadIdx.x / 32].find(positive, first, n);
        hidden[threadIdx.x / 32].find(excluded, first, n);
    }

    __device__ bool meet(int start, int width) const {
        return wanted[threadIdx.x / 32].meets(start, width) || hidden[threadIdx.x / 32].meets(start, width);
    }
};

// Which of a thread's values of a tile are those of positives, and which are not to be seen, as bits.
struct Marks {
    unsigned long long wanted;
    unsigned long long hidden;

    // Of a tile whose rows begin at `first` and whose columns at `start`; either may be NOBODY.
    __device__ static void mark(unsigned long long& bits, int first, int row, int start, int column, int columns) {
        if (row < first || column < start || row - first >= ROWS || column - start >= columns) return;
        const int place = place_of(threadIdx.x, row - first, column - start);
        if (place >= 0) bits |= 1ull << place;
    }

    // Columns beyond the last of `m`.
    template <typename P> __device__ void hide_beyond(int start, int m) {
#pragma unroll 1
        for (int k = 0; k < P::COLUMNS / 4; k++) {
            if (start + column_of(threadIdx.x, k / 2, k) >= m) hidden |= column_bits(k / 2, k);
        }
    }

    // Rows from `first` on ask, columns from `start` on are asked for.
    template <typename P> __device__ void by_rows(int first, int n, int start, const Rule& positive, const Rule& excluded) {
#pragma unroll 1
        for (int r = 0; r < 4; r++) {
            const int row = first + row_of(threadIdx.x, r / 2, r % 2 * 2);
            if (row >= n) break;
            mark(wanted, first, row, start, positive.of(row), P::COLUMNS);
            mark(hidden, first, row, start, excluded.of(row), P::COLUMNS);
        }
    }

    // The other way round.
    template <typename P> __device__ void by_columns(int first, int start, int m, const Rule& positive, const Rule& excluded) {
#pragma unroll 1
        for (int k = 0; k < P::COLUMNS / 4; k++) {
            const int column = start + column_of(threadIdx.x, k / 2, k);
            if (column >= m) break;
            mark(wanted, first, positive.of(column), start, column, P::COLUMNS);
            mark(hidden, first, excluded.of(column), start, column, P::COLUMNS);
        }
    }

    __device__ __forceinline__ bool has(unsigned long long bits, int i, int j, int e) const {
        return (unsigned)(bits >> (32 * i)) & (1u << (4 * j + e));
    }
};

} // namespace contrast
