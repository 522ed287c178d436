// For headers of index arithmetic, which are C++ for the GPU, the emulator and plain tests alike.
#pragma once

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline
#endif

// a / b, rounded up, for positive numbers.
template <typename T> HOST_DEVICE constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }
