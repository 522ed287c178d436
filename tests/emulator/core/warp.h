// What the lanes of a warp do together: shuffles, votes, matches, sums of integers.
#pragma once

#include "fibers.h"

namespace emulator {

template <typename T> struct Shuffle {
    T value;
    T result;
    int source; // The lane to read, as a lane of the warp.
};

template <typename T> void resolve_shuffle(void* (&lanes)[32], unsigned) {
    for (int lane = 0; lane < 32; lane++) {
        auto* mine = static_cast<Shuffle<T>*>(lanes[lane]);
        if (!mine) continue;
        auto* theirs = static_cast<Shuffle<T>*>(lanes[mine->source]);
        if (!theirs) fail("lane %d reads lane %d in a shuffle, which takes no part in it", lane, mine->source);
        mine->result = theirs->value;
    }
}

inline int lane() { return (int)(here.self % 32); }

template <typename T> T shuffle(unsigned mask, T value, int source, const char* what, int line) {
    static_assert(sizeof(T) <= 16, "a shuffle moves 4 or 8 bytes");
    Shuffle<T> mine{value, value, source};
    meet_warp(mask, resolve_shuffle<T>, &mine, what, line);
    return mine.result;
}

struct Vote {
    unsigned long long value;
    unsigned long long result;
};

inline void resolve_ballot(void* (&lanes)[32], unsigned) {
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; lane++)
        if (lanes[lane] && static_cast<Vote*>(lanes[lane])->value) ballot |= 1u << lane;
    for (void* lane : lanes)
        if (lane) static_cast<Vote*>(lane)->result = ballot;
}

inline void resolve_match(void* (&lanes)[32], unsigned) {
    for (void* mine : lanes) {
        if (!mine) continue;
        unsigned same = 0;
        for (int other = 0; other < 32; other++)
            if (lanes[other] && static_cast<Vote*>(lanes[other])->value == static_cast<Vote*>(mine)->value) same |= 1u << other;
        static_cast<Vote*>(mine)->result = same;
    }
}

inline void resolve_nothing(void* (&)[32], unsigned) {}

inline unsigned ballot(unsigned mask, bool predicate, const char* what, int line) {
    Vote mine{predicate, 0};
    meet_warp(mask, resolve_ballot, &mine, what, line);
    return (unsigned)mine.result;
}

template <typename T, T (*add)(T, T)> void resolve_reduce(void* (&lanes)[32], unsigned) {
    bool first = true;
    T sum{};
    for (void* lane : lanes) {
        if (!lane) continue;
        const T value = (T)static_cast<Vote*>(lane)->value;
        sum = first ? value : add(sum, value);
        first = false;
    }
    for (void* lane : lanes)
        if (lane) static_cast<Vote*>(lane)->result = (unsigned long long)sum;
}

template <typename T, T (*add)(T, T)> T reduce(unsigned mask, T value, const char* what, int line) {
    Vote mine{(unsigned long long)value, 0};
    meet_warp(mask, resolve_reduce<T, add>, &mine, what, line);
    return (T)mine.result;
}
template <typename T> T plus(T a, T b) { return a + b; }
template <typename T> T lesser(T a, T b) { return a < b ? a : b; }
template <typename T> T greater(T a, T b) { return a < b ? b : a; }
template <typename T> T both(T a, T b) { return a & b; }
template <typename T> T either(T a, T b) { return a | b; }
template <typename T> T odd(T a, T b) { return a ^ b; }

} // namespace emulator

template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane();
    return emulator::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), "__shfl_sync", line);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane(), source = lane ^ lanes;
    // Beyond the end of a lane's own part of the warp, its own value is read.
    return emulator::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, "__shfl_xor_sync", line);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane(), source = lane - (int)delta;
    return emulator::shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, "__shfl_up_sync", line);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const int lane = emulator::lane(), source = lane + (int)delta;
    return emulator::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, "__shfl_down_sync", line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulator::Vote mine{};
    emulator::meet_warp(mask, emulator::resolve_nothing, &mine, "__syncwarp", line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulator::ballot(mask, predicate, "__ballot_sync", line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulator::ballot(mask, predicate, "__any_sync", line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulator::ballot(mask, !predicate, "__all_sync", line) == 0;
}
template <typename T> unsigned __match_any_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    emulator::Vote mine{};
    memcpy(&mine.value, &value, sizeof(T));
    emulator::meet_warp(mask, emulator::resolve_match, &mine, "__match_any_sync", line);
    return (unsigned)mine.result;
}
#define DIPTYCH_REDUCE(name, add)                                                                                      \
    inline unsigned name(unsigned mask, unsigned v, int line = __builtin_LINE()) {                                     \
        return emulator::reduce<unsigned, add<unsigned>>(mask, v, #name, line);                                        \
    }
#define DIPTYCH_REDUCE_SIGNED(name, add)                                                                               \
    DIPTYCH_REDUCE(name, add)                                                                                          \
    inline int name(unsigned mask, int v, int line = __builtin_LINE()) {                                               \
        return emulator::reduce<int, add<int>>(mask, v, #name, line);                                                  \
    }
DIPTYCH_REDUCE_SIGNED(__reduce_add_sync, emulator::plus)
DIPTYCH_REDUCE_SIGNED(__reduce_min_sync, emulator::lesser)
DIPTYCH_REDUCE_SIGNED(__reduce_max_sync, emulator::greater)
DIPTYCH_REDUCE(__reduce_and_sync, emulator::both)
DIPTYCH_REDUCE(__reduce_or_sync, emulator::either)
DIPTYCH_REDUCE(__reduce_xor_sync, emulator::odd)
#undef DIPTYCH_REDUCE
#undef DIPTYCH_REDUCE_SIGNED
