// A block: its threads as fibers, and the places where they meet.
#pragma once

#include "words.h"

#include <vector>

namespace emulator {

struct Block;

// What a thread of a kernel can see of itself; set when its fiber is entered.
struct Here {
    uint3 thread_index, block_index, block_dim, grid_dim;
    Block* block;
    unsigned self; // The linear index of the thread in its block.
};
extern __thread Here here __attribute__((tls_model("initial-exec")));

// The order of threads between meetings, from DIPTYCH_EMULATOR_ORDER: forward, reverse or shuffled.
enum class Order { Forward, Reverse, Shuffled };
Order order();

// Prints a sentence with the kernel, the block and the thread, and aborts.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A meeting of the lanes of a warp: every lane brings a pointer, and the last one to come lets `resolve` see all of
// them (null for lanes that have no part).
using Resolve = void (*)(void* (&lanes)[32], unsigned mask);

// Waits for all lanes of `mask`. `what` and `line` name the meeting in sentences about lanes that are elsewhere.
void meet_warp(unsigned mask, Resolve resolve, void* mine, const char* what, int line);

// Waits for all threads of the block. The number of threads that brought a `true`, and how many there are.
struct Count { unsigned set, all; };
Count meet_block(bool predicate, const char* what, int line);

// The dynamic shared memory of the block that runs here.
unsigned char* dynamic_shared();

// Fails where `p` is not shared memory of the block that runs here, or not a multiple of `align`.
void must_be_shared(const void* p, size_t bytes, size_t align, const char* what);

// A copy to shared memory that is under way.
struct Copy {
    void* to;
    const void* from; // Null: zeros.
    unsigned group;
};
// Of the thread that runs here.
struct Copies {
    std::vector<Copy> under_way;
    unsigned group;
};
Copies& copies();

// Whether a copy that begins now is done at once, rather than at its wait: both are allowed on a GPU.
bool copy_early();

} // namespace emulator

#define threadIdx (emulator::here.thread_index)
#define blockIdx (emulator::here.block_index)
#define blockDim (emulator::here.block_dim)
#define gridDim (emulator::here.grid_dim)

inline void __syncthreads(int line = __builtin_LINE()) { emulator::meet_block(false, "__syncthreads", line); }
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
    return (int)emulator::meet_block(predicate, "__syncthreads_count", line).set;
}
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
    return emulator::meet_block(predicate, "__syncthreads_or", line).set > 0;
}
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
    const emulator::Count count = emulator::meet_block(predicate, "__syncthreads_and", line);
    return count.set == count.all;
}
#undef assert
#define assert(condition) ((condition) ? (void)0 : emulator::fail("line %d: %s does not hold", __LINE__, #condition))

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
