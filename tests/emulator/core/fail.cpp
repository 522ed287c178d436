// Ends a program that did something a GPU would not forgive, with a sentence about where.
#include "engine.h"

#include <csignal>
#include <cstdarg>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>

namespace emulator {

Describe describe = nullptr;

namespace {

void say_where() {
    if (!here.block || !here.block->launch) return;
    const uint3 &b = here.block_index, &t = here.thread_index;
    fprintf(stderr, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", here.block->launch->name, b.x, b.y, b.z, t.x,
            t.y, t.z);
}

void on_signal(int signal, siginfo_t* info, void*) {
    static struct sigaction plain;
    plain.sa_handler = SIG_DFL;
    sigaction(signal, &plain, nullptr);
    const bool address = signal == SIGSEGV || signal == SIGBUS;
    char sentence[256] = "";
    if (address && describe) describe(info->si_addr, sentence, sizeof sentence);
    // Only what a kernel did, or what touched the memory of the device, is ours to explain.
    if ((!here.block || !here.block->launch) && !*sentence) return;
    fflush(stdout);
    fprintf(stderr, "\nemulator: ");
    say_where();
    if (*sentence) fprintf(stderr, "%s\n", sentence);
    else if (address) fprintf(stderr, "an access at %p, which is no memory of the device (or a stack overflow)\n", info->si_addr);
    else fprintf(stderr, "a division of an integer by zero\n");
    abort();
}

} // namespace

void fail(const char* format, ...) {
    fflush(stdout);
    fprintf(stderr, "\nemulator: ");
    say_where();
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

void watch_signals() {
    static const bool once = [] {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, nullptr);
        return true;
    }();
    (void)once;
    // A fiber's stack may be what is used up.
    stack_t old = {};
    sigaltstack(nullptr, &old);
    if (!(old.ss_flags & SS_DISABLE)) return;
    stack_t stack = {};
    stack.ss_size = 64 << 10;
    stack.ss_sp = mmap(nullptr, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp != MAP_FAILED) sigaltstack(&stack, nullptr);
}

} // namespace emulator
