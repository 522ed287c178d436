// Divides the blocks of a launch among threads of the machine; knows kernels by name.
#include "engine.h"

#include <atomic>
#include <condition_variable>
#include <dlfcn.h>
#include <link.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

extern "C" void* __tls_get_addr(size_t*);

namespace emulator {
namespace {

// All `__shared__` variables of a file are the thread-local variables of the library (or program) it is linked into.
SharedRange static_shared(void* function) {
    struct Search {
        uintptr_t at;
        SharedRange found;
    } search{(uintptr_t)function, {}};
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* data) {
            auto& search = *static_cast<Search*>(data);
            const ElfW(Phdr)* tls = nullptr;
            bool holds = false;
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const ElfW(Phdr)& part = info->dlpi_phdr[i];
                if (part.p_type == PT_TLS) tls = &part;
                if (part.p_type == PT_LOAD && search.at - (info->dlpi_addr + part.p_vaddr) < part.p_memsz) holds = true;
            }
            if (!holds) return 0;
            if (tls) {
                size_t index[2] = {info->dlpi_tls_modid, 0};
                search.found = {static_cast<unsigned char*>(__tls_get_addr(index)), tls->p_memsz};
            }
            return 1;
        },
        &search);
    return search.found;
}

unsigned long number(const char* name, unsigned long otherwise) {
    const char* text = getenv(name);
    return text && *text ? strtoul(text, nullptr, 10) : otherwise;
}

// What the threads of the machine share during one launch.
struct Work {
    const Launch* launch;
    unsigned long long blocks;
    std::atomic<unsigned long long> next{0};
};

// The n-th block to run.
unsigned long long turn(unsigned long long n, unsigned long long blocks) {
    if (order() == Order::Forward) return n;
    if (order() == Order::Reverse) return blocks - 1 - n;
    // A step that shares no divisor with the number of blocks visits them all.
    unsigned long long step = blocks * 5 / 8 | 1;
    while (std::__gcd(step, blocks) != 1) step += 2;
    return (n * step + blocks / 3) % blocks;
}

void take_part(Block& room, Work& work) {
    const Launch& launch = *work.launch;
    const SharedRange statics = static_shared(launch.function);
    for (;;) {
        const unsigned long long n = work.next++;
        if (n >= work.blocks) return;
        const unsigned long long at = turn(n, work.blocks);
        const unsigned long long x = launch.grid.x, y = launch.grid.y;
        room.run(launch, {(unsigned)(at % x), (unsigned)(at / x % y), (unsigned)(at / (x * y))}, statics);
    }
}

// The caller and its helpers; launches of several threads come one after the other.
struct Team {
    std::mutex launching, talking;
    std::condition_variable begun, ended;
    Work* work = nullptr;
    unsigned long long round = 0;
    unsigned busy = 0, helpers;
    Block room;

    Team() {
        const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
        helpers = (unsigned)std::max(1ul, number("DIPTYCH_EMULATOR_THREADS", std::min(2u, cores))) - 1;
        for (unsigned i = 0; i < helpers; i++) std::thread([this] { help(); }).detach();
    }

    void help() {
        watch_signals();
        auto room = std::make_unique<Block>();
        unsigned long long seen = 0;
        for (;;) {
            std::unique_lock<std::mutex> lock(talking);
            begun.wait(lock, [&] { return round != seen; });
            seen = round;
            Work* mine = work;
            lock.unlock();
            take_part(*room, *mine);
            lock.lock();
            if (--busy == 0) ended.notify_one();
        }
    }

    void run(const Launch& launch) {
        std::lock_guard<std::mutex> one(launching);
        watch_signals();
        Work mine{&launch, (unsigned long long)launch.grid.x * launch.grid.y * launch.grid.z};
        const bool alone = helpers == 0 || mine.blocks == 1;
        if (!alone) {
            std::lock_guard<std::mutex> lock(talking);
            work = &mine, busy = helpers, round++;
            begun.notify_all();
        }
        take_part(room, mine);
        if (!alone) {
            std::unique_lock<std::mutex> lock(talking);
            ended.wait(lock, [&] { return busy == 0; });
        }
    }
};

// Never destroyed: helpers wait until the process ends.
Team& team() {
    static Team* team = new Team;
    return *team;
}

using Kernels = std::map<std::string, Kernel>;

std::map<std::string, Kernels>& files() {
    static auto* files = new std::map<std::string, Kernels>;
    return *files;
}

std::string& file() {
    static auto* file = new std::string;
    return *file;
}

} // namespace

Order order() {
    static const Order order = [] {
        const char* text = getenv("DIPTYCH_EMULATOR_ORDER");
        const std::string name = text ? text : "";
        if (name.empty() || name == "forward") return Order::Forward;
        if (name == "reverse") return Order::Reverse;
        if (name == "shuffled") return Order::Shuffled;
        fprintf(stderr, "DIPTYCH_EMULATOR_ORDER is %s, not forward, reverse or shuffled\n", text);
        exit(2);
    }();
    return order;
}

void run(const Launch& launch) {
    const dim3 &g = launch.grid, &b = launch.block;
    const unsigned long long threads = (unsigned long long)b.x * b.y * b.z;
    if (threads == 0 || threads > MOST_THREADS || b.z > 64)
        fail("%s: a block of (%u, %u, %u) threads; 1 to 1024 are possible", launch.name, b.x, b.y, b.z);
    if (!g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
        fail("%s: a grid of (%u, %u, %u) blocks is not possible", launch.name, g.x, g.y, g.z);
    if (launch.shared > 227 << 10) fail("%s: %zu bytes of shared memory; 227 KiB are possible", launch.name, launch.shared);
    team().run(launch);
}

const char* name_of(void* function) {
    Dl_info info;
    return dladdr(function, &info) && info.dli_sname ? info.dli_sname : "a kernel";
}

void begin_file(const char* name) { file() = name; }

void add_kernel(const Kernel& kernel) { files()[file()][kernel.name] = kernel; }

const Kernel* find_kernel(const char* file, const char* name) {
    const Kernels& kernels = files()[file];
    const auto at = kernels.find(name);
    return at == kernels.end() ? nullptr : &at->second;
}

std::string file_with_most(const std::set<std::string>& names) {
    std::string best;
    size_t most = 0;
    for (const auto& [file, kernels] : files()) {
        size_t count = 0;
        for (const std::string& name : names) count += kernels.count(name);
        if (count > most) most = count, best = file;
    }
    return best;
}

} // namespace emulator
