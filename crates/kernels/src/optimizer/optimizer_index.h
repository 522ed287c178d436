// Which values of which tensor a block of the optimizers works on, and what a step makes of a tensor's norms.
//
// All tensors of a launch are cut into chunks, numbered in order; a block takes one. The host writes one entry per tensor, and for every
// chunk the tensor that it belongs to.
#pragma once

#include <math.h>

#include "../cuda/portable.h"

// Values of a chunk.
constexpr long long OPTIMIZER_CHUNK = 8192;
// Gradients whose addresses fit a launch's arguments (4096 bytes) together with the rules.
constexpr int OPTIMIZER_TENSORS = 432;
// Different rules of a launch.
constexpr int OPTIMIZER_RULES = 8;

// What does not change from step to step about a tensor, in words of 8 bytes.
struct Entry {
    unsigned long long weight; // An address, as is the next; 0: none.
    unsigned long long buffer;
    long long length;
    long long first; // The number of its first chunk.
    long long rule;
};

// A range of a tensor's values.
struct Piece {
    long long start;
    int length;
};

// The values of chunk `chunk` of a launch, which belongs to a tensor whose first is `first`.
HOST_DEVICE constexpr Piece piece_of(long long chunk, long long first, long long length) {
    const long long start = (chunk - first) * OPTIMIZER_CHUNK;
    const long long rest = length - start;
    return Piece{start, (int)(rest < OPTIMIZER_CHUNK ? rest : OPTIMIZER_CHUNK)};
}

HOST_DEVICE constexpr long long chunks_of(long long length) { return ceil_div(length, OPTIMIZER_CHUNK); }

// Where vector `i` of a thread begins in a piece, for vectors of `width` values and `threads` threads side by side.
HOST_DEVICE constexpr int vector_start(int thread, int i, int threads, int width) { return (i * threads + thread) * width; }

// The settings of a step, which many tensors share.
struct Rule {
    double decay, momentum, inside, outside, eta, rate;
    long long kind; // Of the following.
};

constexpr long long NESTEROV = 1;
constexpr long long ADAPTS = 2;   // LARS' ratio is applied.
constexpr long long APART = 4;    // The ratio divides by |g| + decay |w|, not by |g + decay w|.
constexpr long long CLIPS = 8;    // The ratio becomes min(ratio / rate, 1).

// What a tensor's gradient is multiplied by, and the decay that it takes.
struct Scale {
    double scale, decay;
};

// `weight` and `gradient`: the norms that the rule asks for.
HOST_DEVICE Scale scale_of(const Rule& rule, double weight, double gradient) {
    if (!(rule.kind & ADAPTS)) return Scale{1.0, rule.decay};
    const bool apart = rule.kind & APART;
    if (!(weight > 0.0 && gradient > 0.0)) return Scale{1.0, apart ? 0.0 : rule.decay};
    double q = rule.eta * weight / (apart ? gradient + rule.decay * weight + 1e-8 : gradient);
    if (rule.kind & CLIPS) q = fmin(q / rule.rate, 1.0);
    return Scale{q, rule.decay};
}
