// Runs the threads of one block as fibers of one thread of the machine.
#include "engine.h"

#include <sys/mman.h>

// Saves what a call must keep and the stack in *save, and goes on where `to` was saved.
extern "C" void diptych_emulator_switch(void** save, void* to) __attribute__((visibility("hidden")));
asm(R"(
.text
.globl diptych_emulator_switch
.hidden diptych_emulator_switch
.type diptych_emulator_switch, @function
diptych_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size diptych_emulator_switch, .-diptych_emulator_switch
)");

namespace emulator {

__thread Here here __attribute__((tls_model("initial-exec")));

namespace {

constexpr size_t STACK = 128 << 10, PAGE = 4096, WALL = 1 << 20;
constexpr size_t DYNAMIC = 256 << 10; // More than a block may have on any GPU.

unsigned char* map(size_t bytes, int protection) {
    void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail("no memory for the stacks of threads");
    return static_cast<unsigned char*>(p);
}

// Where a fiber begins.
void begin() {
    Block& block = *here.block;
    block.launch->invoke(block.launch->function, block.launch->params);
    block.end();
}

} // namespace

Block::Block() : random(0x9e3779b97f4a7c15u) {
    // Below every stack lies a page that nobody may touch.
    stacks = map(STACK * MOST_THREADS, PROT_READ | PROT_WRITE);
    for (unsigned i = 0; i < MOST_THREADS; i++) mprotect(stacks + STACK * i, PAGE, PROT_NONE);
    shared_end = map(DYNAMIC + WALL, PROT_READ | PROT_WRITE) + DYNAMIC;
    mprotect(shared_end, WALL, PROT_NONE);
    threads.resize(MOST_THREADS);
}

unsigned Block::draw(unsigned below) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    return (unsigned)((random >> 32) * below >> 32);
}

// `n` numbers from 0 in the order of this run.
void Block::arrange(unsigned char* numbers, unsigned n) {
    for (unsigned i = 0; i < n; i++) numbers[i] = (unsigned char)(order() == Order::Reverse ? n - 1 - i : i);
    if (order() == Order::Shuffled)
        for (unsigned i = n; i > 1; i--) std::swap(numbers[i - 1], numbers[draw(i)]);
}

void Block::run(const Launch& what, uint3 index, SharedRange statics) {
    launch = &what;
    static_shared = statics;
    dynamic = shared_end - (what.shared + 15) / 16 * 16;
    count = what.block.x * what.block.y * what.block.z;
    random = 0x9e3779b97f4a7c15u ^ (((unsigned long long)index.z << 42) + ((unsigned long long)index.y << 21) + index.x);
    // Nobody may count on what shared memory holds: all ones is a NaN of every type.
    memset(dynamic, 0xff, shared_end - dynamic);
    const Here kept = here;
    if (statics.bytes) memset(statics.start, 0xff, statics.bytes);
    here = kept; // It may be a neighbor of shared memory, where a program holds both.
    here.block_index = index, here.block = this;
    here.block_dim = {what.block.x, what.block.y, what.block.z}, here.grid_dim = {what.grid.x, what.grid.y, what.grid.z};
    for (unsigned i = 0; i < count; i++) {
        Fiber& fiber = threads[i];
        void** top = reinterpret_cast<void**>(stacks + STACK * (i + 1)) - 2;
        top[0] = reinterpret_cast<void*>(begin); // With six registers below, as the switch leaves them.
        fiber.stack = top - 6;
        fiber.state = State::Ready;
        fiber.copies.group = 0;
        fiber.copies.under_way.clear();
    }
    unsigned char warps[MOST_THREADS / 32];
    const unsigned warp_count = (count + 31) / 32;
    do {
        arrange(warps, warp_count);
        for (unsigned i = 0; i < warp_count; i++) run_warp(warps[i]);
    } while (!all_done());
    here = kept;
}

void Block::enter(unsigned i) {
    here.thread_index = {i % launch->block.x, i / launch->block.x % launch->block.y, i / (launch->block.x * launch->block.y)};
    here.self = i;
    threads[i].state = State::Running;
    diptych_emulator_switch(&scheduler, threads[i].stack);
}

void Block::leave() { diptych_emulator_switch(&threads[here.self].stack, scheduler); }

void Block::end() {
    threads[here.self].state = State::Done;
    leave();
}

