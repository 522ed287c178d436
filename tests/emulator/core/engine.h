// The inside of the emulator: one block and its fibers.
#pragma once

#include "fibers.h"
#include "launch.h"

#include <algorithm>
#include <vector>

namespace emulator {

constexpr unsigned MOST_THREADS = 1024;

enum class State : unsigned char { Ready, Running, AtWarp, AtBlock, Done };

struct Fiber {
    void* stack; // Where it goes on.
    State state;
    // The meeting at which it waits.
    bool predicate;
    unsigned mask;
    Resolve resolve;
    void* brought;
    const char* what;
    int line;
    Copies copies;
};

// Where the static shared memory of a kernel's file lies, for the thread of the machine that asks.
struct SharedRange {
    unsigned char* start;
    size_t bytes;
};

// Room for one block after another.
struct Block {
    Block();
    void run(const Launch& launch, uint3 index, SharedRange statics);
    void end();
    void leave();
    bool resolve_warp(unsigned first, unsigned mask);
    unsigned draw(unsigned below);

    std::vector<Fiber> threads;
    const Launch* launch = nullptr;
    SharedRange static_shared{};
    unsigned char* dynamic = nullptr;
    unsigned char* shared_end;
    Count met{};

  private:
    void arrange(unsigned char* numbers, unsigned n);
    void enter(unsigned i);
    void run_warp(unsigned warp);
    bool all_done();

    unsigned char* stacks;
    void* scheduler = nullptr;
    unsigned count = 0;
    unsigned long long random;
};

// Sees to it that a bad access ends with a sentence, on this thread too.
void watch_signals();

// Says what is wrong with an address at which an access failed; set by the driver, which knows the allocations.
using Describe = void (*)(const void* address, char* sentence, size_t bytes);
extern Describe describe;

} // namespace emulator
