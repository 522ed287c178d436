// A stream is a queue. Whoever waits for a stream or an event does the work that is in front of it.
#include "streams.h"

#include "../core/engine.h"

#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace emulator {
namespace {

// Work that piles up without anybody waiting is done in between, so that its memory is freed.
constexpr size_t MOST_WAITING = 2000;

struct Work {
    std::function<void()> run;
    const void* host; // Page-locked memory that it needs, if any.
    size_t bytes;
};

struct Stream {
    bool blocking; // Waits for the stream without a name, and the other way round.
    std::deque<Work> waiting;
    unsigned long long done = 0, asked = 0;
};
using Shared = std::shared_ptr<Stream>;

// What a handle of an event points to.
struct Event {
    Shared stream; // Null before it is first recorded.
    unsigned long long after = 0;
    std::shared_ptr<timespec> at = std::make_shared<timespec>();
};

struct Streams {
    std::recursive_mutex mutex;
    Shared nameless = std::make_shared<Stream>();
    std::map<void*, Shared> all;
    std::map<uintptr_t, size_t> locked_pages;
    unsigned long long random = 0x2545f4914f6cdd1du;

    Shared& of(void* handle) {
        // 0, 1 and 2 are the nameless stream under several names.
        if ((uintptr_t)handle <= 2) return nameless;
        const auto at = all.find(handle);
        if (at == all.end()) fail("a stream is used that does not exist (or was destroyed)");
        return at->second;
    }

    void run_until(Stream& stream, unsigned long long goal) {
        while (stream.done < goal && !stream.waiting.empty()) {
            const Work work = std::move(stream.waiting.front());
            stream.waiting.pop_front();
            work.run();
            stream.done++;
        }
    }
    void drain(Stream& stream) { run_until(stream, stream.asked); }
    void drain_all() {
        drain(*nameless);
        for (auto& [handle, stream] : all) drain(*stream);
    }

    unsigned draw(unsigned below) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        return (unsigned)((random >> 32) * below >> 32);
    }

    void add(Shared stream, Work work) {
        if (stream == nameless) {
            for (auto& [handle, other] : all)
                if (other->blocking) drain(*other);
        } else if (stream->blocking) {
            drain(*nameless);
        }
        stream->waiting.push_back(std::move(work));
        stream->asked++;
        const bool now = order() == Order::Forward || stream->waiting.size() > MOST_WAITING;
        if (now) drain(*stream);
        else if (order() == Order::Shuffled && draw(4) == 0) run_until(*stream, stream->done + draw(8));
    }
};

Streams& streams() {
    static Streams* streams = new Streams;
    return *streams;
}

using Lock = std::lock_guard<std::recursive_mutex>;

timespec now() {
    timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at;
}

Result create(void** out, bool blocking) {
    Lock lock(streams().mutex);
    auto stream = std::make_shared<Stream>();
    stream->blocking = blocking;
    // An address that is no number of a nameless stream.
    return *out = stream.get(), streams().all[*out] = stream, SUCCESS;
}

} // namespace

void later_with(void* stream, const void* host, size_t bytes, std::function<void()> work) {
    Lock lock(streams().mutex);
    streams().add(streams().of(stream), {std::move(work), host, bytes});
}
void later(void* stream, std::function<void()> work) { later_with(stream, nullptr, 0, std::move(work)); }

void drain(void* stream) {
    Lock lock(streams().mutex);
    const Shared keep = streams().of(stream);
    streams().drain(*keep);
}
void drain_all() {
    Lock lock(streams().mutex);
    streams().drain_all();
}

void lock_pages(void* start, size_t bytes) {
    Lock lock(streams().mutex);
    streams().locked_pages[(uintptr_t)start] = bytes;
}

void unlock_pages(void* start) {
    Lock lock(streams().mutex);
    const auto at = streams().locked_pages.find((uintptr_t)start);
    if (at == streams().locked_pages.end()) fail("%p is given back, which is no page-locked memory", start);
    const auto check = [&](const Stream& stream) {
        for (const Work& work : stream.waiting)
            if (work.host && (uintptr_t)work.host - at->first < at->second)
                fail("%zu bytes of page-locked memory are given back while a copy may still need them", at->second);
    };
    check(*streams().nameless);
    for (auto& [handle, stream] : streams().all) check(*stream);
    streams().locked_pages.erase(at);
}

