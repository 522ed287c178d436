// The loops. Tensors are copied to channels last first, whatever their layout, so that the innermost loop is a row of channels.
#include "convolution.h"

namespace convolution {
namespace {

using Floats = std::vector<float>;

size_t count(const Tensor& t) { return (size_t)t.size[0] * (size_t)t.size[1] * (size_t)t.size[2] * (size_t)t.size[3]; }

// Calls f(index in channels last, index in memory) for every value.
template <typename F> void each(const Tensor& t, F&& f) {
    size_t i = 0;
    for (int n = 0; n < t.size[0]; n++)
        for (int h = 0; h < t.size[2]; h++)
            for (int w = 0; w < t.size[3]; w++)
                for (int c = 0; c < t.size[1]; c++)
                    f(i++, n * t.step[0] + c * t.step[1] + h * t.step[2] + w * t.step[3]);
}

Floats read(const Tensor& t, const void* values, bool tf32) {
    Floats out(count(t));
    each(t, [&](size_t to, ptrdiff_t from) {
        const float value = values::get<float>(t.type, values, from);
        out[to] = tf32 && t.type == values::Type::F32 ? values::to_tf32(value) : value;
    });
    return out;
}

void write(const Tensor& t, void* values, const Floats& from, float alpha, float beta) {
    each(t, [&](size_t i, ptrdiff_t to) {
        // With a beta of 0, what lies there is not read.
        const float before = beta == 0 ? 0.0f : beta * values::get<float>(t.type, values, to);
        values::set<float>(t.type, values, to, alpha * from[i] + before);
    });
}

struct Sizes {
    int n, h, w, p, q, r, s;   // Images; input, output and filter, height and width.
    int c, k, groups;          // Channels of a group: in, out.
};

Sizes sizes(const Shape& shape, const Tensor& x, const Tensor& w, const Tensor& y) {
    return {x.size[0], x.size[2], x.size[3], y.size[2], y.size[3], w.size[2], w.size[3],
            w.size[1], w.size[0] / shape.groups, shape.groups};
}

double work(const Sizes& z) { return 2.0 * z.n * z.p * z.q * z.r * z.s * z.c * z.k * z.groups; }

// For image n, calls f(input pixel, output pixel, filter position) wherever a filter meets the input.
template <typename F> void meetings(const Shape& shape, const Sizes& z, int n, F&& f) {
    for (int p = 0; p < z.p; p++)
        for (int q = 0; q < z.q; q++)
            for (int r = 0; r < z.r; r++)
                for (int s = 0; s < z.s; s++) {
                    const int h = p * shape.stride[0] - shape.pad[0] + r * shape.dilation[0];
                    const int w = q * shape.stride[1] - shape.pad[1] + s * shape.dilation[1];
                    if (h < 0 || h >= z.h || w < 0 || w >= z.w) continue;
                    f(((size_t)n * z.h + h) * z.w + w, ((size_t)n * z.p + p) * z.q + q, (size_t)r * z.s + s);
                }
}

// to += factor row.
inline void add(float* __restrict to, float factor, const float* __restrict row, int length) {
    for (int i = 0; i < length; i++) to[i] += factor * row[i];
}

} // namespace

void forward(const Shape& shape, const Tensor& x, const void* xs, const Tensor& w, const void* ws, float alpha, float beta,
             const Tensor& y, void* ys) {
    const Sizes z = sizes(shape, x, w, y);
    const Floats from = read(x, xs, shape.tf32), filter = read(w, ws, shape.tf32);
    // [group, r, s, c, k]: a row of outputs for every input.
    const size_t places = (size_t)z.r * z.s;
    Floats turned(filter.size());
    for (int g = 0; g < z.groups; g++)
        for (int k = 0; k < z.k; k++)
            for (size_t at = 0; at < places; at++)
                for (int c = 0; c < z.c; c++)
                    turned[((g * places + at) * z.c + c) * z.k + k] = filter[(((size_t)g * z.k + k) * places + at) * z.c + c];
    Floats to(count(y));
    const size_t in = (size_t)z.c * z.groups, out = (size_t)z.k * z.groups;
    values::divide((size_t)z.n, work(z), [&](size_t first, size_t end) {
        for (size_t n = first; n < end; n++)
            meetings(shape, z, (int)n, [&](size_t pixel, size_t target, size_t at) {
                for (int g = 0; g < z.groups; g++)
                    for (int c = 0; c < z.c; c++)
                        add(&to[target * out + (size_t)g * z.k], from[pixel * in + (size_t)g * z.c + c],
                            &turned[((g * places + at) * z.c + c) * z.k], z.k);
            });
    });
    write(y, ys, to, alpha, beta);
}

void backward_data(const Shape& shape, const Tensor& w, const void* ws, const Tensor& dy, const void* dys, float alpha,
                   float beta, const Tensor& dx, void* dxs) {
    const Sizes z = sizes(shape, dx, w, dy);
    const Floats from = read(dy, dys, shape.tf32), filter = read(w, ws, shape.tf32);
    const size_t places = (size_t)z.r * z.s, in = (size_t)z.c * z.groups, out = (size_t)z.k * z.groups;
    Floats to(count(dx));
    values::divide((size_t)z.n, work(z), [&](size_t first, size_t end) {
        for (size_t n = first; n < end; n++)
            meetings(shape, z, (int)n, [&](size_t pixel, size_t target, size_t at) {
                for (int g = 0; g < z.groups; g++)
                    for (int k = 0; k < z.k; k++)
                        add(&to[pixel * in + (size_t)g * z.c], from[target * out + (size_t)g * z.k + k],
                            &filter[(((size_t)g * z.k + k) * places + at) * z.c], z.c);
            });
    });
    write(dx, dxs, to, alpha, beta);
}

void backward_filter(const Shape& shape, const Tensor& x, const void* xs, const Tensor& dy, const void* dys, float alpha,
                     float beta, const Tensor& dw, void* dws) {
    const Sizes z = sizes(shape, x, dw, dy);
    const Floats from = read(x, xs, shape.tf32), other = read(dy, dys, shape.tf32);
    const size_t places = (size_t)z.r * z.s, in = (size_t)z.c * z.groups, out = (size_t)z.k * z.groups;
    // One sum for each image, added up in double: a GPU's sums are trees, and closer than one long row.
    std::vector<double> sums(count(dw));
    values::divide(out, work(z), [&](size_t first, size_t end) {
        Floats part((end - first) * places * z.c);
        for (int n = 0; n < z.n; n++) {
            std::fill(part.begin(), part.end(), 0.0f);
            meetings(shape, z, n, [&](size_t pixel, size_t target, size_t at) {
                for (size_t k = first; k < end; k++)
                    add(&part[((k - first) * places + at) * z.c], other[target * out + k],
                        &from[pixel * in + k / z.k * z.c], z.c);
            });
            for (size_t i = 0; i < part.size(); i++) sums[first * places * z.c + i] += part[i];
        }
    });
    Floats to(sums.begin(), sums.end());
    write(dw, dws, to, alpha, beta);
}

} // namespace convolution
