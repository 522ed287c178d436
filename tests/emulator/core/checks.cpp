// What g++'s checks call (-fsanitize=alignment,bounds,shift,integer-divide-by-zero,signed-integer-overflow): a sentence
// with the kernel, the line and the thread. The layout of what they hand over is the compiler's.
#include "engine.h"

namespace emulator {
namespace {

struct Place {
    const char* file;
    unsigned line, column;
};

[[noreturn]] void refuse(const void* data, const char* what) {
    const Place& place = *static_cast<const Place*>(data);
    fail("%s:%u:%u: %s", place.file, place.line, place.column, what);
}

// After the place: a pointer to the type, the logarithm of the alignment, and the kind of access.
struct Mismatch {
    Place place;
    const void* type;
    unsigned char log_alignment, kind;
};

} // namespace
} // namespace emulator

#define DIPTYCH_CHECK(name, parameters, what)                                                                          \
    extern "C" void __ubsan_handle_##name parameters { emulator::refuse(data, what); }                                 \
    extern "C" void __ubsan_handle_##name##_abort parameters { emulator::refuse(data, what); }

using Value = unsigned long;
DIPTYCH_CHECK(out_of_bounds, (void* data, Value), "an index outside of its array")
DIPTYCH_CHECK(shift_out_of_bounds, (void* data, Value, Value), "a shift by too many bits, or of a sign")
DIPTYCH_CHECK(divrem_overflow, (void* data, Value, Value), "an integer divided by zero")
DIPTYCH_CHECK(add_overflow, (void* data, Value, Value), "a signed sum overflows")
DIPTYCH_CHECK(sub_overflow, (void* data, Value, Value), "a signed difference overflows")
DIPTYCH_CHECK(mul_overflow, (void* data, Value, Value), "a signed product overflows")
DIPTYCH_CHECK(negate_overflow, (void* data, Value), "a negative number overflows")

extern "C" void __ubsan_handle_type_mismatch_v1(void* data, Value at) {
    const auto& mismatch = *static_cast<const emulator::Mismatch*>(data);
    const unsigned long align = 1ul << mismatch.log_alignment;
    emulator::fail("%s:%u:%u: an access to %#lx, which is not a multiple of %lu", mismatch.place.file, mismatch.place.line,
                   mismatch.place.column, at, align);
}
extern "C" void __ubsan_handle_type_mismatch_v1_abort(void* data, Value at) { __ubsan_handle_type_mismatch_v1(data, at); }