bool pages_are_locked(const void* p, size_t bytes) {
    Lock lock(streams().mutex);
    auto after = streams().locked_pages.upper_bound((uintptr_t)p);
    if (after == streams().locked_pages.begin()) return false;
    --after;
    return (uintptr_t)p + bytes <= after->first + after->second;
}

} // namespace emulator

using emulator::Event;
using emulator::Lock;
using emulator::Shared;
using emulator::streams;

namespace {

// Whether all up to `goal` is done; somebody who asks again and again comes forward by it.
Result reached(const Shared& stream, unsigned long long goal) {
    if (stream->done < goal) streams().run_until(*stream, stream->done + 1);
    return stream->done < goal ? NOT_READY : SUCCESS;
}

} // namespace

extern "C" {

void diptych_emulator_later(void* stream, void (*run)(void*), void* data) {
    emulator::later(stream, [run, data] { run(data); });
}

Result cuCtxSynchronize() { return emulator::drain_all(), SUCCESS; }
// 1: does not wait for the nameless stream.
Result cuStreamCreate(void** stream, unsigned flags) { return emulator::create(stream, !(flags & 1)); }
Result cuStreamCreateWithPriority(void** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
Result cuStreamDestroy_v2(void* stream) {
    Lock lock(streams().mutex);
    const Shared keep = streams().of(stream);
    streams().drain(*keep);
    return streams().all.erase(stream), SUCCESS;
}
Result cuStreamSynchronize(void* stream) { return emulator::drain(stream), SUCCESS; }
Result cuStreamQuery(void* stream) {
    Lock lock(streams().mutex);
    const Shared keep = streams().of(stream);
    return reached(keep, keep->asked);
}
Result cuStreamAttachMemAsync(void*, Pointer, size_t, unsigned) { return SUCCESS; }
Result cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    return emulator::later(stream, [=] { function(data); }), SUCCESS;
}
// Nothing is ever recorded instead of being done.
Result cuStreamIsCapturing(void*, int* status) { return *status = 0, SUCCESS; }
Result cuStreamBeginCapture_v2(void*, int) { return NOT_SUPPORTED; }
Result cuStreamEndCapture(void*, void** graph) { return *graph = nullptr, NOT_SUPPORTED; }

Result cuEventCreate(void** event, unsigned) { return *event = new Event, SUCCESS; }
Result cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), SUCCESS; }
Result cuEventRecord(void* handle, void* stream) {
    Lock lock(streams().mutex);
    auto* event = static_cast<Event*>(handle);
    event->stream = streams().of(stream);
    event->after = event->stream->asked + 1;
    emulator::later(stream, [at = event->at] { *at = emulator::now(); });
    return SUCCESS;
}
Result cuStreamWaitEvent(void* stream, void* handle, unsigned) {
    Lock lock(streams().mutex);
    const auto* event = static_cast<Event*>(handle);
    // An event that was never recorded has nothing to wait for.
    if (!event->stream || event->stream == streams().of(stream)) return SUCCESS;
    emulator::later(stream, [other = event->stream, after = event->after] { streams().run_until(*other, after); });
    return SUCCESS;
}
Result cuEventQuery(void* handle) {
    Lock lock(streams().mutex);
    const auto* event = static_cast<Event*>(handle);
    return event->stream ? reached(event->stream, event->after) : SUCCESS;
}
Result cuEventSynchronize(void* handle) {
    Lock lock(streams().mutex);
    const auto* event = static_cast<Event*>(handle);
    if (event->stream) streams().run_until(*event->stream, event->after);
    return SUCCESS;
}
Result cuEventElapsedTime(float* ms, void* from, void* to) {
    Lock lock(streams().mutex);
    for (const void* handle : {from, to}) {
        const auto* event = static_cast<const Event*>(handle);
        if (!event->stream) return INVALID_HANDLE;
        if (event->stream->done < event->after) return NOT_READY;
    }
    const timespec &a = *static_cast<Event*>(from)->at, &b = *static_cast<Event*>(to)->at;
    *ms = (float)(1e3 * (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_nsec - a.tv_nsec));
    return SUCCESS;
}
Result cuEventElapsedTime_v2(float* ms, void* from, void* to) { return cuEventElapsedTime(ms, from, to); }

} // extern "C"
