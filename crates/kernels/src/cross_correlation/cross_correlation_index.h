// How columns and rows of views, of their standardized parts and of C are divided among threads.
//
// A block has LANES vectors of columns and GROUPS rows at a time.
#pragma once

#include "../cuda/portable.h"

namespace cross_correlation {

constexpr int LANES = 32;
constexpr int GROUPS = 8;
constexpr int THREADS = LANES * GROUPS;

// Rows `begin` to `end` (not itself).
struct Range {
    int begin;
    int end;
};

// Chunk `chunk` of `rows` rows, `each` of them in all but the last.
HOST_DEVICE constexpr Range chunk_of(int chunk, int each, int rows) {
    const long long begin = (long long)chunk * each, end = begin + each;
    return Range{(int)(begin < rows ? begin : rows), (int)(end < rows ? end : rows)};
}

// The first column of a thread's vector.
HOST_DEVICE constexpr int column_of(int block, int lane, int width) { return (block * LANES + lane) * width; }

// The row of a group at a step of a block that takes every `blocks`th of GROUPS rows.
HOST_DEVICE constexpr long long row_of(int block, int group, int step, int blocks) {
    return ((long long)step * blocks + block) * GROUPS + group;
}

// Where a value lies in rows of `stride` that begin at `first` of them.
HOST_DEVICE constexpr long long value_at(long long row, long long stride, int first, int column) { return row * stride + first + column; }

// Where sum `which` of `count` of a chunk and a column lies.
HOST_DEVICE constexpr long long partial_at(int chunk, int which, int count, int columns, int column) {
    return ((long long)chunk * count + which) * columns + column;
}

} // namespace cross_correlation
