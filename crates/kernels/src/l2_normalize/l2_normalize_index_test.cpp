// Each value of a row belongs to one thread of its team, and each row to one team.

#include "l2_normalize_index.h"

#include <cstdio>
#include <vector>

static bool each_value_once(long long rows, int channels, int team, int width, unsigned threads) {
    std::vector<int> seen(rows * channels, 0);
    const unsigned blocks = (unsigned)ceil_div(rows, (long long)(threads / team));
    for (unsigned block = 0; block < blocks; block++) {
        for (unsigned thread = 0; thread < threads; thread++) {
            const Row at = row_of(block, threads, thread, team, width);
            for (int c = at.first; at.row < rows && c < channels; c += at.step) {
                for (int i = 0; i < width; i++) seen[at.row * channels + c + i]++;
            }
        }
    }
    for (int count : seen) {
        if (count != 1) return false;
    }
    return true;
}

int main() {
    const bool right = each_value_once(17, 128, 32, 8, 256) && each_value_once(5, 7, 32, 1, 256) &&
                       each_value_once(3, 8192, 256, 4, 256) && each_value_once(9, 1000, 32, 8, 256);
    const Row far = row_of(1u << 30, 256, 255, 32, 8);
    if (!right || far.row != (8ll << 30) + 7 || far.first != 248 || far.step != 256) {
        printf("rows or values are not divided among the threads\n");
        return 1;
    }
    return 0;
}
