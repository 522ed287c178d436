// Values of the types that the stand-ins for libraries know, read as numbers and written back; work for two threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace values {

enum class Type { F32, F64, F16, BF16 };

inline size_t size(Type type) { return type == Type::F64 ? 8 : type == Type::F32 ? 4 : 2; }

inline float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline uint16_t to_bf16(float x) {
    const uint32_t bits = to_bits(x);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

// To 10 bits of mantissa, as tensor cores take floats.
inline float to_tf32(float x) { return std::isfinite(x) ? from_bits((to_bits(x) + 0x1000u) & 0xffffe000u) : x; }

template <typename T> T get(Type type, const void* base, ptrdiff_t i) {
    const char* at = static_cast<const char*>(base) + i * (ptrdiff_t)size(type);
    uint16_t half;
    switch (type) {
    case Type::F32: return (T)*reinterpret_cast<const float*>(at);
    case Type::F64: return (T)*reinterpret_cast<const double*>(at);
    case Type::F16: return (T)(float)*reinterpret_cast<const _Float16*>(at);
    case Type::BF16: memcpy(&half, at, 2); return (T)from_bits((uint32_t)half << 16);
    }
    return T();
}

template <typename T> void set(Type type, void* base, ptrdiff_t i, T value) {
    char* at = static_cast<char*>(base) + i * (ptrdiff_t)size(type);
    uint16_t half;
    switch (type) {
    case Type::F32: *reinterpret_cast<float*>(at) = (float)value; break;
    case Type::F64: *reinterpret_cast<double*>(at) = (double)value; break;
    case Type::F16: *reinterpret_cast<_Float16*>(at) = (_Float16)(float)value; break;
    case Type::BF16: half = to_bf16((float)value), memcpy(at, &half, 2); break;
    }
}

// f(first, end) on parts of 0 to n; `work` operations in all, too few of which are done at once.
template <typename F> void divide(size_t n, double work, F&& f) {
    if (work < 4e6 || n < 2 || std::thread::hardware_concurrency() < 2) return f(size_t(0), n);
    std::thread other([&] { f(n / 2, n); });
    f(0, n / 2);
    other.join();
}

} // namespace values
