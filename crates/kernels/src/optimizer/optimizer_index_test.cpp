// optimizer_index.h against plain counting, and its ratios against the formulas by hand.

#include "optimizer_index.h"

#include <limits>
#include <stdio.h>
#include <vector>

static int failures = 0;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

// The chunks of tensors of these lengths cover every value once, in order.
static void pieces_cover_all_values() {
    const long long lengths[] = {1, OPTIMIZER_CHUNK, 7, OPTIMIZER_CHUNK + 1, 3 * OPTIMIZER_CHUNK - 1, 0, 64, 5'000'000'000};
    long long first = 0;
    for (long long length : lengths) {
        long long next = 0;
        for (long long chunk = first; chunk < first + chunks_of(length); chunk++) {
            const Piece piece = piece_of(chunk, first, length);
            CHECK(piece.start == next, "length %lld, chunk %lld", length, chunk - first);
            CHECK(piece.length > 0 && piece.length <= OPTIMIZER_CHUNK, "length %lld, chunk %lld", length, chunk - first);
            next = piece.start + piece.length;
        }
        CHECK(next == length, "length %lld ends at %lld", length, next);
        first += chunks_of(length);
    }
}

// The vectors of all threads are disjoint, side by side, and cover a chunk.
static void vectors_cover_a_chunk() {
    for (int width : {2, 4}) {
        std::vector<int> seen(OPTIMIZER_CHUNK);
        const int threads = 256;
        for (int i = 0; vector_start(0, i, threads, width) < OPTIMIZER_CHUNK; i++)
            for (int thread = 0; thread < threads; thread++)
                for (int j = 0; j < width; j++) seen[vector_start(thread, i, threads, width) + j]++;
        for (int at = 0; at < OPTIMIZER_CHUNK; at++) CHECK(seen[at] == 1, "value %d is seen %d times", at, seen[at]);
        CHECK(vector_start(1, 3, threads, width) - vector_start(0, 3, threads, width) == width, "neighbors");
    }
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-15 * fabs(b); }

static void ratios_are_those_of_the_formulas() {
    Rule rule{0.5, 0.9, 1.0, 0.3, 0.02, 0.3, ADAPTS};
    CHECK(near(scale_of(rule, 3.0, 2.0).scale, 0.02 * 3.0 / 2.0), "joint");
    CHECK(scale_of(rule, 3.0, 2.0).decay == 0.5, "joint");
    for (double zero : {0.0, -0.0}) {
        CHECK(scale_of(rule, zero, 2.0).scale == 1.0 && scale_of(rule, zero, 2.0).decay == 0.5, "joint without a weight");
        CHECK(scale_of(rule, 2.0, zero).scale == 1.0, "joint without a gradient");
    }
    rule.kind = ADAPTS | APART;
    CHECK(near(scale_of(rule, 3.0, 2.0).scale, 0.02 * 3.0 / (2.0 + 0.5 * 3.0 + 1e-8)), "apart");
    CHECK(scale_of(rule, 3.0, 0.0).scale == 1.0 && scale_of(rule, 3.0, 0.0).decay == 0.0, "apart without a gradient");
    rule.kind = ADAPTS | CLIPS;
    CHECK(near(scale_of(rule, 3.0, 2.0).scale, 0.02 * 3.0 / 2.0 / 0.3), "clipped below");
    CHECK(scale_of(rule, 300.0, 2.0).scale == 1.0, "clipped");
    rule.rate = 0.0;
    CHECK(scale_of(rule, 3.0, 2.0).scale == 1.0, "clipped at a rate of zero");
    rule.kind = 0;
    CHECK(scale_of(rule, 3.0, 2.0).scale == 1.0 && scale_of(rule, 3.0, 2.0).decay == 0.5, "not adapted");
    rule.kind = ADAPTS;
    CHECK(scale_of(rule, 1.0, std::numeric_limits<double>::infinity()).scale == 0.0, "a gradient whose sum overflows");
}

int main() {
    pieces_cover_all_values();
    vectors_cover_a_chunk();
    ratios_are_those_of_the_formulas();
    return failures > 0;
}
