// Atomic operations: real ones, because blocks may run on several threads of the machine.
#pragma once

#include "words.h"

namespace emulator {

// Bits of the size of T, to compare and swap.
template <size_t> struct Bits;
template <> struct Bits<2> { using Type = unsigned short; };
template <> struct Bits<4> { using Type = unsigned; };
template <> struct Bits<8> { using Type = unsigned long long; };

template <typename T, typename F> T atomically(T* at, F&& change) {
    using B = typename Bits<sizeof(T)>::Type;
    B* bits = reinterpret_cast<B*>(at);
    B old = __atomic_load_n(bits, __ATOMIC_SEQ_CST);
    for (;;) {
        T before;
        memcpy(&before, &old, sizeof(T));
        const T after = change(before);
        B next;
        memcpy(&next, &after, sizeof(T));
        if (__atomic_compare_exchange_n(bits, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return before;
    }
}

// `std::type_identity`, so that the pointer alone decides about the type.
template <typename T> struct Same { using Type = T; };
template <typename T> using As = typename Same<T>::Type;

} // namespace emulator

template <typename T> T atomicAdd(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return (T)(x + v); }); }
template <typename T> T atomicSub(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return (T)(x - v); }); }
template <typename T> T atomicMax(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return x < v ? v : x; }); }
template <typename T> T atomicMin(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return v < x ? v : x; }); }
template <typename T> T atomicAnd(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return (T)(x & v); }); }
template <typename T> T atomicOr(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return (T)(x | v); }); }
template <typename T> T atomicXor(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return (T)(x ^ v); }); }
template <typename T> T atomicExch(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T) { return (T)v; }); }
template <typename T> T atomicInc(T* at, emulator::As<T> v) { return emulator::atomically(at, [=](T x) { return x >= v ? T(0) : T(x + 1); }); }
template <typename T> T atomicDec(T* at, emulator::As<T> v) {
    return emulator::atomically(at, [=](T x) { return x == 0 || x > v ? T(v) : T(x - 1); });
}
template <typename T> T atomicCAS(T* at, emulator::As<T> expected, emulator::As<T> v) {
    return emulator::atomically(at, [=](T x) { return memcmp(&x, &expected, sizeof(T)) == 0 ? (T)v : x; });
}
