// The device and its context: one device, whose numbers are those of an H200.
#include "driver.h"
#include "memory.h"

#include <cstdio>
#include <cstring>

namespace {

// What contexts and pools point to; nobody looks inside.
char context, pool;
thread_local void* current = nullptr;

const struct { Result code; const char *name, *text; } ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported by the emulator"},
};

// As an H200 has them, by the numbers of CUdevice_attribute.
int attribute(int number) {
    switch (number) {
    case 1: return 1024;                         // Threads of a block.
    case 2: case 3: return 1024;                 // Block, x and y.
    case 4: return 64;                           // Block, z.
    case 5: return 0x7fffffff;                   // Grid, x.
    case 6: case 7: return 65535;                // Grid, y and z.
    case 8: return emulator::USUAL_SHARED;       // Shared memory of a block.
    case 9: return 65536;                        // Constant memory.
    case 10: return 32;                          // Warp.
    case 11: return 0x7fffffff;                  // Pitch.
    case 12: case 82: return 65536;              // Registers of a block, of a multiprocessor.
    case 13: return 1980000;                     // Clock, kHz.
    case 14: return 512;                         // Alignment of textures.
    case 16: return emulator::MULTIPROCESSORS;
    case 19: case 31: case 41: return 1;         // Maps host memory, concurrent kernels, one address space.
    case 36: return 3201000;                     // Memory clock, kHz.
    case 37: return 6144;                        // Memory bus, bits.
    case 38: return 60 << 20;                    // L2 cache.
    case 39: return 2048;                        // Threads of a multiprocessor.
    case 40: return 3;                           // Copy engines.
    case 75: return 9;                           // Compute capability, major.
    case 76: return 0;                           // And minor.
    case 78: case 79: case 80: return 1;         // Stream priorities, L1 caches.
    case 81: return 228 << 10;                   // Shared memory of a multiprocessor.
    case 83: case 95: case 99: return 1;         // Managed memory, cooperative launches, registered host memory.
    case 97: return emulator::MOST_SHARED;       // Shared memory of a block that asks for it.
    case 106: return 32;                         // Blocks of a multiprocessor.
    case 111: return 1024;                       // Shared memory that the system takes of a block.
    case 115: return 1;                          // Memory pools.
    default: return 0;
    }
}

} // namespace

extern "C" {

Result cuInit(unsigned) {
    emulator::load_kernels();
    return SUCCESS;
}
Result cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }

Result cuGetErrorName(Result code, const char** text) {
    for (const auto& error : ERRORS)
        if (error.code == code) return *text = error.name, SUCCESS;
    return *text = "CUDA_ERROR", SUCCESS;
}
Result cuGetErrorString(Result code, const char** text) {
    for (const auto& error : ERRORS)
        if (error.code == code) return *text = error.text, SUCCESS;
    return *text = "an error of the emulated driver", SUCCESS;
}

Result cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
Result cuDeviceGet(int* device, int ordinal) {
    if (ordinal != 0) return INVALID_DEVICE;
    return *device = 0, SUCCESS;
}
Result cuDeviceGetName(char* name, int room, int) { return snprintf(name, (size_t)room, "Diptych emulator"), SUCCESS; }
Result cuDeviceGetUuid(void* uuid, int) { return memset(uuid, 0xd1, 16), SUCCESS; }
Result cuDeviceGetUuid_v2(void* uuid, int device) { return cuDeviceGetUuid(uuid, device); }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = emulator::device_total(), SUCCESS; }
Result cuDeviceGetAttribute(int* value, int number, int) { return *value = attribute(number), SUCCESS; }

Result cuDevicePrimaryCtxRetain(void** out, int) { return *out = &context, SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void* c) { return current = c, SUCCESS; }
Result cuCtxGetCurrent(void** c) { return *c = current, SUCCESS; }
Result cuCtxGetDevice(int* device) { return *device = 0, SUCCESS; }
Result cuCtxSetFlags(unsigned) { return SUCCESS; }
Result cuCtxSetLimit(int, size_t) { return SUCCESS; }
Result cuCtxGetLimit(size_t* value, int) { return *value = 0, SUCCESS; }
Result cuCtxSetCacheConfig(int) { return SUCCESS; }
Result cuCtxGetCacheConfig(int* config) { return *config = 0, SUCCESS; }
Result cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, SUCCESS; }

Result cuDeviceGetDefaultMemPool(void** out, int) { return *out = &pool, SUCCESS; }
Result cuDeviceGetMemPool(void** out, int) { return *out = &pool, SUCCESS; }
Result cuDeviceSetMemPool(int, void*) { return SUCCESS; }
Result cuMemPoolCreate(void** out, const void*) { return *out = &pool, SUCCESS; }
Result cuMemPoolDestroy(void*) { return SUCCESS; }
Result cuMemPoolTrimTo(void*, size_t) { return SUCCESS; }
Result cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }
Result cuMemPoolGetAttribute(void*, int number, void* value) {
    // 5 to 8: bytes reserved and used, now and at most.
    const uint64_t bytes = number >= 5 ? emulator::device_used() : UINT64_MAX;
    if (number >= 4) memcpy(value, &bytes, 8);
    else memset(value, 0, 4);
    return SUCCESS;
}

} // extern "C"
