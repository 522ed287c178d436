// Stands in for cuDNN: descriptors and convolutions in both directions.
#include "convolution.h"
#include "later.h"

#include <cstdio>

using convolution::Shape;
using convolution::Tensor;
using values::Type;

namespace {

enum { SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000 };
enum { NCHW = 0, NHWC = 1 };
// Kinds of arithmetic: only the last forbids TF32 for floats.
enum { MATH_DEFAULT = 0, MATH_TENSOR = 1, MATH_FMA = 3 };

struct Handle {
    void* stream;
};

struct Convolution {
    Shape shape;
    int math, sums;
    bool flipped;
};

// cudnnConvolution{Fwd,BwdData,BwdFilter}AlgoPerf_t, which are alike.
struct Performance {
    int algorithm, status;
    float ms;
    size_t memory;
    int deterministic, math, reserved[3];
};

enum class Direction { Forward, Data, Filter };

bool type_of(int number, Type& type) {
    switch (number) {
    case 0: return type = Type::F32, true;
    case 2: return type = Type::F16, true;
    case 9: return type = Type::BF16, true;
    default: return false;
    }
}

int refuse(const char* why) {
    fprintf(stderr, "emulator: cuDNN: %s\n", why);
    return BAD_PARAM;
}

int set(Tensor* t, int format, int type, const int (&size)[4]) {
    if (!type_of(type, t->type) || (format != NCHW && format != NHWC)) return NOT_SUPPORTED;
    for (int i = 0; i < 4; i++) {
        if (size[i] < 1) return refuse("a size below 1");
        t->size[i] = size[i];
    }
    const ptrdiff_t c = size[1], h = size[2], w = size[3];
    if (format == NHWC) t->step[0] = h * w * c, t->step[1] = 1, t->step[2] = w * c, t->step[3] = c;
    else t->step[0] = c * h * w, t->step[1] = h * w, t->step[2] = w, t->step[3] = 1;
    return SUCCESS;
}

int output_size(const Shape& s, int i, int in, int filter) {
    return (in + 2 * s.pad[i] - s.dilation[i] * (filter - 1) - 1) / s.stride[i] + 1;
}

// Programs ask for mixtures of types to see whether there is such an algorithm, and are refused without a sentence.
bool mixed(const Tensor& x, const Tensor& w, const Tensor& y) { return x.type != w.type || x.type != y.type; }

// What does not go together, in a sentence; null if all is well.
const char* check(const Convolution& conv, const Tensor& x, const Tensor& w, const Tensor& y) {
    if (conv.flipped) return "only cross-correlation is emulated";
    if (conv.sums != 0) return "sums must be floats";
    if (x.size[0] != y.size[0]) return "input and output have different numbers of images";
    if (x.size[1] != w.size[1] * conv.shape.groups) return "the channels of the input are not those of the filter";
    if (y.size[1] != w.size[0]) return "the channels of the output are not those of the filter";
    for (int i = 0; i < 2; i++)
        if (y.size[2 + i] != output_size(conv.shape, i, x.size[2 + i], w.size[2 + i])) return "the output has not the size that follows";
    return nullptr;
}

// The two algorithms of each direction: the faster one takes memory, as the real ones do.
size_t memory_of(Direction direction, int algorithm, const Tensor& x, const Tensor& w) {
    if (algorithm != 1) return 0;
    if (direction == Direction::Filter) return (size_t)w.size[0] * (size_t)w.size[1] * (size_t)w.size[2] * (size_t)w.size[3] * 4;
    return 256 + (size_t)x.size[2] * (size_t)x.size[3] * 4;
}

int offer(Direction direction, const Convolution& conv, const Tensor& x, const Tensor& w, const Tensor& y, int asked, int* given,
          Performance* results, size_t limit) {
    if (mixed(x, w, y)) return BAD_PARAM;
    if (const char* why = check(conv, x, w, y)) return refuse(why);
    *given = 0;
    for (int algorithm : {1, 0}) {
        const size_t memory = memory_of(direction, algorithm, x, w);
        if (*given == asked || memory > limit) continue;
        const bool deterministic = direction == Direction::Forward || algorithm == 1;
        results[(*given)++] = {algorithm, SUCCESS, algorithm ? 1.0f : 2.0f, memory, deterministic, conv.math, {}};
    }
    return SUCCESS;
}

int size_of(Direction direction, const Convolution& conv, const Tensor& x, const Tensor& w, const Tensor& y, int algorithm, size_t* bytes) {
    if (mixed(x, w, y)) return BAD_PARAM;
    if (const char* why = check(conv, x, w, y)) return refuse(why);
    if (algorithm != 0 && algorithm != 1) return NOT_SUPPORTED;
    return *bytes = memory_of(direction, algorithm, x, w), SUCCESS;
}

// Checks a call, and uses its workspace up in its place in the stream.
int prepare(const Handle& handle, Direction direction, const Convolution& conv, const Tensor& x, const Tensor& w, const Tensor& y, int algorithm,
            void* memory, size_t bytes, Shape& shape) {
    size_t needed;
    if (const int code = size_of(direction, conv, x, w, y, algorithm, &needed)) return code;
    if (bytes < needed || (needed && !memory)) return refuse("the workspace is smaller than what was asked for");
    if (needed) later(handle.stream, [=] { memset(memory, 0xff, needed); });
    shape = conv.shape;
    shape.tf32 = conv.math != MATH_FMA;
    return SUCCESS;
}

float number(const void* p) { return *static_cast<const float*>(p); }

} // namespace

