// Modules and launches. A module's image is not run: it says which kernels it holds, and those of that name are taken from
// the libraries beside this one.
#include "driver.h"
#include "streams.h"

#include "../core/engine.h"

#include <dirent.h>
#include <dlfcn.h>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace emulator {
namespace {

struct Module {
    std::set<std::string> names;
    std::string file; // The library of kernels that has most of the names.
};

struct Function {
    const Kernel* kernel;
    int most_dynamic = USUAL_SHARED;
};

// The names after every `.entry` of PTX.
std::set<std::string> names_of_ptx(const std::string& text) {
    std::set<std::string> names;
    const std::string word = ".entry ";
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at)) {
        at += word.size();
        const size_t end = text.find_first_of("( \t\r\n", at);
        if (end == std::string::npos) break;
        names.insert(text.substr(at, end - at));
    }
    return names;
}

template <typename T> T read(const unsigned char* at) {
    T value;
    memcpy(&value, at, sizeof(T));
    return value;
}

// Machine code is an ELF file with a section `.text.NAME` for every kernel.
std::set<std::string> names_of_elf(const unsigned char* image) {
    std::set<std::string> names;
    const unsigned char* sections = image + read<uint64_t>(image + 0x28);
    const unsigned size = read<uint16_t>(image + 0x3a), count = read<uint16_t>(image + 0x3c), names_at = read<uint16_t>(image + 0x3e);
    const char* texts = reinterpret_cast<const char*>(image) + read<uint64_t>(sections + size * names_at + 0x18);
    for (unsigned i = 0; i < count; i++) {
        const std::string name = texts + read<uint32_t>(sections + size * i);
        if (name.rfind(".text.", 0) == 0) names.insert(name.substr(6));
    }
    return names;
}

void load_from(const std::string& folder) {
    DIR* entries = opendir(folder.c_str());
    if (!entries) fail("no folder %s: build the emulator again (cargo xtask emulator)", folder.c_str());
    while (const dirent* entry = readdir(entries)) {
        const std::string file = entry->d_name;
        if (file.size() < 3 || file.substr(file.size() - 3) != ".so") continue;
        begin_file(file.substr(0, file.size() - 3).c_str());
        if (!dlopen((folder + "/" + file).c_str(), RTLD_NOW | RTLD_LOCAL)) fail("%s", dlerror());
    }
    closedir(entries);
}

} // namespace

void load_kernels() {
    static std::once_flag once;
    std::call_once(once, [] {
        watch_signals();
        Dl_info here;
        if (!dladdr(reinterpret_cast<void*>(load_kernels), &here)) fail("the stand-in for libcuda does not know where it lies");
        const std::string path = here.dli_fname;
        load_from(path.substr(0, path.rfind('/')) + "/kernels");
    });
}

} // namespace emulator

using emulator::Function;
using emulator::Module;

