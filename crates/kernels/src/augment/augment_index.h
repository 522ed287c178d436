// The arithmetic of views: which bytes make which, and how, to the bit as on a CPU (and as Pillow and torchvision have it).
//
// A picture in the making ("canvas") has `size` rows of ceil(size / 4) groups of 4 pixels, 12 bytes each: a thread works on a group.
#pragma once

#include "../cuda/portable.h"

// Products and sums that are rounded one by one. Left alone, a compiler may fuse them, and a byte that is cut off from a number just below the
// next one would be another byte.
#if defined(__CUDA_ARCH__) || defined(DIPTYCH_EMULATOR)
HOST_DEVICE float times(float a, float b) { return __fmul_rn(a, b); }
HOST_DEVICE double times(double a, double b) { return __dmul_rn(a, b); }
#else
HOST_DEVICE float times(float a, float b) { return a * b; }
HOST_DEVICE double times(double a, double b) { return a * b; }
#endif

// Operations of the color jitter.
constexpr int KEEP = 0;
constexpr int BRIGHTNESS = 1;
constexpr int CONTRAST = 2;
constexpr int SATURATION = 3;
constexpr int HUE = 4;

// How one view is made. The host writes it in words of 4 bytes.
struct Plan {
    long long source;  // The byte of the crop's upper left corner.
    long long between; // Where the crop's rows go once they have been resampled.
    long long weights; // Where its weights go.
    int pitch;         // Bytes of a row of the picture.
    int width, height; // Of the crop.
    int most_x, most_y; // Inputs of an output at most, along rows and columns.
    int bicubic, flip;
    int order[4];    // Operations, the contrast at most once,
    float factor[4]; // and how strong they are; of the hue a shift in 255ths of a turn.
    int grayscale;
    int blurs;
    unsigned radius, near, far; // Of the box filter; weights in 2^-24.
    int threshold; // Values from here on are inverted.
    int unused;    // The size is a multiple of 8.
};

// ---- places -----------------------------------------------------------------------------------------------------

HOST_DEVICE constexpr int groups_of(int size) { return ceil_div(size, 4); }

// Bytes of a row of a canvas, and of a resampled row of a crop.
HOST_DEVICE constexpr int stride_of(int size) { return groups_of(size) * 12; }

// Weight `k` of output `i` of a view of `size`, along rows or along columns. Neighboring outputs are neighbors.
HOST_DEVICE constexpr long long weight_at(const Plan& plan, int size, bool columns, int k, int i) {
    return plan.weights + ((long long)(columns ? plan.most_x : 0) + k) * size + i;
}

// The first input of output `i` of view `view`, and the one after it is how many they are.
HOST_DEVICE constexpr long long span_at(int view, int size, bool columns, int i) {
    return (((long long)view * 2 + columns) * size + i) * 2;
}

// ---- resampling -------------------------------------------------------------------------------------------------

constexpr int PRECISION = 22;

HOST_DEVICE double magnitude(double x) { return x < 0.0 ? -x : x; }

// The triangle, or Keys' cubic with a = -0.5.
HOST_DEVICE double filter(bool bicubic, double x) {
    x = magnitude(x);
    if (!bicubic) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return times(times(times(1.5, x) - 2.5, x), x) + 1.0;
    if (x < 2.0) return times(times(times(x - 5.0, x) + 8.0, x) - 4.0, -0.5);
    return 0.0;
}

// One output of a resampled line: a weighted sum of the inputs from `first` on.
struct Span {
    double center, inverse, sum;
    int first, count;
    bool bicubic;

    HOST_DEVICE Span(int from, int to, int i, bool bicubic) : sum(0.0), bicubic(bicubic) {
        const double scale = (double)from / (double)to;
        const double stretch = scale > 1.0 ? scale : 1.0;
        const double reach = times(bicubic ? 2.0 : 1.0, stretch);
        inverse = 1.0 / stretch;
        center = times((double)i + 0.5, scale);
        const double low = center - reach + 0.5;
        first = low > 0.0 ? (int)low : 0;
        const int last = (int)(center + reach + 0.5);
        count = (last < from ? last : from) - first;
        for (int k = 0; k < count; k++) sum += exact(k);
    }

    HOST_DEVICE double exact(int k) const { return filter(bicubic, times((double)(k + first) - center + 0.5, inverse)); }

    // In 2^-22.
    HOST_DEVICE int weight(int k) const {
        const double w = times(sum == 0.0 ? exact(k) : exact(k) / sum, (double)(1 << PRECISION));
        return (int)(w < 0.0 ? w - 0.5 : w + 0.5);
    }
};

