// Which value of an image meets which value of a weight: the arithmetic of convolution as matrix products, without an image-to-column copy.
//
// Forward pass and input gradient are one product: an output pixel (a row) is a sum over the taps of a kernel and the channels of a
// source image (together the terms). A stride s splits the input gradient into s x s phases, each with its own taps, so that nothing is
// multiplied by the zeros that a strided convolution leaves between its taps. The weight gradient is the same gather with rows and terms swapped.
#pragma once

#include "../cuda/portable.h"

// n / d for 0 <= n < 2^31 by a multiplication (Granlund and Montgomery 1994, figure 4.1).
struct Divider {
    unsigned divisor;
    unsigned factor;
    unsigned shift;

    HOST_DEVICE int quotient(int n) const {
        const unsigned high = (unsigned)(((unsigned long long)(unsigned)n * factor) >> 32);
        return (int)((high + (unsigned)n) >> shift);
    }
};

// For 1 <= d < 2^31.
HOST_DEVICE Divider divider(int d) {
    unsigned shift = 0;
    while ((1ull << shift) < (unsigned long long)d) shift++;
    const unsigned long long excess = (1ull << shift) - (unsigned long long)d;
    return Divider{(unsigned)d, (unsigned)((excess << 32) / (unsigned)d + 1), shift};
}

// The sizes: x [n, h, w, c], weights [o, kh, kw, c], y [n, oh, ow, o]. As the host passes it.
struct ConvSizes {
    int n, h, w, c, o, kh, kw, stride, padding, oh, ow, unused;
};

// One phase of a gather. Pixel (a, b) of it is written to (first + a step, ...) of the output image; its tap (i, j) reads
// (a source_step + base + i tap_step, ...) of the source image and is tap (kernel + i kernel_step, ...) of the kernel.
struct Gather {
    int images;
    int height, width;          // pixels of this phase in an image
    int out_height, out_width;  // the output image
    int first_row, first_column, step;
    int source_height, source_width, channels;
    int source_step, base_row, base_column, tap_step;
    int taps_down, taps_across; // of this phase
    int kernel_row, kernel_column, kernel_step;
    int kernel_width, kernel_taps;
    Divider by_image, by_width, by_channels, by_taps_across;

    HOST_DEVICE int pixels() const { return images * height * width; }
    HOST_DEVICE int terms() const { return taps_down * taps_across * channels; }
};

HOST_DEVICE void prepare(Gather& g) {
    const int image = g.height * g.width, across = g.taps_across;
    g.by_image = divider(image > 0 ? image : 1);
    g.by_width = divider(g.width > 0 ? g.width : 1);
    g.by_channels = divider(g.channels);
    g.by_taps_across = divider(across > 0 ? across : 1);
}

// y from x.
HOST_DEVICE Gather forward_gather(const ConvSizes& s) {
    Gather g = {s.n, s.oh, s.ow, s.oh, s.ow, 0, 0, 1, s.h, s.w, s.c, s.stride, -s.padding, -s.padding, 1, s.kh, s.kw,
                0, 0, 1, s.kw, s.kh * s.kw, {}, {}, {}, {}};
    prepare(g);
    return g;
}

// The taps of one dimension in phase `at`: input pixel at + a stride gets from output pixel a + base - i through tap first + i stride.
struct PhaseTaps {
    int first, count, base;
};

HOST_DEVICE PhaseTaps phase_taps(int at, int kernel, int stride, int padding) {
    const int first = (at + padding) % stride;
    const int count = first < kernel ? ceil_div(kernel - first, stride) : 0;
    return PhaseTaps{first, count, (at + padding - first) / stride};
}

// The input gradient from that of y, in phase 0 <= phase < stride^2. The weights are [c, kh, kw, o] here.
HOST_DEVICE Gather backward_gather(const ConvSizes& s, int phase) {
    const int top = phase / s.stride, left = phase % s.stride;
    const PhaseTaps down = phase_taps(top, s.kh, s.stride, s.padding);
    const PhaseTaps across = phase_taps(left, s.kw, s.stride, s.padding);
    const int height = top < s.h ? ceil_div(s.h - top, s.stride) : 0;
    const int width = left < s.w ? ceil_div(s.w - left, s.stride) : 0;
    Gather g = {s.n, height, width, s.h, s.w, top, left, s.stride, s.oh, s.ow, s.o, 1, down.base, across.base, -1,
                down.count, across.count, down.first, across.first, s.stride, s.kw, s.kh * s.kw, {}, {}, {}, {}};
    prepare(g);
    return g;
}