// Runs the lanes of a warp until each has ended or waits for other warps.
void Block::run_warp(unsigned warp) {
    const unsigned first = 32 * warp, lanes = std::min(32u, count - first);
    for (bool any = true; any;) {
        any = false;
        unsigned char turn[32];
        arrange(turn, lanes);
        for (unsigned i = 0; i < lanes; i++)
            if (threads[first + turn[i]].state == State::Ready) enter(first + turn[i]), any = true;
        // A lane that has ended is not waited for anymore.
        for (unsigned i = 0; i < lanes && !any; i++)
            if (threads[first + i].state == State::AtWarp) any = resolve_warp(first, threads[first + i].mask);
    }
}

// Lets the lanes of `mask` go on if all have come.
bool Block::resolve_warp(unsigned first, unsigned mask) {
    void* brought[32] = {};
    const Fiber* other = nullptr;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1) || first + lane >= count) continue;
        const Fiber& fiber = threads[first + lane];
        if (fiber.state == State::Done) continue;
        if (fiber.state != State::AtWarp || fiber.mask != mask) return false;
        if (other && (other->resolve != fiber.resolve || other->line != fiber.line))
            fail("lanes of a warp wait for each other in two places: %s (line %d) and %s (line %d, lane %u)", other->what,
                 other->line, fiber.what, fiber.line, lane);
        other = &fiber;
        brought[lane] = fiber.brought;
    }
    for (unsigned lane = 0; lane < 32; lane++)
        if (brought[lane]) threads[first + lane].state = State::Ready;
    if (other) other->resolve(brought, mask);
    return other;
}

void meet_warp(unsigned mask, Resolve resolve, void* mine, const char* what, int line) {
    Block& block = *here.block;
    Fiber& fiber = block.threads[here.self];
    const unsigned lane = here.self % 32;
    if (!(mask >> lane & 1)) fail("%s (line %d): lane %u is not in its own mask %08x", what, line, lane, mask);
    fiber.mask = mask, fiber.resolve = resolve, fiber.brought = mine, fiber.what = what, fiber.line = line;
    fiber.state = State::AtWarp;
    if (block.resolve_warp(here.self - lane, mask)) fiber.state = State::Running;
    else block.leave();
}

Count meet_block(bool predicate, const char* what, int line) {
    Block& block = *here.block;
    Fiber& fiber = block.threads[here.self];
    fiber.predicate = predicate, fiber.what = what, fiber.line = line;
    fiber.state = State::AtBlock;
    block.leave();
    return block.met;
}

// With no thread left that can run: all have ended, or all are at one barrier, which opens, or the kernel is wrong.
bool Block::all_done() {
    const Fiber* at = nullptr;
    unsigned waiting = 0, done = count;
    met = {0, count};
    for (unsigned i = 0; i < count; i++) {
        const Fiber& fiber = threads[i];
        if (fiber.state == State::Done) {
            done = i;
            continue;
        }
        if (fiber.state == State::AtWarp) {
            here.self = i;
            fail("thread %u waits in %s (line %d) for lanes of its warp (mask %08x) that never come", i, fiber.what,
                 fiber.line, fiber.mask);
        }
        if (at && at->line != fiber.line)
            fail("threads of a block wait in two places: in %s of line %d, and in %s of line %d (thread %u)", at->what,
                 at->line, fiber.what, fiber.line, i);
        at = &fiber;
        met.set += fiber.predicate;
        waiting++;
    }
    if (!waiting) return true;
    if (waiting < count)
        fail("%s in line %d is not reached by thread %u of the block, which has ended (%u of %u threads wait)", at->what,
             at->line, done, waiting, count);
    for (unsigned i = 0; i < count; i++) threads[i].state = State::Ready;
    return false;
}

unsigned char* dynamic_shared() { return here.block->dynamic; }

void must_be_shared(const void* p, size_t bytes, size_t align, const char* what) {
    const Block& block = *here.block;
    const auto* at = static_cast<const unsigned char*>(p);
    const auto within = [&](const unsigned char* start, const unsigned char* end) { return at >= start && at + bytes <= end; };
    const unsigned char* start = block.static_shared.start;
    if (!within(block.dynamic, block.shared_end) && !(start && within(start, start + block.static_shared.bytes)))
        fail("%s: %p is not in shared memory", what, p);
    if ((uintptr_t)p % align) fail("%s: %p is not a multiple of %zu", what, p, align);
}

Copies& copies() { return here.block->threads[here.self].copies; }

bool copy_early() {
    return order() == Order::Reverse || (order() == Order::Shuffled && here.block->draw(2));
}

} // namespace emulator
