// Which values a thread of an elementwise kernel works on.
#pragma once

#include "portable.h"

// Values `start` to `end` (not itself) of an array of `n`, for a thread that takes `width` at a time.
struct Span {
    long long start;
    long long end;

    // Whether all of a vector lies inside.
    HOST_DEVICE constexpr bool whole(int width) const { return end - start == width; }
};

HOST_DEVICE constexpr Span span_of(long long thread, int width, long long n) {
    const long long start = thread * width;
    const long long end = start + width;
    return Span{start < n ? start : n, end < n ? end : n};
}
