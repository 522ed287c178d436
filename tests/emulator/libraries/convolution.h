// Convolutions as loops, in float.
#pragma once

#include "values.h"

namespace convolution {

// Four sizes and the distances between neighbors, in the order N C H W (a filter's: outputs, inputs, height, width).
struct Tensor {
    values::Type type;
    int size[4];
    ptrdiff_t step[4];
};

struct Shape {
    int pad[2], stride[2], dilation[2];
    int groups;
    bool tf32; // Round factors to TF32.
};

void forward(const Shape& shape, const Tensor& x, const void* xs, const Tensor& w, const void* ws, float alpha, float beta,
             const Tensor& y, void* ys);
void backward_data(const Shape& shape, const Tensor& w, const void* ws, const Tensor& dy, const void* dys, float alpha,
                   float beta, const Tensor& dx, void* dxs);
void backward_filter(const Shape& shape, const Tensor& x, const void* xs, const Tensor& dy, const void* dys, float alpha,
                     float beta, const Tensor& dw, void* dws);

} // namespace convolution
