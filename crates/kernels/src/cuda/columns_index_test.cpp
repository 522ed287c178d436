// Each value of an array belongs to one thread, for divisions that fit and that do not.

#include "columns_index.h"

#include <cstdio>
#include <vector>

static int failures = 0;

#define CHECK(condition)                                                                                               \
    if (!(condition)) {                                                                                                \
        printf("line %d: %s\n", __LINE__, #condition);                                                                 \
        failures++;                                                                                                    \
    }

static void each_value_once(const Columns& columns, int groups, int width, int threads) {
    const long long across = columns.channels / width, tiles = ceil_div(across, columns.tile);
    std::vector<int> seen(groups * columns.rows * columns.channels, 0);
    std::vector<long long> chunk_rows(groups * columns.chunks, 0);
    for (unsigned x = 0; x < groups * columns.chunks; x++) {
        for (unsigned y = 0; y < tiles; y++) {
            for (int t = 0; t < threads; t++) {
                const Place at = place_of(columns, width, x, y, t);
                if (!at.inside) continue;
                CHECK(at.group * columns.chunks + at.chunk == x);
                CHECK(at.begin <= at.first && at.end - at.begin == rows_of(columns, at.chunk));
                CHECK(at.begin >= at.group * columns.rows && at.end <= (at.group + 1) * columns.rows);
                chunk_rows[x] = at.end - at.begin;
                for (long long row = at.first; row < at.end; row += columns.lanes) {
                    for (int i = 0; i < width; i++) seen[row * columns.channels + at.channel + i]++;
                }
            }
        }
    }
    bool once = true;
    for (int count : seen) once = once && count == 1;
    CHECK(once);
    long long rows = 0;
    for (long long count : chunk_rows) rows += count;
    CHECK(rows == groups * columns.rows);
}

int main() {
    // rows, channels, tile, lanes, chunk, chunks
    each_value_once({100, 64, 8, 32, 32, 4}, 1, 8, 256);
    each_value_once({100, 64, 8, 32, 64, 2}, 3, 8, 256);
    each_value_once({37, 3, 3, 85, 85, 1}, 2, 1, 256);
    each_value_once({1, 1, 1, 256, 256, 1}, 5, 1, 256);
    each_value_once({50, 264, 17, 15, 30, 2}, 2, 8, 256);  // 33 vectors in two tiles, the last not full.
    each_value_once({9, 2048, 32, 8, 8, 2}, 1, 4, 256);
    each_value_once({49, 2048, 32, 8, 49, 1}, 4, 8, 256);  // Rows in one piece.

    // Offsets that pass 2^32.
    const Columns large = {1ll << 26, 128, 16, 16, 2048, 1ll << 15};
    const Place last = place_of(large, 8, (1u << 15) * 4 - 1, 0, 255);
    CHECK(last.group == 3 && last.end == 1ll << 28 && last.first == last.end - 2048 + 15 && last.channel == 120);

    CHECK(helpers_of(256, 64) == 4 && helpers_of(256, 255) == 1 && helpers_of(256, 256) == 1);
    return failures != 0;
}
