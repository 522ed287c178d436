// Which columns and rows a thread of the bias kernels works on.
#pragma once

#include "../cuda/portable.h"

// Warps of a block, each with rows of its own; the lanes of a warp share out columns.
constexpr int LINEAR_WARPS = 8;

// The i-th of `width` columns of a lane in tile `tile`: neighbors where rows can be read as vectors, else 32 apart, so that a
// warp's accesses lie side by side either way.
HOST_DEVICE constexpr long long linear_column(long long tile, int lane, int i, int width, bool vectors) {
    return tile * 32 * width + (vectors ? lane * width + i : lane + 32 * i);
}

// Rows `first`, `first` + LINEAR_WARPS, ... below `end`, of a warp in part `part` of `rows`.
struct LinearRows {
    long long first;
    long long end;
};

HOST_DEVICE constexpr LinearRows linear_rows(long long part, int warp, long long rows_per_part, long long rows) {
    const long long end = (part + 1) * rows_per_part;
    return LinearRows{part * rows_per_part + warp, end < rows ? end : rows};
}
