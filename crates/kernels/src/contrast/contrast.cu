// Rows of embeddings against columns of embeddings, without their matrix of logits: sums of exponentials of each row,
// and for a gradient the same tiles again, as weights of the columns.
//
// A block has ROWS rows and a part of the columns; parts are put together by the kernels of contrast_rows.cu, in order.
// Logits are counted in powers of 2: `scale` is log2(e) / temperature.

#include "../cuda/common.cuh"
#include "contrast_index.h"
#include "marks.cuh"
#include "tiles.cuh"

namespace contrast {

constexpr float LOWEST = -3.402823466e38f;

// The two sides of the products.
template <typename T> struct Sides {
    const T* rows;    // [n, depth]
    const T* columns; // [m, depth]
    int n;
    int m;
    int depth; // Whole 16 bytes, zeros where embeddings are shorter.
    int tiles; // Tiles of columns that a block takes.
};

// The block's way through its tiles and their chunks, one step's copies ahead of its products.
template <typename P> struct Walk {
    using T = typename P::T;
    static constexpr int A = ROWS * P::STRIDE, B = P::COLUMNS * P::STRIDE;

    const Sides<T>& sides;
    const float* of_columns; // A value for each column that comes with its tile, or null.
    unsigned char* memory;   // 16-byte aligned; with one chunk the rows stay where they are.
    int first, chunks, last; // The first row, and the chunk to end with.
    int stage = 0;

    __device__ Walk(const Sides<T>& sides, const float* of_columns, int last, unsigned char* memory)
        : sides(sides), of_columns(of_columns), memory(memory), first(blockIdx.x * ROWS), chunks(ceil_div(sides.depth, P::DEPTH)), last(last) {}

    // Two stages of columns, and of the values for them, one or two of rows.
    __device__ T* b(int stage) const { return reinterpret_cast<T*>(memory) + stage * B; }
    __device__ float* values(int stage) const { return reinterpret_cast<float*>(memory + 2 * B * sizeof(T)) + stage * P::COLUMNS; }
    __device__ T* a(int stage) const {
        return reinterpret_cast<T*>(memory + 2 * B * sizeof(T) + 2 * P::COLUMNS * sizeof(float)) + (chunks == 1 ? 0 : stage) * A;
    }
    __device__ float* scratch() const { return reinterpret_cast<float*>(a(1) + A) + threadIdx.x / 32 * P::SCRATCH; }

    __device__ int steps(int chunk) const {
        const int left = sides.depth - chunk * P::DEPTH;
        return ceil_div(left < P::DEPTH ? left : P::DEPTH, P::STEP);
    }

    __device__ __forceinline__ void load(int tile, int step, int to, bool with_rows) {
        const int start = chunk_at(step, last, chunks) * P::DEPTH;
        if (with_rows) load_chunk<P, ROWS>(a(to), sides.rows, first, sides.n, sides.depth, start);
        load_chunk<P, P::COLUMNS>(b(to), sides.columns, tile * P::COLUMNS, sides.m, sides.depth, start);
        if (of_columns && threadIdx.x < P::COLUMNS / 4) {
            const int column = tile * P::COLUMNS + 4 * threadIdx.x;
            copy_async16(values(to) + 4 * threadIdx.x, of_columns + (column < sides.m ? column : 0), column < sides.m);
        }
        copy_async_commit();
    }

    // Waits for what was loaded last, and begins to load what comes after it.
    __device__ __forceinline__ void advance(int tile, int end, int step) {
        copy_async_wait<0>();
        __syncthreads();
        const bool whole = step + 1 == chunks;
        const int next = whole ? tile + 1 : tile;
        if (next < end) load(next, whole ? 0 : step + 1, stage ^ 1, chunks > 1);
    }

    // The logits of a tile. Its last chunk of columns stays in `columns()` until the next tile's.
    template <bool UNROLL> __device__ __forceinline__ void multiply(Logits<P>& s, int tile, int end) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int j = 0; j < P::COLUMNS / 8; j++) {
#pragma unroll
                for (int e = 0; e < 4; e++) s[i][j][e] = 0.0f;
            }
        }
        for (int step = 0; step < chunks; step++) {
            advance(tile, end, step);
            const T* rows = a(stage);
            const T* columns = b(stage);
            const int count = steps(chunk_at(step, last, chunks));
            if (UNROLL && count == P::DEPTH / P::STEP) {
#pragma unroll
                for (int k = 0; k < P::DEPTH / P::STEP; k++) multiply_step(P(), s, rows, columns, k);
            } else {
#pragma unroll 1
                for (int k = 0; k < count; k++) multiply_step(P(), s, rows, columns, k);
            }
            stage ^= 1;
        }
    }

    __device__ const T* columns() const { return b(stage ^ 1); }
    __device__ const float* column_values() const { return values(stage ^ 1); }
};

