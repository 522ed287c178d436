// Memory of the device and of the host: allocated, copied, filled.
#include "driver.h"
#include "memory.h"
#include "streams.h"

#include <cstdlib>
#include <cstring>
#include <vector>

using emulator::device_holds;

namespace {

Result allocate(Pointer* out, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    void* start = emulator::device_alloc(bytes);
    if (!start) {
        // What was asked to be freed may not have been.
        emulator::drain_all();
        start = emulator::device_alloc(bytes);
    }
    *out = (Pointer)(uintptr_t)start;
    return start ? SUCCESS : OUT_OF_MEMORY;
}

template <typename T> Result fill(Pointer to, T value, size_t count, void* stream) {
    if (!device_holds(address(to), count * sizeof(T), "a fill")) return INVALID_VALUE;
    emulator::later(stream, [=] {
        for (size_t i = 0; i < count; i++) memcpy(static_cast<T*>(address(to)) + i, &value, sizeof(T));
    });
    return SUCCESS;
}

} // namespace

extern "C" {

Result cuMemAlloc_v2(Pointer* out, size_t bytes) { return allocate(out, bytes); }
Result cuMemAllocAsync(Pointer* out, size_t bytes, void*) { return allocate(out, bytes); }
Result cuMemAllocFromPoolAsync(Pointer* out, size_t bytes, void*, void*) { return allocate(out, bytes); }
Result cuMemAllocManaged(Pointer* out, size_t bytes, unsigned) { return allocate(out, bytes); }
Result cuMemFree_v2(Pointer p) {
    if (!p) return SUCCESS;
    emulator::drain_all();
    return emulator::device_free(address(p)) ? SUCCESS : INVALID_VALUE;
}
Result cuMemFreeAsync(Pointer p, void* stream) {
    if (!p) return SUCCESS;
    if (!device_holds(address(p), 1, "memory that is freed")) return INVALID_VALUE;
    return emulator::later(stream, [=] { emulator::device_free(address(p)); }), SUCCESS;
}
Result cuMemPrefetchAsync_v2(Pointer, size_t, uint64_t, unsigned, void*) { return SUCCESS; }
Result cuMemAdvise_v2(Pointer, size_t, int, uint64_t) { return SUCCESS; }
Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    emulator::drain_all();
    *total = emulator::device_total();
    const size_t used = emulator::device_used();
    return *free = used < *total ? *total - used : 0, SUCCESS;
}

Result cuMemHostAlloc(void** out, size_t bytes, unsigned) {
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*out) return OUT_OF_MEMORY;
    memset(*out, 0xff, bytes);
    return emulator::lock_pages(*out, bytes), SUCCESS;
}
Result cuMemAllocHost_v2(void** out, size_t bytes) { return cuMemHostAlloc(out, bytes, 0); }
Result cuMemFreeHost(void* p) {
    emulator::unlock_pages(p);
    return free(p), SUCCESS;
}
Result cuMemHostRegister_v2(void* p, size_t bytes, unsigned) { return emulator::lock_pages(p, bytes), SUCCESS; }
Result cuMemHostUnregister(void* p) { return emulator::unlock_pages(p), SUCCESS; }
Result cuMemHostGetDevicePointer_v2(Pointer* out, void* p, unsigned) { return *out = (Pointer)(uintptr_t)p, SUCCESS; }

Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
    if (!device_holds(address(to), bytes, "a copy to the device")) return INVALID_VALUE;
    if (emulator::pages_are_locked(from, bytes)) {
        emulator::later_with(stream, from, bytes, [=] { memcpy(address(to), from, bytes); });
    } else {
        const auto* first = static_cast<const unsigned char*>(from);
        emulator::later(stream, [=, kept = std::vector<unsigned char>(first, first + bytes)] {
            memcpy(address(to), kept.data(), bytes);
        });
    }
    return SUCCESS;
}
Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
    if (!device_holds(address(from), bytes, "a copy from the device")) return INVALID_VALUE;
    emulator::later_with(stream, to, bytes, [=] { memcpy(to, address(from), bytes); });
    if (!emulator::pages_are_locked(to, bytes)) emulator::drain(stream);
    return SUCCESS;
}
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* stream) {
    if (!device_holds(address(from), bytes, "the source of a copy")) return INVALID_VALUE;
    if (!device_holds(address(to), bytes, "the target of a copy")) return INVALID_VALUE;
    return emulator::later(stream, [=] { memmove(address(to), address(from), bytes); }), SUCCESS;
}
Result cuMemcpyHtoD_v2(Pointer to, const void* from, size_t bytes) {
    const Result result = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
    return emulator::drain(nullptr), result;
}
Result cuMemcpyDtoH_v2(void* to, Pointer from, size_t bytes) {
    const Result result = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
    return emulator::drain(nullptr), result;
}
Result cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t bytes) { return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr); }

Result cuMemsetD8Async(Pointer to, unsigned char value, size_t count, void* stream) { return fill(to, value, count, stream); }
Result cuMemsetD16Async(Pointer to, unsigned short value, size_t count, void* stream) { return fill(to, value, count, stream); }
Result cuMemsetD32Async(Pointer to, unsigned value, size_t count, void* stream) { return fill(to, value, count, stream); }
Result cuMemsetD8_v2(Pointer to, unsigned char value, size_t count) { return fill(to, value, count, nullptr); }
Result cuMemsetD16_v2(Pointer to, unsigned short value, size_t count) { return fill(to, value, count, nullptr); }
Result cuMemsetD32_v2(Pointer to, unsigned value, size_t count) { return fill(to, value, count, nullptr); }

} // extern "C"
