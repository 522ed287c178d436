// Allocations side by side in a large range of addresses, each followed by a page that nobody may touch. Addresses are
// never used twice, so that what is used after it was freed, or past its end, is found at once.
#include "memory.h"

#include "../core/engine.h"

#include <map>
#include <mutex>
#include <sys/mman.h>

namespace emulator {
namespace {

constexpr size_t PAGE = 4096, RANGE = size_t(16) << 40, MOST_FREED = 100000;
constexpr unsigned char POISON = 0xff;

struct Allocation {
    unsigned char* start;
    size_t bytes, pages; // `pages` in bytes, without the wall.
    bool freed;
};

struct Device {
    std::mutex mutex;
    unsigned char *base, *next;
    std::map<uintptr_t, Allocation> allocations; // By the start of their first page.
    size_t used = 0, freed = 0, total;

    Device() {
        const char* text = getenv("DIPTYCH_EMULATOR_MEMORY");
        total = (text && *text ? strtoul(text, nullptr, 10) : 16384) << 20;
        void* range = mmap(nullptr, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) fail("no range of addresses for the memory of the device");
        base = next = static_cast<unsigned char*>(range);
        describe = say;
    }

    // The allocation whose pages, or wall, hold the address.
    const Allocation* at(const void* p) const {
        auto after = allocations.upper_bound((uintptr_t)p);
        if (after == allocations.begin()) return nullptr;
        const auto& [page, allocation] = *--after;
        return (uintptr_t)p < page + allocation.pages + PAGE ? &allocation : nullptr;
    }

    static void say(const void* p, char* sentence, size_t room);
};

Device& device() {
    static Device* device = new Device;
    return *device;
}

void Device::say(const void* p, char* sentence, size_t room) {
    Device& device = emulator::device();
    const auto* at = static_cast<const unsigned char*>(p);
    if (at < device.base || at >= device.base + RANGE) return;
    // The thread that failed may hold the lock; it will never give it back.
    const bool locked = device.mutex.try_lock();
    const Allocation* found = device.at(p);
    if (!found) snprintf(sentence, room, "an access to %p, device memory that was never allocated (or freed long ago)", p);
    else if (found->freed) snprintf(sentence, room, "an access to byte %td of %zu, after they were freed", at - found->start, found->bytes);
    else snprintf(sentence, room, "an access to byte %td of an allocation of %zu bytes", at - found->start, found->bytes);
    if (locked) device.mutex.unlock();
}

// What lies before and after an allocation in its pages must be as it was.
void must_be_whole(const Allocation& a, unsigned char* page) {
    for (unsigned char* p = page; p < page + a.pages; p++) {
        if (p == a.start) p += a.bytes;
        if (p < page + a.pages && *p != POISON)
            fail("byte %td of an allocation of %zu bytes was written; found when it was freed", p - a.start, a.bytes);
    }
}

} // namespace

void* device_alloc(size_t bytes) {
    Device& device = emulator::device();
    const size_t even = (std::max<size_t>(bytes, 1) + 15) / 16 * 16, pages = (even + PAGE - 1) / PAGE * PAGE;
    std::lock_guard<std::mutex> lock(device.mutex);
    if (bytes > device.total - std::min(device.used, device.total)) return nullptr;
    if (pages + PAGE > RANGE - (size_t)(device.next - device.base)) fail("the range of addresses of the device is used up");
    unsigned char* page = device.next;
    if (mprotect(page, pages, PROT_READ | PROT_WRITE)) return nullptr;
    memset(page, POISON, pages);
    device.next += pages + PAGE;
    device.used += bytes;
    unsigned char* start = page + pages - even;
    device.allocations[(uintptr_t)page] = {start, bytes, pages, false};
    return start;
}

bool device_free(void* start) {
    Device& device = emulator::device();
    std::lock_guard<std::mutex> lock(device.mutex);
    const Allocation* found = device.at(start);
    if (!found || found->start != start) {
        fprintf(stderr, "emulator: %p is freed, where no allocation begins\n", start);
        return false;
    }
    if (found->freed) {
        fprintf(stderr, "emulator: %p, of %zu bytes, is freed twice\n", start, found->bytes);
        return false;
    }
    unsigned char* page = reinterpret_cast<unsigned char*>((uintptr_t)start / PAGE * PAGE);
    must_be_whole(*found, page);
    mmap(page, found->pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    device.allocations[(uintptr_t)page].freed = true;
    device.used -= found->bytes;
    if (++device.freed > MOST_FREED)
        for (auto at = device.allocations.begin(); at != device.allocations.end(); ++at)
            if (at->second.freed) {
                device.allocations.erase(at);
                break;
            }
    return true;
}

bool device_holds(const void* p, size_t bytes, const char* what) {
    if (bytes == 0) return true;
    Device& device = emulator::device();
    std::lock_guard<std::mutex> lock(device.mutex);
    const auto* at = static_cast<const unsigned char*>(p);
    const Allocation* found = device.at(p);
    if (found && !found->freed && at >= found->start && at + bytes <= found->start + found->bytes) return true;
    if (!found) fprintf(stderr, "emulator: %s: %p is no device memory\n", what, p);
    else
        fprintf(stderr, "emulator: %s: bytes %td to %td of an allocation of %zu%s\n", what, at - found->start,
                at - found->start + (ptrdiff_t)bytes, found->bytes, found->freed ? ", which was freed" : "");
    return false;
}

size_t device_total() { return device().total; }
size_t device_used() {
    std::lock_guard<std::mutex> lock(device().mutex);
    return device().used;
}

} // namespace emulator
