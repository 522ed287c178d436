// Every value of a matrix has one thread that reads it, with and without vectors.

#include "linear_index.h"

#include <cstdio>
#include <vector>

static bool covers(long long rows, long long columns, int width, bool vectors, long long rows_per_part) {
    std::vector<int> seen(rows * columns);
    const long long tiles = ceil_div(columns, 32ll * width), parts = ceil_div(rows, rows_per_part);
    for (long long tile = 0; tile < tiles; tile++)
        for (long long part = 0; part < parts; part++)
            for (int thread = 0; thread < 32 * LINEAR_WARPS; thread++) {
                const LinearRows mine = linear_rows(part, thread / 32, rows_per_part, rows);
                for (long long row = mine.first; row < mine.end; row += LINEAR_WARPS)
                    for (int i = 0; i < width; i++) {
                        const long long column = linear_column(tile, thread % 32, i, width, vectors);
                        if (column < columns) seen[row * columns + column]++;
                    }
            }
    for (int count : seen)
        if (count != 1) return false;
    return true;
}

int main() {
    int failures = 0;
    for (int width : {4, 8})
        for (long long rows : {1, 7, 8, 128, 129, 300})
            for (long long columns : {1, 31, 256, 264, 513})
                for (bool vectors : {false, true}) {
                    if (vectors && columns % width) continue;
                    if (covers(rows, columns, width, vectors, 128)) continue;
                    printf("%lld x %lld, width %d, vectors %d: a value is read never or twice\n", rows, columns, width, vectors);
                    failures++;
                }
    return failures != 0;
}