// A row of the product: where its sources begin.
struct Pixel {
    int row, column; // of the source, for tap (0, 0)
    long long source; // the source image's first value
};

// Where no source is: no tap leads back into the image.
constexpr int NOWHERE = -(1 << 30);

// Pixel `at` of a phase; one from `end` on reads nothing.
HOST_DEVICE Pixel pixel_of(const Gather& g, int at, int end) {
    if (at >= end) return Pixel{NOWHERE, NOWHERE, 0};
    const int image = g.by_image.quotient(at), within = at - image * (g.height * g.width);
    const int a = g.by_width.quotient(within), b = within - a * g.width;
    return Pixel{a * g.source_step + g.base_row, b * g.source_step + g.base_column,
                 (long long)image * g.source_height * g.source_width * g.channels};
}

// Where pixel `at` is written, in pixels of all output images.
HOST_DEVICE long long output_of(const Gather& g, int at) {
    const int image = g.by_image.quotient(at), within = at - image * (g.height * g.width);
    const int a = g.by_width.quotient(within), b = within - a * g.width;
    return ((long long)image * g.out_height + g.first_row + a * g.step) * g.out_width + g.first_column + b * g.step;
}

// A term of the sum: how far its source lies from tap (0, 0), its channel, and its weight in a row of [taps, channels].
struct Term {
    int down, right, channel, weight;
};

// Term `at`; one from `end` on reads nothing.
HOST_DEVICE Term term_of(const Gather& g, int at, int end) {
    if (at >= end) return Term{NOWHERE, NOWHERE, 0, -1};
    const int tap = g.by_channels.quotient(at), channel = at - tap * g.channels;
    const int i = g.by_taps_across.quotient(tap), j = tap - i * g.taps_across;
    const int kernel = (g.kernel_row + i * g.kernel_step) * g.kernel_width + g.kernel_column + j * g.kernel_step;
    return Term{i * g.tap_step, j * g.tap_step, channel, kernel * g.channels + channel};
}

// The source value of a pixel and a term, or -1 where that is padding, or nothing.
HOST_DEVICE long long source_of(const Gather& g, const Pixel& pixel, const Term& term) {
    const int row = pixel.row + term.down, column = pixel.column + term.right;
    if ((unsigned)row >= (unsigned)g.source_height || (unsigned)column >= (unsigned)g.source_width) return -1;
    return pixel.source + ((long long)row * g.source_width + column) * g.channels + term.channel;
}

// ---- tiles ------------------------------------------------------------------------------------------------------

// A block's tile of rows and columns: blocks that share rows follow each other, so that the rows stay in cache.
struct Tile {
    int row, column;
};

HOST_DEVICE Tile tile_of(unsigned block, int tile_rows, int tile_columns, int columns) {
    const unsigned across = (unsigned)ceil_div(columns, tile_columns);
    return Tile{(int)(block / across) * tile_rows, (int)(block % across) * tile_columns};
}

// Tiles lie in shared memory in rows of chunks of 16 bytes. A chunk is moved within its row, so that the eight chunks that
// are read at once lie in all of the banks. The chunk's place, counted from the beginning of the tile:
//
// of a row of 4 chunks (64 bytes), where 8 rows are read in one column,
HOST_DEVICE int chunk_of_four(int row, int chunk) { return row * 4 + (chunk ^ ((row >> 1) & 3)); }

// and of a row of `chunks` (a multiple of 8), where 8 rows are read in one column,
HOST_DEVICE int chunk_of_row(int row, int chunk, int chunks) { return row * chunks + (chunk ^ (row & 7)); }

// or 4 rows in two neighboring columns, of which the first is even.
HOST_DEVICE int chunk_of_pairs(int row, int chunk, int chunks) { return row * chunks + (chunk ^ (2 * (row & 3))); }
