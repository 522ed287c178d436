// Which rows, columns and depths of a product of embeddings a thread has: tiles, fragments, pairs, parts.
//
// A block takes ROWS rows against one tile of columns after the other, each of its warps WARP_ROWS of them against all
// columns of the tile. The rows of both sides lie in shared memory a chunk of ROW_BYTES at a time.
#pragma once

#include "../cuda/portable.h"

namespace contrast {

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int WARP_ROWS = 32;
constexpr int ROWS = WARPS * WARP_ROWS;

// What a row's chunk takes in shared memory: 16 bytes more than it has, so that the same 16 bytes of 8 rows one after
// the other lie in 8 different groups of banks.
constexpr int ROW_BYTES = 256;
constexpr int STRIDE_BYTES = ROW_BYTES + 16;
// 16-byte vectors of a row's chunk.
constexpr int VECTORS = ROW_BYTES / 16;

// ---- what a thread holds of a tile ----------------------------------------------------------------------------------
//
// Fragments are [2][columns / 8][4], as the tensor cores give them (common.cuh): of 16 rows after the other, of 8
// columns after the other, two values beside each other in each of two rows. Sums without tensor cores lie the same way.

// The row in the block's tile of `values[i][..][e]`.
HOST_DEVICE constexpr int row_of(int thread, int i, int e) { return thread / 32 * WARP_ROWS + 16 * i + thread % 32 / 4 + e / 2 * 8; }

// The column in the tile of `values[..][j][e]`.
HOST_DEVICE constexpr int column_of(int thread, int j, int e) { return 8 * j + thread % 4 * 2 + e % 2; }

// Where a thread has a row and a column of the tile, as the number of a bit: 32 i + 4 j + e; -1 where another thread has them.
HOST_DEVICE constexpr int place_of(int thread, int row, int column) {
    const bool own = row / WARP_ROWS == thread / 32 && row % 8 == thread % 32 / 4 && column % 8 / 2 == thread % 4;
    return own ? row % WARP_ROWS / 16 * 32 + column / 8 * 4 + row % 16 / 8 * 2 + column % 2 : -1;
}

// The bits of all four rows at this column of the thread.
HOST_DEVICE constexpr unsigned long long column_bits(int j, int e) { return 0x0000000500000005ull << (4 * j + e % 2); }

// ---- what a lane gives the address of, for four 8 x 8 matrices at once ----------------------------------------------

// Rows [0, 16) and depths [0, 16) as an A operand; also, transposed, as the B operands of two tiles of 8 depths (rows
// are what is summed over then).
HOST_DEVICE constexpr int a_row(int lane) { return lane % 16; }
HOST_DEVICE constexpr int a_depth(int lane) { return lane / 16 * 8; }

// Rows [0, 16) and depths [0, 16) as the B operands of two tiles of 8 columns.
HOST_DEVICE constexpr int b_row(int lane) { return lane % 8 + lane / 16 * 8; }
HOST_DEVICE constexpr int b_depth(int lane) { return lane / 8 % 2 * 8; }

// ---- who belongs to whom ----------------------------------------------------------------------------------------------

// No column: below 0 whatever row is added to it.
constexpr int NOBODY = -2147483647 - 1;

// One column for each row: of a list, or counted on from `low`, and from row `half` on from `high`.
struct Rule {
    const unsigned* list;
    int half;
    int low;
    int high;

    HOST_DEVICE int of(int row) const {
        if (list) return (int)list[row];
        return row < half ? low + row : high + (row - half);
    }
};

// ---- parts ------------------------------------------------------------------------------------------------------------

// The chunk that comes at `step` of `chunks`, so that `last` comes last.
HOST_DEVICE constexpr int chunk_at(int step, int last, int chunks) { return (last + 1 + step) % chunks; }

// Where the partial result of a row lies.
HOST_DEVICE constexpr long long partial_at(int part, int rows, int row) { return (long long)part * rows + row; }

} // namespace contrast
