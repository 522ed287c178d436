// Which pixels a pooling window holds, which windows hold a pixel, and which thread has which.
#pragma once

#include "../cuda/portable.h"

// The extents of a 2-d pooling, as cpu.rs has them.
struct Window {
    int height, width;
    int out_height, out_width;
    int channels;
    int kernel;
    int stride;
    int padding;
};

struct Range {
    int start;
    int end; // Not itself.
};

// Input indices below output index `o`, for an input extent.
HOST_DEVICE Range under(const Window& window, int o, int extent) {
    const int first = o * window.stride - window.padding, end = first + window.kernel;
    return {first > 0 ? first : 0, end < extent ? end : extent};
}

// Output indices whose windows hold input index `i`, for an output extent.
HOST_DEVICE Range holders(const Window& window, int i, int extent) {
    const int at = i + window.padding, before = at + 1 - window.kernel, last = at / window.stride + 1;
    return {before > 0 ? ceil_div(before, window.stride) : 0, last < extent ? last : extent};
}

// Place in the window of output pixel (i, j) of the input pixel (row, column).
HOST_DEVICE int place_in(const Window& window, int i, int j, int row, int column) {
    const int a = row + window.padding - i * window.stride, b = column + window.padding - j * window.stride;
    return a * window.kernel + b;
}

// A thread of a kernel with a row of pixels for each blockIdx.x, and blockIdx.y parts of each row.
struct Pixel {
    int image;
    int row;
    int column;
    int channel; // The first of `width`.
    bool inside;
};

HOST_DEVICE Pixel pixel_of(int height, int across, int channels, int width, unsigned block_x, unsigned thread) {
    const int vectors = channels / width;
    Pixel at;
    at.image = (int)(block_x / (unsigned)height);
    at.row = (int)(block_x % (unsigned)height);
    at.column = (int)(thread / (unsigned)vectors);
    at.channel = (int)(thread % (unsigned)vectors) * width;
    at.inside = at.column < across;
    return at;
}

// Offset of a channel of a pixel in [N, height, across, channels].
HOST_DEVICE long long offset_of(int image, int row, int column, int channel, int height, int across, int channels) {
    return (((long long)image * height + row) * across + column) * channels + channel;
}