#define DIPTYCH_DESCRIPTOR(name, T)                                                                                    \
    int cudnnCreate##name##Descriptor(T** out) { return *out = new T{}, SUCCESS; }                                     \
    int cudnnDestroy##name##Descriptor(T* it) { return delete it, SUCCESS; }

// One direction: the algorithms, found by rule or by trial, and their memory. x, w and y are the roles of a forward pass.
#define DIPTYCH_ALGORITHMS(word, direction, A, B, C, x, w, y)                                                          \
    int cudnnGetConvolution##word##AlgorithmMaxCount(Handle*, int* count) { return *count = 2, SUCCESS; }              \
    int cudnnGetConvolution##word##Algorithm_v7(Handle*, Tensor* A, Tensor* B, Convolution* conv, Tensor* C, int asked, \
                                                int* given, Performance* results) {                                    \
        return offer(direction, *conv, *x, *w, *y, asked, given, results, SIZE_MAX);                                   \
    }                                                                                                                  \
    int cudnnFindConvolution##word##Algorithm(Handle*, Tensor* A, Tensor* B, Convolution* conv, Tensor* C, int asked,  \
                                              int* given, Performance* results) {                                      \
        return offer(direction, *conv, *x, *w, *y, asked, given, results, SIZE_MAX);                                   \
    }                                                                                                                  \
    int cudnnFindConvolution##word##AlgorithmEx(Handle* handle, Tensor* A, const void*, Tensor* B, const void*,               \
                                                Convolution* conv, Tensor* C, void* result, int asked, int* given,     \
                                                Performance* results, void*, size_t bytes) {                           \
        /* A trial overwrites the result. */                                                                           \
        later(handle->stream, [result, bytes = values::size(C->type)] { memset(result, 0xff, bytes); });               \
        return offer(direction, *conv, *x, *w, *y, asked, given, results, bytes);                                      \
    }                                                                                                                  \
    int cudnnGetConvolution##word##WorkspaceSize(Handle*, Tensor* A, Tensor* B, Convolution* conv, Tensor* C,          \
                                                 int algorithm, size_t* bytes) {                                       \
        return size_of(direction, *conv, *x, *w, *y, algorithm, bytes);                                                \
    }