// ---- forward ----------------------------------------------------------------------------------------------------------

// The running maximum and sum of one thread's part of its four rows, [i][half].
struct Running {
    float highest[2][2];
    float sum[2][2];

    __device__ void begin() {
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int h = 0; h < 2; h++) highest[i][h] = LOWEST, sum[i][h] = 0.0f;
        }
    }

    // Takes in a tile; `ceiling`: what no logit exceeds by much, or infinity where a maximum must be found.
    template <typename P> __device__ __forceinline__ void add(const Logits<P>& s, float scale, float ceiling) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = ceiling;
                if (ceiling == INFINITY) {
                    float most = s[i][0][2 * h];
#pragma unroll
                    for (int j = 0; j < P::COLUMNS / 8; j++) most = fmaxf(most, fmaxf(s[i][j][2 * h], s[i][j][2 * h + 1]));
                    top = fmaxf(most * scale, highest[i][h]);
                }
                float part = 0.0f;
#pragma unroll
                for (int j = 0; j < P::COLUMNS / 8; j++) {
                    part += power_of_2(fmaf(s[i][j][2 * h], scale, -top)) + power_of_2(fmaf(s[i][j][2 * h + 1], scale, -top));
                }
                if (ceiling == INFINITY) sum[i][h] *= power_of_2(highest[i][h] - top);
                sum[i][h] += part;
                highest[i][h] = top;
            }
        }
    }

    // The four threads of a row put theirs together.
    __device__ void join() {
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int offset = 1; offset < 4; offset *= 2) {
                    const float other = __shfl_xor_sync(FULL_WARP, highest[i][h], offset);
                    const float more = __shfl_xor_sync(FULL_WARP, sum[i][h], offset);
                    const float top = fmaxf(highest[i][h], other);
                    sum[i][h] = sum[i][h] * power_of_2(highest[i][h] - top) + more * power_of_2(other - top);
                    highest[i][h] = top;
                }
            }
        }
    }
};

// Takes out of a tile what its rows do not see, and keeps the logits of their positives.
template <typename P>
__device__ __forceinline__ void pick(Logits<P>& s, const Marks& marks, int n, float scale, float* positives) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < P::COLUMNS / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int row = blockIdx.x * ROWS + row_of(threadIdx.x, i, e);
                if (marks.has(marks.wanted, i, j, e) && row < n) positives[row] = s[i][j][e] * scale;
                if (marks.has(marks.hidden, i, j, e)) s[i][j][e] = -INFINITY;
            }
        }
    }
}

