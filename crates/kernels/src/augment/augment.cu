// Random views of decoded pictures, from bytes to normalized numbers: resized crop, flip, color jitter, grayscale, blur, solarization.
//
// The view is the grid's second dimension. Every kernel reads bytes and writes bytes, as the CPU does between its operations, so that both round in
// the same places; the last to touch a view writes the numbers. augment_index.h has the arithmetic.

#include "../cuda/common.cuh"
#include "augment_index.h"

typedef unsigned char byte;

constexpr int THREADS = 256;
// Rows of the crop that a thread resamples with the same weights.
constexpr int ROWS = 4;
constexpr int PLAN_WORDS = sizeof(Plan) / 4;

// What the channels are shifted by and divided by.
struct Channels {
    float mean[3], deviation[3];
};

// The plan of the block's view, in shared memory.
__device__ __forceinline__ const Plan& planned(const Plan* plans) {
    __shared__ unsigned long long words[sizeof(Plan) / 8];
    if (threadIdx.x < PLAN_WORDS) {
        reinterpret_cast<unsigned*>(words)[threadIdx.x] = reinterpret_cast<const unsigned*>(plans + blockIdx.y)[threadIdx.x];
    }
    __syncthreads();
    return *reinterpret_cast<const Plan*>(words);
}

__device__ __forceinline__ byte* canvas_of(byte* canvas, int size) {
    return canvas + (long long)blockIdx.y * size * stride_of(size);
}

// Pixel 0 to 3 of the 12 bytes of a group.
__device__ __forceinline__ Pixel pixel_of(const unsigned (&words)[3], int i) {
    int v[3];
#pragma unroll
    for (int c = 0; c < 3; c++) v[c] = words[(3 * i + c) / 4] >> (3 * i + c) % 4 * 8 & 255;
    return Pixel{v[0], v[1], v[2]};
}

__device__ __forceinline__ void put_pixel(unsigned (&words)[3], int i, Pixel p) {
    const int v[3] = {p.r, p.g, p.b};
#pragma unroll
    for (int c = 0; c < 3; c++) {
        const int bits = (3 * i + c) % 4 * 8;
        words[(3 * i + c) / 4] = (words[(3 * i + c) / 4] & ~(255u << bits)) | ((unsigned)v[c] << bits);
    }
}

__device__ __forceinline__ float normalized(const Plan& plan, const Channels& channels, int v, int c) {
    return ((float)solarized(v, plan.threshold) / 255.0f - channels.mean[c]) / channels.deviation[c];
}

// One thread for an output's weights, along rows and then along columns.
extern "C" __global__ void augment_weights(const Plan* plans, int size, int* weights, int* spans) {
    const Plan& plan = planned(plans);
    const int at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= 2 * size) return;
    const bool columns = at >= size;
    const int i = columns ? at - size : at;
    const Span span(columns ? plan.height : plan.width, size, i, plan.bicubic != 0);
    const long long to = span_at(blockIdx.y, size, columns, i);
    spans[to] = span.first;
    spans[to + 1] = span.count;
    for (int k = 0; k < span.count; k++) weights[weight_at(plan, size, columns, k, i)] = span.weight(k);
}

// The crop's rows to the view's width, mirrored where the view is.
extern "C" __global__ void augment_rows(const byte* bytes, const Plan* plans, const int* weights, const int* spans, int size,
                                        byte* between) {
    const Plan& plan = planned(plans);
    const int top = blockIdx.x * ROWS;
    if (top >= plan.height) return;
    const int stride = stride_of(size);
    byte* out = between + plan.between + (long long)top * stride;
    for (int x = threadIdx.x; x < groups_of(size) * 4; x += THREADS) {
        int sums[ROWS][3];
        if (x < size) {
            const long long span = span_at(blockIdx.y, size, false, x);
            const int first = spans[span], count = spans[span + 1];
            const byte* rows[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                rows[r] = bytes + plan.source + (long long)min(top + r, plan.height - 1) * plan.pitch + 3ll * first;
                sums[r][0] = sums[r][1] = sums[r][2] = HALF;
            }
            for (int k = 0; k < count; k++) {
                const int weight = weights[weight_at(plan, size, false, k, x)];
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
#pragma unroll
                    for (int c = 0; c < 3; c++) sums[r][c] += weight * rows[r][3 * k + c];
                }
            }
        }
        const int to = x < size && plan.flip ? size - 1 - x : x;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (top + r >= plan.height) break;
#pragma unroll
            for (int c = 0; c < 3; c++) out[(long long)r * stride + 3 * to + c] = x < size ? rounded(sums[r][c]) : 0;
        }
    }
}

