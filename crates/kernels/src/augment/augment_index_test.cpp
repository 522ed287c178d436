// augment_index.h: places are disjoint and inside of their arrays, and the arithmetic has the values that Pillow and torchvision have.

#include "augment_index.h"

#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <set>
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

static int most(int from, int to, bool bicubic) {
    const double scale = (double)from / to;
    return (int)ceil((bicubic ? 2.0 : 1.0) * (scale > 1.0 ? scale : 1.0)) * 2 + 1;
}

// Inputs lie in the line and are no more than there is room for; the weights make 1, and are mirrored at the middle.
static void weights_are_sound() {
    for (bool bicubic : {false, true})
        for (int from : {1, 2, 3, 7, 32, 100, 224, 375, 4000})
            for (int to : {1, 2, 5, 32, 96, 224}) {
                for (int i = 0; i < to; i++) {
                    const Span span(from, to, i, bicubic), mirror(from, to, to - 1 - i, bicubic);
                    CHECK(span.first >= 0 && span.count >= 1 && span.first + span.count <= from, "%d to %d, output %d", from, to, i);
                    CHECK(span.count <= most(from, to, bicubic), "%d to %d, output %d: %d inputs", from, to, i, span.count);
                    long long sum = 0;
                    for (int k = 0; k < span.count; k++) sum += span.weight(k);
                    CHECK(std::llabs(sum - (1 << PRECISION)) <= span.count, "%d to %d, output %d: %lld", from, to, i, sum);
                    for (int k = 0; k < span.count; k++) {
                        const int place = from - 1 - (span.first + k) - mirror.first;
                        const int other = place >= 0 && place < mirror.count ? mirror.weight(place) : 0;
                        CHECK(std::abs(span.weight(k) - other) <= 1, "%d to %d, output %d, input %d", from, to, i, k);
                    }
                }
            }
    // By hand: Pillow's triangle over four inputs has the weights 3, 3, 1 of 7.
    const Span span(4, 2, 0, false);
    CHECK(span.first == 0 && span.count == 3, "%d inputs from %d on", span.count, span.first);
    const int unit = 1 << PRECISION;
    CHECK(std::abs(span.weight(0) - unit * 3 / 7) <= 1 && std::abs(span.weight(2) - unit / 7) <= 1, "%d %d", span.weight(0), span.weight(2));
    // A line of the size that is asked for stays as it is.
    for (bool bicubic : {false, true})
        for (int i = 0; i < 9; i++) {
            const Span same(9, 9, i, bicubic);
            for (int k = 0; k < same.count; k++) CHECK(same.weight(k) == (same.first + k == i ? unit : 0), "output %d, input %d", i, k);
        }
}

// Weights and spans of two views have places of their own.
static void places_are_disjoint() {
    std::set<long long> weights, spans;
    long long used = 0;
    const int size = 5;
    for (int view = 0; view < 2; view++) {
        Plan plan{};
        plan.weights = used, plan.most_x = 3 + view, plan.most_y = 7;
        for (int columns = 0; columns < 2; columns++)
            for (int i = 0; i < size; i++) {
                for (int k = 0; k < (columns ? plan.most_y : plan.most_x); k++)
                    CHECK(weights.insert(weight_at(plan, size, columns, k, i)).second, "view %d, output %d, weight %d", view, i, k);
                for (int part = 0; part < 2; part++) CHECK(spans.insert(span_at(view, size, columns, i) + part).second, "view %d", view);
            }
        used += (plan.most_x + plan.most_y) * size;
        CHECK(*weights.rbegin() == used - 1, "the last weight is at %lld of %lld", *weights.rbegin(), used);
    }
    CHECK(*spans.begin() == 0 && *spans.rbegin() == 2 * 4 * size - 1, "spans end at %lld", *spans.rbegin());
    for (int size = 1; size < 20; size++) CHECK(stride_of(size) >= 3 * size && stride_of(size) % 12 == 0, "size %d", size);
}

static bool is(Pixel p, int r, int g, int b) { return p.r == r && p.g == g && p.b == b; }