extern "C" {

Result cuModuleLoadData(void** out, const void* image) {
    const auto* bytes = static_cast<const unsigned char*>(image);
    auto* module = new Module;
    if (memcmp(bytes, "\x7f" "ELF", 4) == 0) module->names = emulator::names_of_elf(bytes);
    else module->names = emulator::names_of_ptx(static_cast<const char*>(image));
    if (module->names.empty()) return delete module, INVALID_IMAGE;
    module->file = emulator::file_with_most(module->names);
    return *out = module, SUCCESS;
}
Result cuModuleLoadDataEx(void** out, const void* image, unsigned, void*, void*) { return cuModuleLoadData(out, image); }
Result cuModuleUnload(void* module) { return delete static_cast<Module*>(module), SUCCESS; }
Result cuModuleGetGlobal_v2(Pointer*, size_t*, void*, const char*) { return NOT_FOUND; }

Result cuModuleGetFunction(void** out, void* handle, const char* name) {
    const auto* module = static_cast<Module*>(handle);
    if (!module->names.count(name)) {
        fprintf(stderr, "emulator: the module has no kernel %s\n", name);
        return NOT_FOUND;
    }
    const emulator::Kernel* kernel = emulator::find_kernel(module->file.c_str(), name);
    if (!kernel) {
        fprintf(stderr, "emulator: kernel %s was not built for the emulator; `cargo xtask emulator` builds what is new\n", name);
        return NOT_FOUND;
    }
    return *out = new Function{kernel}, SUCCESS;
}

Result cuFuncGetAttribute(int* value, int attribute, void* handle) {
    const auto* function = static_cast<Function*>(handle);
    switch (attribute) {
    case 0: *value = 1024; break;                    // Most threads of a block.
    case 4: *value = 64; break;                      // Registers.
    case 5: case 6: *value = 90; break;              // Versions of PTX and machine code.
    case 8: *value = function->most_dynamic; break;  // Most dynamic shared memory.
    default: *value = 0;
    }
    return SUCCESS;
}
Result cuFuncSetAttribute(void* handle, int attribute, int value) {
    if (attribute != 8) return SUCCESS;
    if (value < 0 || value > emulator::MOST_SHARED) return INVALID_VALUE;
    return static_cast<Function*>(handle)->most_dynamic = value, SUCCESS;
}
Result cuFuncSetCacheConfig(void*, int) { return SUCCESS; }

Result cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void* stream, void** params, void** extra) {
    const auto* function = static_cast<Function*>(handle);
    const emulator::Kernel kernel = *function->kernel;
    const auto refuse = [&](const char* why) {
        fprintf(stderr, "emulator: kernel %s, grid (%u, %u, %u), block (%u, %u, %u), %u bytes shared: %s\n", kernel.name, gx, gy,
                gz, bx, by, bz, shared, why);
        return INVALID_VALUE;
    };
    if (extra || (!params && kernel.parameters)) return refuse("arguments must come as an array of addresses");
    if (!gx || !gy || !gz || gx > 0x7fffffffu || gy > 65535 || gz > 65535) return refuse("not a possible grid");
    if (!bx || !by || !bz || bz > 64 || (uint64_t)bx * by * bz > 1024) return refuse("not a possible block");
    if ((int)shared > function->most_dynamic) return refuse("more shared memory than was asked for with cuFuncSetAttribute");
    // The values of the arguments are those of now.
    std::vector<std::vector<unsigned char>> values;
    for (size_t i = 0; i < kernel.parameters; i++) {
        const auto* first = static_cast<unsigned char*>(params[i]);
        values.emplace_back(first, first + kernel.sizes[i]);
    }
    emulator::later(stream, [=, values = std::move(values)]() mutable {
        std::vector<void*> at;
        for (auto& value : values) at.push_back(value.data());
        emulator::run({kernel.name, {gx, gy, gz}, {bx, by, bz}, shared, kernel.function, kernel.invoke, at.data()});
    });
    return SUCCESS;
}
Result cuLaunchCooperativeKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**) {
    return NOT_SUPPORTED;
}

// Registers are not known; threads and shared memory are counted.
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, size_t shared) {
    const int by_threads = 2048 / std::max(threads, 1);
    const int by_shared = (int)((228 << 10) / (shared + 1024));
    return *blocks = std::min({by_threads, by_shared, 32}), SUCCESS;
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void* f, int threads, size_t shared, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, f, threads, shared);
}
Result cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int most) {
    *block = most > 0 ? std::min(most, 1024) : 1024;
    return *grid = emulator::MULTIPROCESSORS * (2048 / *block), SUCCESS;
}
Result cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, void* f, void* g, size_t shared, int most, unsigned) {
    return cuOccupancyMaxPotentialBlockSize(grid, block, f, g, shared, most);
}
Result cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, void*, int blocks, int) {
    return *bytes = (size_t)std::min(emulator::MOST_SHARED, (228 << 10) / std::max(blocks, 1) - 1024), SUCCESS;
}

} // extern "C"