// The columns of that to the view's height: one thread for 4 bytes of a row.
extern "C" __global__ void augment_columns(const byte* between, const Plan* plans, const int* weights, const int* spans, int size,
                                           byte* canvas) {
    const Plan& plan = planned(plans);
    const int words = stride_of(size) / 4;
    const int at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= size * words) return;
    const int y = at / words, column = at % words;
    const long long span = span_at(blockIdx.y, size, true, y);
    const int first = spans[span], count = spans[span + 1];
    const unsigned* source = reinterpret_cast<const unsigned*>(between + plan.between) + (long long)first * words + column;
    int sums[4] = {HALF, HALF, HALF, HALF};
    for (int k = 0; k < count; k++) {
        const int weight = weights[weight_at(plan, size, true, k, y)];
        const unsigned word = source[(long long)k * words];
#pragma unroll
        for (int i = 0; i < 4; i++) sums[i] += weight * (int)(word >> 8 * i & 255);
    }
    unsigned out = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) out |= (unsigned)rounded(sums[i]) << 8 * i;
    reinterpret_cast<unsigned*>(canvas_of(canvas, size))[at] = out;
}

// The group of 4 pixels that a thread works on, and how many of them are in the view.
struct Group {
    int y, x, pixels;

    __device__ Group(int size) {
        const int at = blockIdx.x * THREADS + threadIdx.x, groups = groups_of(size);
        y = at / groups;
        x = at % groups * 4;
        pixels = y < size ? min(4, size - x) : 0;
    }

    __device__ unsigned* words(byte* canvas, int size) const {
        return reinterpret_cast<unsigned*>(canvas_of(canvas, size) + (long long)y * stride_of(size) + 3 * x);
    }
};

// For views with a contrast: the operations before it, and every block's sum of the luma that they leave.
extern "C" __global__ void augment_gray(const Plan* plans, int size, byte* canvas, float* sums) {
    __shared__ float room[32];
    const Plan& plan = planned(plans);
    const int contrast = contrast_of(plan);
    if (contrast == 4) return;
    const Group group(size);
    // At most 255 for each of a block's 1024 pixels: exact in float.
    float sum = 0.0f;
    if (group.pixels > 0) {
        unsigned* words = group.words(canvas, size);
        unsigned bytes[3] = {words[0], words[1], words[2]};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Pixel p = jittered(plan, pixel_of(bytes, i), 0, contrast, 0);
            put_pixel(bytes, i, p);
            sum += i < group.pixels ? (float)luma(p) : 0.0f;
        }
        if (contrast > 0) {
            for (int i = 0; i < 3; i++) words[i] = bytes[i];
        }
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) sums[(long long)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// What is left of the jitter, and gray; then the bytes, for the blur, or at once the numbers.
template <typename T>
__device__ void color(const Plan* plans, int size, byte* canvas, const float* sums, const Channels& channels, T* out) {
    __shared__ double room[32];
    const Plan& plan = planned(plans);
    const int contrast = contrast_of(plan), begin = contrast % 4;
    int gray = 0;
    if (contrast < 4) {
        // There were as many blocks as there are now.
        double sum = 0.0;
        for (int i = threadIdx.x; i < (int)gridDim.x; i += THREADS) sum += sums[(long long)blockIdx.y * gridDim.x + i];
        gray = mean_of(block_sum(sum, room), size);
    }
    const Group group(size);
    if (group.pixels == 0) return;
    unsigned* words = group.words(canvas, size);
    unsigned bytes[3] = {words[0], words[1], words[2]};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        Pixel p = jittered(plan, pixel_of(bytes, i), begin, 4, gray);
        if (plan.grayscale) {
            const int l = luma(p);
            p = Pixel{l, l, l};
        }
        put_pixel(bytes, i, p);
    }
    if (plan.blurs) {
        for (int i = 0; i < 3; i++) words[i] = bytes[i];
        return;
    }
    Vector<T, 4> numbers[3];
#pragma unroll
    for (int i = 0; i < 12; i++) {
        numbers[i / 4].at[i % 4] = narrow<T>(normalized(plan, channels, bytes[i / 4] >> 8 * (i % 4) & 255, i % 3));
    }
    T* to = out + (((long long)blockIdx.y * size + group.y) * size + group.x) * 3;
    if (size % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 3; i++) store(to + 4 * i, numbers[i]);
    } else {
#pragma unroll
        for (int i = 0; i < 12; i++) {
            if (i < 3 * group.pixels) to[i] = numbers[i / 4].at[i % 4];
        }
    }
}