extern "C" {

size_t cudnnGetVersion() { return 91900; }
size_t cudnnGetCudartVersion() { return 13000; }
const char* cudnnGetErrorString(int code) {
    return code == SUCCESS ? "CUDNN_STATUS_SUCCESS" : code == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : "CUDNN_STATUS_NOT_SUPPORTED";
}
int cudnnCreate(Handle** handle) { return *handle = new Handle{}, SUCCESS; }
int cudnnDestroy(Handle* handle) { return delete handle, SUCCESS; }
int cudnnSetStream(Handle* handle, void* stream) { return handle->stream = stream, SUCCESS; }
int cudnnGetStream(Handle* handle, void** stream) { return *stream = handle->stream, SUCCESS; }

DIPTYCH_DESCRIPTOR(Tensor, Tensor)
DIPTYCH_DESCRIPTOR(Filter, Tensor)
DIPTYCH_DESCRIPTOR(Convolution, Convolution)

int cudnnSetTensor4dDescriptor(Tensor* t, int format, int type, int n, int c, int h, int w) {
    return set(t, format, type, {n, c, h, w});
}
int cudnnSetTensor4dDescriptorEx(Tensor* t, int type, int n, int c, int h, int w, int by_n, int by_c, int by_h, int by_w) {
    if (const int code = set(t, NCHW, type, {n, c, h, w})) return code;
    return t->step[0] = by_n, t->step[1] = by_c, t->step[2] = by_h, t->step[3] = by_w, SUCCESS;
}
int cudnnSetFilter4dDescriptor(Tensor* t, int type, int format, int k, int c, int h, int w) {
    return set(t, format, type, {k, c, h, w});
}
int cudnnSetConvolution2dDescriptor(Convolution* conv, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                    int dilation_w, int mode, int sums) {
    if (pad_h < 0 || pad_w < 0 || stride_h < 1 || stride_w < 1 || dilation_h < 1 || dilation_w < 1)
        return refuse("padding, stride or dilation out of range");
    conv->shape = {{pad_h, pad_w}, {stride_h, stride_w}, {dilation_h, dilation_w}, 1, false};
    conv->flipped = mode == 0, conv->sums = sums;
    return SUCCESS;
}
int cudnnSetConvolutionMathType(Convolution* conv, int math) { return conv->math = math, SUCCESS; }
int cudnnSetConvolutionGroupCount(Convolution* conv, int groups) { return conv->shape.groups = groups, SUCCESS; }
int cudnnSetConvolutionReorderType(Convolution*, int) { return SUCCESS; }
int cudnnGetConvolution2dForwardOutputDim(Convolution* conv, Tensor* x, Tensor* w, int* n, int* c, int* h, int* width) {
    *n = x->size[0], *c = w->size[0];
    *h = output_size(conv->shape, 0, x->size[2], w->size[2]);
    return *width = output_size(conv->shape, 1, x->size[3], w->size[3]), SUCCESS;
}

DIPTYCH_ALGORITHMS(Forward, Direction::Forward, x, w, y, x, w, y)
DIPTYCH_ALGORITHMS(BackwardData, Direction::Data, w, y, x, x, w, y)
DIPTYCH_ALGORITHMS(BackwardFilter, Direction::Filter, x, y, w, x, w, y)

int cudnnConvolutionForward(Handle* handle, const void* alpha, Tensor* x, const void* xs, Tensor* w, const void* ws,
                            Convolution* conv, int algorithm, void* memory, size_t bytes, const void* beta, Tensor* y, void* ys) {
    Shape shape;
    if (const int code = prepare(*handle, Direction::Forward, *conv, *x, *w, *y, algorithm, memory, bytes, shape)) return code;
    later(handle->stream, [=, a = number(alpha), b = number(beta), x = *x, w = *w, y = *y] {
        convolution::forward(shape, x, xs, w, ws, a, b, y, ys);
    });
    return SUCCESS;
}
int cudnnConvolutionBackwardData(Handle* handle, const void* alpha, Tensor* w, const void* ws, Tensor* dy, const void* dys,
                                 Convolution* conv, int algorithm, void* memory, size_t bytes, const void* beta, Tensor* dx,
                                 void* dxs) {
    Shape shape;
    if (const int code = prepare(*handle, Direction::Data, *conv, *dx, *w, *dy, algorithm, memory, bytes, shape)) return code;
    later(handle->stream, [=, a = number(alpha), b = number(beta), w = *w, dy = *dy, dx = *dx] {
        convolution::backward_data(shape, w, ws, dy, dys, a, b, dx, dxs);
    });
    return SUCCESS;
}
int cudnnConvolutionBackwardFilter(Handle* handle, const void* alpha, Tensor* x, const void* xs, Tensor* dy, const void* dys,
                                   Convolution* conv, int algorithm, void* memory, size_t bytes, const void* beta, Tensor* dw,
                                   void* dws) {
    Shape shape;
    if (const int code = prepare(*handle, Direction::Filter, *conv, *x, *dw, *dy, algorithm, memory, bytes, shape)) return code;
    later(handle->stream, [=, a = number(alpha), b = number(beta), x = *x, dy = *dy, dw = *dw] {
        convolution::backward_filter(shape, x, xs, dy, dys, a, b, dw, dws);
    });
    return SUCCESS;
}

} // extern "C"
