// The index arithmetic of cross_correlation.cu: chunks cover all rows once, and so do threads all values.
#include "cross_correlation_index.h"

#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

using namespace cross_correlation;

static void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "cross_correlation_index.h: %s\n", what);
    std::exit(1);
}

int main() {
    for (int rows : {1, 7, 8, 100}) {
        for (int each : {1, 8, 33, 200}) {
            int next = 0;
            for (int chunk = 0; chunk < ceil_div(rows, each); chunk++) {
                const Range range = chunk_of(chunk, each, rows);
                check(range.begin == next && range.end > range.begin, "a chunk that is empty or does not follow the one before");
                next = range.end;
            }
            check(next == rows, "rows that no chunk has");
            check(chunk_of(ceil_div(rows, each), each, rows).begin == rows, "a chunk behind the last has rows");
        }
    }
    check(chunk_of(2000, 2000000, 2147483647).begin == 2147483647, "a chunk beyond 32 bits");
    for (int width : {1, 4}) {
        const int columns = 300, rows = 50, blocks = 3;
        std::set<std::pair<long long, int>> seen;
        for (int block = 0; block < ceil_div(columns, LANES * width); block++) {
            for (int lane = 0; lane < LANES; lane++) {
                for (int down = 0; down < blocks; down++) {
                    for (int group = 0; group < GROUPS; group++) {
                        for (int step = 0; row_of(down, group, step, blocks) < rows; step++) {
                            const int column = column_of(block, lane, width);
                            if (column >= columns) continue;
                            for (int i = 0; i < width; i++) {
                                check(seen.insert({row_of(down, group, step, blocks), column + i}).second, "a value that two threads have");
                            }
                        }
                    }
                }
            }
        }
        check((int)seen.size() == columns * rows, "a value that nobody has");
    }
    check(value_at(1 << 20, 1 << 13, 5, 7) == (1ll << 33) + 12, "a value beyond 32 bits");
    check(partial_at(3, 1, 5, 100, 42) == 1642, "a partial sum");
    return 0;
}
