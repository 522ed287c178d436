// Device memory of the stand-in driver.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// `bytes` that end at a wall, 16-byte aligned (256 where the size is a multiple of that), all bits set. Null: no room left.
void* device_alloc(size_t bytes);

// False for an address that no allocation begins at. Whoever uses the memory afterwards meets a wall.
bool device_free(void* start);

// Whether `bytes` from `p` on lie inside of one allocation; else prints why not.
bool device_holds(const void* p, size_t bytes, const char* what);

size_t device_total();
size_t device_used();

} // namespace emulator
