// How the rows of an array [groups, rows, channels] are divided among blocks in which a thread keeps a few channels for
// itself: what is per channel is then read once per thread, and sums over rows need no other thread until the end.
//
// A block has `tile` vectors of channels side by side and `lanes` rows below each other, so that its threads read
// consecutive memory: thread t is lane t / tile, vector t % tile. It works on `chunk` rows of one group, `lanes` at a
// time. Threads from tile * lanes on are idle.
#pragma once

#include "portable.h"

struct Columns {
    long long rows; // Of one group.
    long long channels;
    long long tile;
    long long lanes;
    long long chunk;
    long long chunks; // Blocks below each other for the rows of one group.
};

// What a thread works on: rows `first`, first + lanes, .. below `end`, counted from the first group's first.
struct Place {
    int group;
    int chunk;
    int channel; // The first of the thread's.
    bool inside; // Whether it works at all.
    long long first;
    long long end;
    long long begin; // The block's first row.
};

HOST_DEVICE Place place_of(const Columns& columns, int width, unsigned block_x, unsigned block_y, unsigned thread) {
    const unsigned chunks = (unsigned)columns.chunks, tile = (unsigned)columns.tile;
    const unsigned group = block_x / chunks, chunk = block_x % chunks;
    const unsigned lane = thread / tile, vector = block_y * tile + thread % tile;
    Place at;
    at.group = (int)group;
    at.chunk = (int)chunk;
    at.channel = (int)(vector * (unsigned)width);
    at.inside = lane < (unsigned)columns.lanes && at.channel < columns.channels;
    const long long start = chunk * columns.chunk, end = start + columns.chunk;
    at.begin = group * columns.rows + start;
    at.end = group * columns.rows + (end < columns.rows ? end : columns.rows);
    at.first = at.begin + lane;
    return at;
}

// Rows of a chunk.
HOST_DEVICE long long rows_of(const Columns& columns, long long chunk) {
    const long long left = columns.rows - chunk * columns.chunk;
    return left < columns.chunk ? left : columns.chunk;
}

// Threads of a block split over `width` values: thread t helps with value t % width, one of so many helpers.
HOST_DEVICE int helpers_of(int threads, int width) { return threads / width; }
