// Streams: work that is done at once, or as late as a program allows.
#pragma once

#include "driver.h"

#include <functional>

namespace emulator {

// Does `work` in its place in a stream, by DIPTYCH_EMULATOR_ORDER: `forward` at once, `reverse` when somebody waits for it,
// `shuffled` somewhere between.
void later(void* stream, std::function<void()> work);

// Does all that is in a stream, or in every stream.
void drain(void* stream);
void drain_all();

// Page-locked memory of the host: copies from and to it are really asynchronous, all others take their bytes at once.
void lock_pages(void* start, size_t bytes);
// Fails if work that is not done yet still needs them.
void unlock_pages(void* start);
bool pages_are_locked(const void* p, size_t bytes);

// As `later`, for a copy that reads or writes `bytes` of page-locked memory at `host`.
void later_with(void* stream, const void* host, size_t bytes, std::function<void()> work);

} // namespace emulator

// For the stand-ins of libraries: calls run(data) in its place in a stream.
extern "C" void diptych_emulator_later(void* stream, void (*run)(void*), void* data);