// Of each row the maximum and the sum of a part of its exponentials, `partial` [parts, n]; and the logits of positives.
template <typename P>
__device__ __forceinline__ void forward(const Sides<typename P::T>& sides, float scale, float ceiling, const Rule& positive, const Rule& excluded, float2* partial, float* positives) {
    DYNAMIC_SHARED(memory);
    const int tile = blockIdx.y * sides.tiles, all = ceil_div(sides.m, P::COLUMNS);
    const int end = tile + sides.tiles < all ? tile + sides.tiles : all;
    Walk<P> walk(sides, nullptr, 0, memory);
    __shared__ Reaches reaches;
    reaches.find(positive, excluded, walk.first, sides.n);
    Running running;
    running.begin();
    walk.load(tile, 0, 0, true);
    for (int at = tile; at < end; at++) {
        Logits<P> s;
        walk.template multiply<true>(s, at, end);
        const int start = at * P::COLUMNS;
        if (start + P::COLUMNS > sides.m || reaches.meet(start, P::COLUMNS)) {
            Marks marks{0, 0};
            marks.template hide_beyond<P>(start, sides.m);
            marks.template by_rows<P>(walk.first, sides.n, start, positive, excluded);
            pick<P>(s, marks, sides.n, scale, positives);
        }
        running.add<P>(s, scale, ceiling);
    }
    running.join();
    if (threadIdx.x % 4) return;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int row = walk.first + row_of(threadIdx.x, r / 2, r % 2 * 2);
        if (row < sides.n) partial[partial_at(blockIdx.y, sides.n, row)] = float2{running.highest[r / 2][r % 2], running.sum[r / 2][r % 2]};
    }
}

// ---- backward ---------------------------------------------------------------------------------------------------------

// How a logit becomes a weight. `ROWS_ONLY`: the share of the column in its row; `COLUMNS_ONLY`: of the row in its
// column; `BOTH`: their sum; `BOTH_SHARED`: the same where one ceiling serves all rows.
enum Weights { ROWS_ONLY, COLUMNS_ONLY, BOTH, BOTH_SHARED };

// values[i][j][e] = f(i, e).
template <typename V, typename F> __device__ __forceinline__ void each(V& values, int j, F f) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) values[i][j][e] = f(i, e);
    }
}

template <typename P, Weights weights>
__device__ __forceinline__ void weigh(Logits<P>& s, float scale, float ceiling, const float* of_rows, const float* of_columns) {
    float own[2][2];
#pragma unroll
    for (int r = 0; r < 4; r++) own[r / 2][r % 2] = of_rows[row_of(threadIdx.x, r / 2, r % 2 * 2)];
#pragma unroll
    for (int j = 0; j < P::COLUMNS / 8; j++) {
        Vector<float, 2> of_column{};
        if (weights != ROWS_ONLY) of_column = load<float, 2>(of_columns + column_of(threadIdx.x, j, 0));
        if (weights == BOTH_SHARED) {
            each(s, j, [&](int i, int e) { return power_of_2(fmaf(s[i][j][e], scale, -ceiling)) * (own[i][e / 2] + of_column.at[e % 2]); });
        } else if (weights == BOTH) {
            each(s, j, [&](int i, int e) {
                return power_of_2(fmaf(s[i][j][e], scale, -own[i][e / 2])) + power_of_2(fmaf(s[i][j][e], scale, -of_column.at[e % 2]));
            });
        } else if (weights == COLUMNS_ONLY) {
            each(s, j, [&](int i, int e) { return power_of_2(fmaf(s[i][j][e], scale, -of_column.at[e % 2])); });
        } else {
            each(s, j, [&](int i, int e) { return power_of_2(fmaf(s[i][j][e], scale, -own[i][e / 2])); });
        }
    }
}

// Nothing for columns that are not there or not seen, and `share` less for positives.
template <typename P> __device__ __forceinline__ void correct(Logits<P>& w, const Marks& marks, float share) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < P::COLUMNS / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                if (marks.has(marks.wanted, i, j, e)) w[i][j][e] -= share;
                if (marks.has(marks.hidden, i, j, e)) w[i][j][e] = 0.0f;
            }
        }
    }
}

