// Memory of the device and of the host: allocated, copied, filled.
#include "driver.h"
#include "memory.h"

#include <cstdlib>
#include <cstring>

using emulator::device_holds;

namespace {

Result allocate(Pointer* out, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    void* start = emulator::device_alloc(bytes);
    *out = (Pointer)(uintptr_t)start;
    return start ? SUCCESS : OUT_OF_MEMORY;
}

template <typename T> Result fill(Pointer to, T value, size_t count) {
    if (!device_holds(address(to), count * sizeof(T), "a fill")) return INVALID_VALUE;
    for (size_t i = 0; i < count; i++) memcpy(static_cast<T*>(address(to)) + i, &value, sizeof(T));
    return SUCCESS;
}

} // namespace

extern "C" {

Result cuMemAlloc_v2(Pointer* out, size_t bytes) { return allocate(out, bytes); }
Result cuMemAllocAsync(Pointer* out, size_t bytes, void*) { return allocate(out, bytes); }
Result cuMemAllocFromPoolAsync(Pointer* out, size_t bytes, void*, void*) { return allocate(out, bytes); }
Result cuMemAllocManaged(Pointer* out, size_t bytes, unsigned) { return allocate(out, bytes); }
Result cuMemFree_v2(Pointer p) { return !p || emulator::device_free(address(p)) ? SUCCESS : INVALID_VALUE; }
Result cuMemFreeAsync(Pointer p, void*) { return cuMemFree_v2(p); }
Result cuMemPrefetchAsync_v2(Pointer, size_t, uint64_t, unsigned, void*) { return SUCCESS; }
Result cuMemAdvise_v2(Pointer, size_t, int, uint64_t) { return SUCCESS; }
Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    *total = emulator::device_total();
    const size_t used = emulator::device_used();
    return *free = used < *total ? *total - used : 0, SUCCESS;
}

Result cuMemHostAlloc(void** out, size_t bytes, unsigned) {
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*out) memset(*out, 0xff, bytes);
    return *out ? SUCCESS : OUT_OF_MEMORY;
}
Result cuMemAllocHost_v2(void** out, size_t bytes) { return cuMemHostAlloc(out, bytes, 0); }
Result cuMemFreeHost(void* p) { return free(p), SUCCESS; }
Result cuMemHostRegister_v2(void*, size_t, unsigned) { return SUCCESS; }
Result cuMemHostUnregister(void*) { return SUCCESS; }
Result cuMemHostGetDevicePointer_v2(Pointer* out, void* p, unsigned) { return *out = (Pointer)(uintptr_t)p, SUCCESS; }

Result cuMemcpyHtoD_v2(Pointer to, const void* from, size_t bytes) {
    if (!device_holds(address(to), bytes, "a copy to the device")) return INVALID_VALUE;
    return memcpy(address(to), from, bytes), SUCCESS;
}
Result cuMemcpyDtoH_v2(void* to, Pointer from, size_t bytes) {
    if (!device_holds(address(from), bytes, "a copy from the device")) return INVALID_VALUE;
    return memcpy(to, address(from), bytes), SUCCESS;
}
Result cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t bytes) {
    if (!device_holds(address(from), bytes, "the source of a copy")) return INVALID_VALUE;
    if (!device_holds(address(to), bytes, "the target of a copy")) return INVALID_VALUE;
    return memmove(address(to), address(from), bytes), SUCCESS;
}
Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void*) { return cuMemcpyHtoD_v2(to, from, bytes); }
Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void*) { return cuMemcpyDtoH_v2(to, from, bytes); }
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void*) { return cuMemcpyDtoD_v2(to, from, bytes); }

Result cuMemsetD8_v2(Pointer to, unsigned char value, size_t count) { return fill(to, value, count); }
Result cuMemsetD16_v2(Pointer to, unsigned short value, size_t count) { return fill(to, value, count); }
Result cuMemsetD32_v2(Pointer to, unsigned value, size_t count) { return fill(to, value, count); }
Result cuMemsetD8Async(Pointer to, unsigned char value, size_t count, void*) { return fill(to, value, count); }
Result cuMemsetD16Async(Pointer to, unsigned short value, size_t count, void*) { return fill(to, value, count); }
Result cuMemsetD32Async(Pointer to, unsigned value, size_t count, void*) { return fill(to, value, count); }

} // extern "C"
