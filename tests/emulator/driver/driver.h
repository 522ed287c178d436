// The types of the CUDA driver's interface, as far as the stand-ins need them. Results are the driver's numbers.
#pragma once

#include <cstddef>
#include <cstdint>

using Result = int;
constexpr Result SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101,
                 INVALID_IMAGE = 200, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, NOT_SUPPORTED = 801;

using Pointer = unsigned long long; // An address of device memory.

inline void* address(Pointer p) { return reinterpret_cast<void*>(static_cast<uintptr_t>(p)); }

namespace emulator {

constexpr int MULTIPROCESSORS = 132, MOST_SHARED = 227 << 10, USUAL_SHARED = 48 << 10;

// Loads the kernels that lie beside this library. Once.
void load_kernels();

} // namespace emulator