// sums[part, row] = sum over a part of the columns of weight times column, `[parts, n, depth]`.
template <typename P, Weights weights>
__device__ __forceinline__ void backward(
    const Sides<typename P::T>& sides, float scale, float ceiling, const float* of_rows, const float* of_columns, const Rule& positive,
    const Rule& excluded, float* out
) {
    DYNAMIC_SHARED(memory);
    const int tile = blockIdx.y * sides.tiles, all = ceil_div(sides.m, P::COLUMNS);
    const int end = tile + sides.tiles < all ? tile + sides.tiles : all;
    Walk<P> walk(sides, of_columns, blockIdx.z, memory);
    __shared__ Marks kept[THREADS]; // Of each thread for itself; a register less for what is rare.
    __shared__ Reaches reaches;
    if (weights != COLUMNS_ONLY) reaches.find(positive, excluded, walk.first, sides.n);
    __shared__ float own[ROWS];
    const int asked = walk.first + (int)threadIdx.x;
    own[threadIdx.x] = of_rows && asked < sides.n ? of_rows[asked] : 0.0f; // ROWS are as many as THREADS.
    Sums<P> sums;
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < P::DEPTH / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
        }
    }
    walk.load(tile, 0, 0, true);
    for (int at = tile; at < end; at++) {
        const int start = at * P::COLUMNS;
        const bool columns_ask = weights == COLUMNS_ONLY;
        const bool marked = columns_ask || start + P::COLUMNS > sides.m || reaches.meet(start, P::COLUMNS);
        if (marked) {
            Marks marks{0, 0};
            marks.template hide_beyond<P>(start, sides.m);
            if (columns_ask) {
                marks.template by_columns<P>(walk.first, start, sides.m, positive, excluded);
            } else {
                marks.template by_rows<P>(walk.first, sides.n, start, positive, excluded);
            }
            kept[threadIdx.x] = marks;
        }
        Logits<P> s;
        walk.template multiply<P::UNROLL>(s, at, end);
        weigh<P, weights>(s, scale, ceiling, own, walk.column_values());
        if (marked) correct<P>(s, kept[threadIdx.x], weights == BOTH || weights == BOTH_SHARED ? 2.0f : 1.0f);
        add_weighted(P(), sums, s, walk.columns(), walk.scratch());
    }
    const int from = blockIdx.z * P::DEPTH;
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int row = walk.first + row_of(threadIdx.x, i, e);
            if (row >= sides.n) continue;
            float* target = out + partial_at(blockIdx.y, sides.n, row) * sides.depth;
#pragma unroll
            for (int j = 0; j < P::DEPTH / 8; j++) {
                const int at = from + column_of(threadIdx.x, j, 0);
                if (at < sides.depth) store(target + at, Vector<float, 2>{sums[i][j][e], sums[i][j][e + 1]});
            }
        }
    }
}

} // namespace contrast

#define FORWARD(SUFFIX, P)                                                                                             \
    extern "C" __global__ void __launch_bounds__(contrast::THREADS, 3) contrast_forward_##SUFFIX(                      \
        contrast::Sides<contrast::P::T> sides, float scale, float ceiling, contrast::Rule positive,                    \
        contrast::Rule excluded, float2* partial, float* positives) {                                                  \
        contrast::forward<contrast::P>(sides, scale, ceiling, positive, excluded, partial, positives);                 \
    }

#define BACKWARD(NAME, SUFFIX, P, WEIGHTS)                                                                             \
    extern "C" __global__ void __launch_bounds__(contrast::THREADS, 2) contrast_##NAME##_##SUFFIX(                     \
        contrast::Sides<contrast::P::T> sides, float scale, float ceiling, const float* of_rows,                       \
        const float* of_columns, contrast::Rule positive, contrast::Rule excluded, float* out) {                       \
        contrast::backward<contrast::P, contrast::WEIGHTS>(sides, scale, ceiling, of_rows, of_columns, positive,       \
                                                           excluded, out);                                             \
    }

#define CONTRAST(SUFFIX, P)                                                                                            \
    FORWARD(SUFFIX, P)                                                                                                 \
    BACKWARD(rows, SUFFIX, P, ROWS_ONLY)                                                                               \
    BACKWARD(columns, SUFFIX, P, COLUMNS_ONLY)                                                                         \
    BACKWARD(both, SUFFIX, P, BOTH)                                                                                    \
    BACKWARD(shared, SUFFIX, P, BOTH_SHARED)

CONTRAST(bf16, Bf16)
CONTRAST(tf32, Tf32)
CONTRAST(f32, F32)
