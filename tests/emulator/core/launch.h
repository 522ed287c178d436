// Launches, from C++ and by name.
#pragma once

#include "fibers.h"

#include <set>
#include <string>
#include <tuple>
#include <utility>

namespace emulator {

// Calls a kernel with the values that `params` point to.
using Invoke = void (*)(void* kernel, void** params);

// A kernel that can be found by its name.
struct Kernel {
    const char* name;
    void* function;
    Invoke invoke;
    const size_t* sizes; // Of the parameters, in bytes.
    size_t parameters;
};

// A grid of blocks of one kernel.
struct Launch {
    const char* name;
    dim3 grid, block;
    size_t shared; // Bytes of dynamic shared memory.
    void* function;
    Invoke invoke;
    void** params;
};

// Runs all blocks, and returns when they are done.
void run(const Launch& launch);

// The name of a function of a program, or "a kernel".
const char* name_of(void* function);

// Kernels are known by file and name: what is added next belongs to this file.
void begin_file(const char* file);
void add_kernel(const Kernel& kernel);
// Null where there is none of that name.
const Kernel* find_kernel(const char* file, const char* name);
// The file that has most of the kernels of these names.
std::string file_with_most(const std::set<std::string>& names);

template <typename... P, size_t... I> void invoke_with(void* kernel, void** params, std::index_sequence<I...>) {
    reinterpret_cast<void (*)(P...)>(kernel)(*static_cast<P*>(params[I])...);
}
template <typename... P> void invoke_as(void* kernel, void** params) {
    invoke_with<P...>(kernel, params, std::index_sequence_for<P...>{});
}

// Makes a kernel known by its name; the builder writes one for every `extern "C" __global__` function.
struct Register {
    template <typename... P> Register(const char* name, void (*kernel)(P...)) {
        static const size_t sizes[sizeof...(P) + 1] = {sizeof(P)...};
        add_kernel({name, reinterpret_cast<void*>(kernel), invoke_as<P...>, sizes, sizeof...(P)});
    }
};

// What `kernel<<<grid, block, shared>>>(args...)` is in CUDA.
template <typename... P, typename... A> void launch(dim3 grid, dim3 block, size_t shared, void (*kernel)(P...), A... args) {
    static_assert(sizeof...(P) == sizeof...(A), "a launch gives a kernel as many arguments as it has parameters");
    std::tuple<std::remove_cv_t<P>...> values{static_cast<P>(args)...};
    void* function = reinterpret_cast<void*>(kernel);
    std::apply(
        [&](auto&... value) {
            void* params[] = {const_cast<void*>(static_cast<const volatile void*>(&value))..., nullptr};
            run({name_of(function), grid, block, shared, function, invoke_as<P...>, params});
        },
        values);
}

} // namespace emulator
