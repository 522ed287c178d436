// SGD, LARS and moving averages over all tensors of a model: a block works on one chunk of one tensor.
//
// A step is three launches. `look` reads gradients (LARS: and weights), and keeps of every chunk the sums of squares and whether a gradient
// is not finite. `judge`, one block, adds the sums in order, makes LARS' ratios of them, and writes down the first gradient that is not
// finite. `update` and `mix` change nothing once there was one: so a bad step leaves no trace, and nobody has to wait for the news.

#include "../cuda/common.cuh"
#include "optimizer_index.h"

// Addresses of gradients, or of what a moving average follows.
struct Sources {
    unsigned long long at[OPTIMIZER_TENSORS];
};

struct Rules {
    Rule at[OPTIMIZER_RULES];
};

constexpr int THREADS = 256;
// Vectors of each stream that a thread has under way.
constexpr int BATCH = 2;

template <typename T> struct Streams {
    T* w;
    const T* g;
    T* b; // Null: none.
    int length;
};

template <typename T>
__device__ __forceinline__ Streams<T> streams_of(const Entry& entry, unsigned long long source) {
    const Piece piece = piece_of(blockIdx.x, entry.first, entry.length);
    T* w = reinterpret_cast<T*>(entry.weight);
    T* b = reinterpret_cast<T*>(entry.buffer);
    return {w ? w + piece.start : w, reinterpret_cast<const T*>(source) + piece.start, b ? b + piece.start : b, piece.length};
}

// Calls f(w, g, b) for every value of a chunk, 16 bytes at a time where all streams begin so. Reads w where `W`, b where there is one,
// and writes both where `WRITES`.
template <bool W, bool WRITES, typename T, typename F>
__device__ __forceinline__ void each(const Streams<T>& s, F f) {
    constexpr int V = WIDTH<T>;
    const unsigned long long low_bits =
        ((unsigned long long)s.g | (W ? (unsigned long long)s.w : 0) | (unsigned long long)s.b) % 16;
    const int vectors = low_bits == 0 ? s.length / V : 0;
    for (int i = 0; vector_start(0, i, THREADS, V) < vectors * V; i += BATCH) {
        Vector<T, V> w[BATCH], g[BATCH], b[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const int at = vector_start(threadIdx.x, i + k, THREADS, V);
            if (at >= vectors * V) continue;
            g[k] = load<T, V>(s.g + at);
            if (W) w[k] = load<T, V>(s.w + at);
            if (s.b) b[k] = load<T, V>(s.b + at);
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const int at = vector_start(threadIdx.x, i + k, THREADS, V);
            if (at >= vectors * V) continue;
#pragma unroll
            for (int j = 0; j < V; j++) f(w[k].at[j], g[k].at[j], b[k].at[j]);
            if (WRITES) store(s.w + at, w[k]);
            if (WRITES && s.b) store(s.b + at, b[k]);
        }
    }
    for (int at = vectors * V + threadIdx.x; at < s.length; at += THREADS) {
        T w = W ? s.w[at] : T(0), b = s.b ? s.b[at] : T(0);
        f(w, s.g[at], b);
        if (WRITES) s.w[at] = w;
        if (WRITES && s.b) s.b[at] = b;
    }
}

template <typename T> __device__ __forceinline__ bool is_finite(T x) { return x - x == T(0); }

template <typename T>
__device__ void look(const Sources& sources, const Rules& rules, const Entry* entries, const unsigned* owners, double* squares,
                     unsigned* bad) {
    __shared__ double room[32];
    const unsigned tensor = owners[blockIdx.x];
    const Entry entry = entries[tensor];
    Streams<T> s = streams_of<T>(entry, sources.at[tensor]);
    s.b = nullptr;
    const long long kind = rules.at[entry.rule].kind;
    const double decay = kind & APART ? 0.0 : rules.at[entry.rule].decay;
    bool fine = true;
    double w2 = 0.0, g2 = 0.0;
    if (kind & ADAPTS) {
        each<true, false>(s, [&](T w, T g, T) {
            fine = fine && is_finite(g);
            w2 += (double)w * (double)w;
            // Without decay the weight is not read into the sum: 0 times infinity is NaN.
            const double d = decay != 0.0 ? (double)g + decay * (double)w : (double)g;
            g2 += d * d;
        });
    } else {
        each<false, false>(s, [&](T, T g, T) { fine = fine && is_finite(g); });
    }
    const int any = __syncthreads_or(!fine);
    w2 = block_sum(w2, room);
    g2 = block_sum(g2, room);
    if (threadIdx.x == 0) {
        squares[2 * (long long)blockIdx.x] = w2;
        squares[2 * (long long)blockIdx.x + 1] = g2;
        bad[blockIdx.x] = any != 0;
    }
}

