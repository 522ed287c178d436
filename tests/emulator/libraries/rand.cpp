// Stands in for cuRAND: other numbers than the real one's, of the same distributions.
#include "later.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace {

constexpr uint64_t STEP = 0x9e3779b97f4a7c15u;
enum { SUCCESS = 0, LENGTH_NOT_MULTIPLE = 105 };

struct Generator {
    uint64_t state;
    void* stream;

    uint64_t next() {
        uint64_t z = state += STEP;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    // Above 0, up to 1.
    double uniform() { return (double)((next() >> 11) + 1) * 0x1p-53; }
};

// Work that has a copy of the generator, which goes on as if it had drawn `n` times.
template <typename F> int draw(Generator* g, size_t n, F&& f) {
    later(g->stream, [f, own = *g]() mutable { f(own); });
    g->state += n * STEP;
    return SUCCESS;
}

template <typename T> int uniform(Generator* g, T* out, size_t n) {
    return draw(g, n, [=](Generator& own) {
        for (size_t i = 0; i < n; i++) out[i] = std::fmax((T)own.uniform(), (T)0x1p-33);
    });
}

// By Box and Muller, in pairs, as the real one refuses odd lengths.
template <typename T> int normal(Generator* g, T* out, size_t n, T mean, T deviation) {
    if (n % 2) return LENGTH_NOT_MULTIPLE;
    return draw(g, n, [=](Generator& own) {
        for (size_t i = 0; i < n; i += 2) {
            const double radius = std::sqrt(-2 * std::log(own.uniform())), angle = 2 * M_PI * own.uniform();
            out[i] = (T)(mean + deviation * radius * std::cos(angle));
            out[i + 1] = (T)(mean + deviation * radius * std::sin(angle));
        }
    });
}

} // namespace

extern "C" {

int curandCreateGenerator(Generator** g, int) { return *g = new Generator{}, SUCCESS; }
int curandDestroyGenerator(Generator* g) { return delete g, SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(Generator* g, unsigned long long seed) { return g->state = seed, SUCCESS; }
int curandSetGeneratorOffset(Generator* g, unsigned long long offset) {
    return g->state += offset * STEP, SUCCESS;
}
int curandSetStream(Generator* g, void* stream) { return g->stream = stream, SUCCESS; }
int curandGenerate(Generator* g, uint32_t* out, size_t n) {
    return draw(g, n, [=](Generator& own) {
        for (size_t i = 0; i < n; i++) out[i] = (uint32_t)(own.next() >> 32);
    });
}
int curandGenerateUniform(Generator* g, float* out, size_t n) { return uniform(g, out, n); }
int curandGenerateUniformDouble(Generator* g, double* out, size_t n) { return uniform(g, out, n); }
int curandGenerateNormal(Generator* g, float* out, size_t n, float mean, float deviation) {
    return normal(g, out, n, mean, deviation);
}
int curandGenerateNormalDouble(Generator* g, double* out, size_t n, double mean, double deviation) {
    return normal(g, out, n, mean, deviation);
}

} // extern "C"
