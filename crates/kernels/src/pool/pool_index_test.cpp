// Windows and their pixels against counting; each pixel belongs to one thread.

#include "pool_index.h"

#include <cstdio>
#include <vector>

static int failures = 0;

#define CHECK(condition)                                                                                               \
    if (!(condition)) {                                                                                                \
        printf("line %d: %s\n", __LINE__, #condition);                                                                 \
        failures++;                                                                                                    \
    }

static Window window_of(int height, int width, int channels, int kernel, int stride, int padding) {
    Window window = {height, width, 0, 0, channels, kernel, stride, padding};
    window.out_height = (height + 2 * padding - kernel) / stride + 1;
    window.out_width = (width + 2 * padding - kernel) / stride + 1;
    return window;
}

// Along one side: output index o holds input index i if i is one of o stride - padding + 0 .. kernel - 1.
static void windows_hold_what_they_cover(const Window& window) {
    for (int o = 0; o < window.out_height; o++) {
        const Range range = under(window, o, window.height);
        CHECK(range.start < range.end);
        for (int i = 0; i < window.height; i++) {
            const int tap = i + window.padding - o * window.stride;
            const bool covered = tap >= 0 && tap < window.kernel;
            CHECK(covered == (i >= range.start && i < range.end));
            const Range back = holders(window, i, window.out_height);
            CHECK(covered == (o >= back.start && o < back.end));
            if (covered) CHECK(place_in(window, o, o, i, i) == tap * window.kernel + tap);
        }
    }
}

static void each_pixel_once(int images, int height, int across, int channels, int width, unsigned threads) {
    std::vector<int> seen(images * height * across * channels, 0);
    const unsigned vectors = across * channels / width, parts = ceil_div(vectors, threads);
    for (unsigned x = 0; x < (unsigned)(images * height); x++) {
        for (unsigned t = 0; t < parts * threads; t++) {
            const Pixel at = pixel_of(height, across, channels, width, x, t);
            if (!at.inside) continue;
            for (int i = 0; i < width; i++) {
                seen[offset_of(at.image, at.row, at.column, at.channel + i, height, across, channels)]++;
            }
        }
    }
    bool once = true;
    for (int count : seen) once = once && count == 1;
    CHECK(once);
}

int main() {
    for (int kernel = 1; kernel <= 5; kernel++) {
        for (int stride = 1; stride <= 4; stride++) {
            for (int padding = 0; padding <= kernel / 2; padding++) {
                for (int size = kernel; size < 12; size++) {
                    windows_hold_what_they_cover(window_of(size, size, 1, kernel, stride, padding));
                }
            }
        }
    }
    each_pixel_once(2, 7, 5, 3, 1, 32);
    each_pixel_once(3, 4, 9, 64, 8, 96);
    each_pixel_once(1, 2, 300, 8, 4, 256);
    // Offsets that pass 2^32.
    CHECK(offset_of(4095, 111, 111, 127, 112, 112, 128) == 4096ll * 112 * 112 * 128 - 1);
    return failures != 0;
}