// One block: a warp for a tensor at a time. `fault` becomes `code` plus the number of the first tensor whose gradient is not finite, unless
// an earlier step has written there.
extern "C" __global__ void optimizer_judge(Rules rules, const Entry* entries, int tensors, const double* squares,
                                           const unsigned* bad, Scale* scales, long long* fault, long long code) {
    __shared__ int firsts[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    int first = tensors;
    for (int tensor = warp; tensor < tensors; tensor += warps) {
        const Entry entry = entries[tensor];
        const long long end = entry.first + chunks_of(entry.length);
        double w2 = 0.0, g2 = 0.0;
        bool fine = true;
        for (long long chunk = entry.first + lane; chunk < end; chunk += 32) {
            w2 += squares[2 * chunk];
            g2 += squares[2 * chunk + 1];
            fine = fine && bad[chunk] == 0;
        }
        w2 = warp_sum(w2);
        g2 = warp_sum(g2);
        if (__any_sync(FULL_WARP, !fine) && first == tensors) first = tensor;
        if (lane == 0) scales[tensor] = scale_of(rules.at[entry.rule], sqrt(w2), sqrt(g2));
    }
    if (lane == 0) firsts[warp] = first;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < warps; i++) first = min(first, firsts[i]);
    if (first < tensors && *fault == 0) *fault = code + first;
}

template <typename T>
__device__ void update(const Sources& sources, const Rules& rules, const Entry* entries, const unsigned* owners,
                       const Scale* scales, const long long* fault) {
    if (*fault != 0) return;
    const unsigned tensor = owners[blockIdx.x];
    const Entry entry = entries[tensor];
    const Streams<T> s = streams_of<T>(entry, sources.at[tensor]);
    const Scale found = scales[tensor];
    const T scale = (T)found.scale, decay = (T)found.decay;
    const Rule& rule = rules.at[entry.rule];
    const T momentum = (T)rule.momentum, inside = (T)rule.inside, outside = (T)rule.outside;
    const bool decays = found.decay != 0.0, nesterov = rule.kind & NESTEROV, buffered = s.b != nullptr;
    each<true, true>(s, [=](T& w, T g, T& b) {
        const T dp = inside * (scale * (decays ? g + decay * w : g));
        const T moved = buffered ? momentum * b + dp : dp;
        b = moved;
        w -= outside * (nesterov && buffered ? dp + momentum * moved : moved);
    });
}

template <typename T>
__device__ void mix(const Sources& sources, const Entry* entries, const unsigned* owners, double tau, const long long* fault) {
    if (*fault != 0) return;
    const unsigned tensor = owners[blockIdx.x];
    const T keep = (T)tau, take = (T)(1.0 - tau);
    const Streams<T> s = streams_of<T>(entries[tensor], sources.at[tensor]);
    each<true, true>(s, [=](T& w, T g, T&) { w = keep * w + take * g; });
}

#define OPTIMIZER(SUFFIX, T)                                                                                           \
    extern "C" __global__ void optimizer_look_##SUFFIX(const __grid_constant__ Sources sources,                        \
                                                       const __grid_constant__ Rules rules, const Entry* entries,      \
                                                       const unsigned* owners, double* squares, unsigned* bad) {       \
        look<T>(sources, rules, entries, owners, squares, bad);                                                        \
    }                                                                                                                  \
    extern "C" __global__ void optimizer_update_##SUFFIX(const __grid_constant__ Sources sources,                      \
                                                         const __grid_constant__ Rules rules, const Entry* entries,    \
                                                         const unsigned* owners, const Scale* scales,                  \
                                                         const long long* fault) {                                     \
        update<T>(sources, rules, entries, owners, scales, fault);                                                     \
    }                                                                                                                  \
    extern "C" __global__ void optimizer_mix_##SUFFIX(const __grid_constant__ Sources sources, const Entry* entries,   \
                                                      const unsigned* owners, double tau, const long long* fault) {    \
        mix<T>(sources, entries, owners, tau, fault);                                                                  \
    }

OPTIMIZER(f32, float)
OPTIMIZER(f64, double)