// The blur's passes along the rows, `rows` of them a block, to and fro between two halves of shared memory.
extern "C" __global__ void augment_blur_rows(const Plan* plans, int size, int rows, byte* canvas) {
    DYNAMIC_SHARED(row_room);
    const Plan& plan = planned(plans);
    if (!plan.blurs) return;
    const int stride = stride_of(size), top = blockIdx.x * rows;
    const int bytes = min(rows, size - top) * stride;
    unsigned* words = reinterpret_cast<unsigned*>(canvas_of(canvas, size) + (long long)top * stride);
    byte *from = row_room, *to = row_room + rows * stride;
    for (int i = threadIdx.x; i < bytes / 4; i += THREADS) reinterpret_cast<unsigned*>(from)[i] = words[i];
    for (int pass = 0; pass < PASSES; pass++) {
        __syncthreads();
        for (int i = threadIdx.x; i < bytes; i += THREADS) {
            const int column = i % stride, x = column / 3;
            const byte* line = from + (i - column) + column % 3;
            to[i] = x < size ? boxed(plan, x, size, [=](int x) { return line[3 * x]; }) : 0;
        }
        byte* next = from;
        from = to;
        to = next;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < bytes / 4; i += THREADS) words[i] = reinterpret_cast<const unsigned*>(from)[i];
}

// The passes along the columns, `width` bytes of every row a block (a power of 2, at least 4), and then the numbers.
template <typename T>
__device__ void blur_columns(const Plan* plans, int size, int width, const byte* canvas, const Channels& channels, T* out) {
    DYNAMIC_SHARED(column_room);
    const Plan& plan = planned(plans);
    if (!plan.blurs) return;
    const int stride = stride_of(size), left = blockIdx.x * width;
    const int bytes = size * width;
    const byte* source = canvas + (long long)blockIdx.y * size * stride + left;
    byte *from = column_room, *to = column_room + bytes;
    for (int i = 4 * threadIdx.x; i < bytes; i += 4 * THREADS) {
        const int y = i / width, column = i % width;
        const bool real = left + column < stride;
        *reinterpret_cast<unsigned*>(from + i) = real ? *reinterpret_cast<const unsigned*>(source + (long long)y * stride + column) : 0;
    }
    for (int pass = 0; pass < PASSES; pass++) {
        __syncthreads();
        for (int i = threadIdx.x; i < bytes; i += THREADS) {
            const byte* line = from + i % width;
            to[i] = boxed(plan, i / width, size, [=](int y) { return line[y * width]; });
        }
        byte* next = from;
        from = to;
        to = next;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < bytes; i += THREADS) {
        const int y = i / width, column = left + i % width;
        if (column >= 3 * size) continue;
        const long long at = ((long long)blockIdx.y * size + y) * size * 3 + column;
        out[at] = narrow<T>(normalized(plan, channels, from[i], column % 3));
    }
}

#define AUGMENT(SUFFIX, T)                                                                                             \
    extern "C" __global__ void augment_color_##SUFFIX(const Plan* plans, int size, byte* canvas,                       \
                                                      const float* sums,                                               \
                                                      const __grid_constant__ Channels channels, T* out) {             \
        color<T>(plans, size, canvas, sums, channels, out);                                                            \
    }                                                                                                                  \
    extern "C" __global__ void augment_blur_columns_##SUFFIX(const Plan* plans, int size, int width,                   \
                                                             const byte* canvas,                                       \
                                                             const __grid_constant__ Channels channels, T* out) {      \
        blur_columns<T>(plans, size, width, canvas, channels, out);                                                    \
    }

AUGMENT(f32, float)
AUGMENT(bf16, bf16)
