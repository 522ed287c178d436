// Work of a library in its place in a stream of the stand-in driver.
#pragma once

#include <memory>
#include <utility>

extern "C" void diptych_emulator_later(void* stream, void (*run)(void*), void* data);

// Calls `work()` there; what it needs of the host it must hold itself.
template <typename F> void later(void* stream, F&& work) {
    using Work = std::decay_t<F>;
    const auto run = [](void* data) { (*std::unique_ptr<Work>(static_cast<Work*>(data)))(); };
    diptych_emulator_later(stream, run, new Work(std::forward<F>(work)));
}
