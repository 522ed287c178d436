// Which row a thread works on, and which of its values: threads of a team take turns, `width` values at a time.
#pragma once

#include "../cuda/portable.h"

struct Row {
    long long row;
    int first; // The thread's first value; those after it are `step` further.
    int step;
};

HOST_DEVICE Row row_of(unsigned block, unsigned threads, unsigned thread, int team, int width) {
    const unsigned teams = threads / (unsigned)team;
    Row at;
    at.row = (long long)block * teams + thread / (unsigned)team;
    at.first = (int)(thread % (unsigned)team) * width;
    at.step = team * width;
    return at;
}