static void colors_are_those_of_pillow() {
    CHECK(luma({255, 0, 0}) == 76 && luma({0, 255, 0}) == 150 && luma({0, 0, 255}) == 29, "luma");
    // Truncated and cut off.
    CHECK(blend(0, 10, 1.55f) == 15 && blend(0, 100, 1.55f) == 155 && blend(0, 200, 1.55f) == 255, "brightness");
    CHECK(blend(99, 10, 0.0f) == 99 && blend(200, 10, 3.0f) == 0, "blend");
    for (int v = 0; v < 256; v++) CHECK(blend(77, v, 1.0f) == v, "a factor of 1 changes %d", v);
    // The primaries go round the circle; backwards past zero one step is missing, as the hue wraps after 256.
    CHECK(is(turn({255, 0, 0}, 85), 0, 255, 0) && is(turn({0, 255, 0}, 85), 0, 0, 255), "a third of a turn");
    CHECK(is(turn({255, 0, 0}, -85), 6, 0, 255), "a third of a turn back");
    CHECK(is(turn({77, 77, 77}, 76), 77, 77, 77), "gray has no hue");
    for (int shift = -128; shift < 128; shift += 3)
        for (int i = 0; i < 4096; i++) {
            const Pixel p = turn({i * 37 % 256, i * 91 % 256, i * 13 % 256}, shift);
            const bool bytes = p.r >= 0 && p.r < 256 && p.g >= 0 && p.g < 256 && p.b >= 0 && p.b < 256;
            CHECK(bytes, "color %d, shift %d: %d %d %d", i, shift, p.r, p.g, p.b);
        }
    CHECK(mean_of(397, 2) == 99 && mean_of(398, 2) == 100, "the mean is rounded half up");
    CHECK(solarized(127, 128) == 127 && solarized(128, 128) == 127 && solarized(255, 0) == 0 && solarized(255, 256) == 255, "solarize");
}

static void jitter_runs_in_order() {
    Plan plan{};
    const int order[4] = {SATURATION, CONTRAST, KEEP, BRIGHTNESS};
    const float factor[4] = {0.0f, 0.5f, 9.0f, 2.0f};
    for (int k = 0; k < 4; k++) plan.order[k] = order[k], plan.factor[k] = factor[k];
    CHECK(contrast_of(plan) == 1, "the contrast is number %d", contrast_of(plan));
    CHECK(is(jittered(plan, {255, 0, 0}, 0, 1, 0), 76, 76, 76), "before the contrast");
    CHECK(is(jittered(plan, {76, 76, 76}, 1, 4, 100), 176, 176, 176), "from the contrast on");
    plan.order[1] = HUE, plan.factor[1] = -12.0f;
    CHECK(contrast_of(plan) == 4, "without a contrast");
}

// An even line stays even, and a point keeps its mass, over any radius, beyond both ends too.
static void boxes_are_sound() {
    Plan plan{};
    for (int radius : {0, 1, 2, 5, 100}) {
        plan.radius = radius;
        plan.near = (unsigned)(16777216.0 / (2.0 * radius + 1.6));
        plan.far = (16777216u - (2 * radius + 1) * plan.near) / 2;
        for (int size : {1, 2, 9, 40}) {
            for (int x = 0; x < size; x++) CHECK(boxed(plan, x, size, [](int) { return 255; }) == 255, "radius %d", radius);
            std::vector<int> reads(size);
            boxed(plan, size / 2, size, [&](int x) { return reads.at(x)++ * 0; });
            int all = 0;
            for (int n : reads) all += n;
            CHECK(all == 2 * radius + 3, "radius %d reads %d values", radius, all);
        }
    }
    plan.radius = 1, plan.near = 1 << 22, plan.far = 1 << 21;
    const int line[5] = {0, 0, 160, 0, 0}, expected[5] = {20, 40, 40, 40, 20};
    for (int x = 0; x < 5; x++) CHECK(boxed(plan, x, 5, [&](int at) { return line[at]; }) == expected[x], "a point at %d", x);
}

int main() {
    weights_are_sound();
    places_are_disjoint();
    colors_are_those_of_pillow();
    jitter_runs_in_order();
    boxes_are_sound();
    return failures > 0;
}