HOST_DEVICE constexpr int clamp_byte(int v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

// A sum of weighted bytes, rounded; it begins at half.
constexpr int HALF = 1 << (PRECISION - 1);
HOST_DEVICE constexpr int rounded(int sum) { return clamp_byte(sum >> PRECISION); }

// ---- colors -----------------------------------------------------------------------------------------------------

struct Pixel {
    int r, g, b;
};

// ITU-R 601 in 16-bit fixed point.
HOST_DEVICE constexpr int luma(Pixel p) { return (p.r * 19595 + p.g * 38470 + p.b * 7471 + 0x8000) >> 16; }

// dull + factor (value - dull), cut off and truncated.
HOST_DEVICE int blend(int dull, int value, float factor) {
    const float v = (float)dull + times(factor, (float)value - (float)dull);
    return v <= 0.0f ? 0 : v >= 255.0f ? 255 : (int)v;
}

HOST_DEVICE Pixel blend(Pixel dull, Pixel p, float factor) {
    return Pixel{blend(dull.r, p.r, factor), blend(dull.g, p.g, factor), blend(dull.b, p.b, factor)};
}

// Half up, of numbers in [0, 255].
HOST_DEVICE int half_up(double x) { return (int)(x + 0.5); }

// To HSV in bytes, on by `shift` steps of hue, and back, as Pillow does it.
HOST_DEVICE Pixel turn(Pixel p, int shift) {
    const int high = p.r > p.g ? (p.r > p.b ? p.r : p.b) : (p.g > p.b ? p.g : p.b);
    const int low = p.r < p.g ? (p.r < p.b ? p.r : p.b) : (p.g < p.b ? p.g : p.b);
    const int range = high - low > 1 ? high - low : 1;
    const float middle = (float)(high - (p.r + p.g + p.b - high - low)) / (float)range;
    float h;
    if (p.r == high) {
        h = p.b == low ? 1.0f - middle : middle - 1.0f;
    } else if (p.g == high) {
        h = p.b == low ? 1.0f + middle : 3.0f - middle;
    } else {
        h = p.r == low ? 3.0f + middle : 5.0f - middle;
    }
    const double raised = (double)h / 6.0 + 1.0;
    const float turns = (float)(raised >= 1.0 ? raised - 1.0 : raised);
    const int hue = ((int)times((double)turns, 255.0) + shift) & 255;
    const int saturation = (int)times((double)((float)(high - low) / (float)(high > 1 ? high : 1)), 255.0);
    const int sextant = hue * 6 / 255;
    const float f = (float)((double)(hue * 6) / 255.0 - (double)sextant);
    const float s = (float)((double)saturation / 255.0);
    const double value = (double)high;
    const int a = half_up(times(value, 1.0 - (double)s));
    const int q = half_up(times(value, 1.0 - (double)times(s, f)));
    const int t = half_up(times(value, 1.0 - times((double)s, 1.0 - (double)f)));
    switch (sextant) {
    case 1: return Pixel{q, high, a};
    case 2: return Pixel{a, high, t};
    case 3: return Pixel{a, q, high};
    case 4: return Pixel{t, a, high};
    case 5: return Pixel{high, a, q};
    default: return Pixel{high, t, a};
    }
}

// The place of the contrast among the operations, which asks for the mean of what those before it made; 4: none.
HOST_DEVICE constexpr int contrast_of(const Plan& plan) {
    int at = 0;
    while (at < 4 && plan.order[at] != CONTRAST) at++;
    return at;
}

// Operations `from` to `to` (not itself); `gray`: the rounded mean luma, for the contrast.
HOST_DEVICE Pixel jittered(const Plan& plan, Pixel p, int from, int to, int gray) {
    for (int k = from; k < to; k++) {
        const int op = plan.order[k];
        if (op == HUE) {
            p = turn(p, (int)plan.factor[k]);
        } else if (op != KEEP) {
            const int dull = op == BRIGHTNESS ? 0 : op == CONTRAST ? gray : luma(p);
            p = blend(Pixel{dull, dull, dull}, p, plan.factor[k]);
        }
    }
    return p;
}

// The mean of a view's bytes, rounded half up.
HOST_DEVICE int mean_of(double sum, int size) { return (int)(sum / (double)((long long)size * size) + 0.5); }

HOST_DEVICE constexpr int solarized(int v, int threshold) { return v < threshold ? v : 255 - v; }

// ---- blur -------------------------------------------------------------------------------------------------------

// Position `x` of a line of `size`, whose ends go on for ever.
HOST_DEVICE constexpr int inside(int x, int size) { return x < 0 ? 0 : x < size ? x : size - 1; }

// One output of a box filter from `at(position)`, at `x` in a line of `size`.
template <typename F> HOST_DEVICE int boxed(const Plan& plan, int x, int size, F at) {
    const int radius = (int)plan.radius;
    unsigned sum = 0;
    for (int k = -radius; k <= radius; k++) sum += (unsigned)at(inside(x + k, size));
    const unsigned ends = (unsigned)at(inside(x - radius - 1, size)) + (unsigned)at(inside(x + radius + 1, size));
    return (int)((sum * plan.near + ends * plan.far + (1u << 23)) >> 24);
}

constexpr int PASSES = 3;
