// Batch norm with residual add and ReLU over [groups, rows, channels], channels last.
//
// Forward: moments of chunks of rows, merged and turned into a few numbers per channel, then y: x is read twice, y
// written once. Backward: sums over chunks of rows, merged alike, then dx: x and dy are read twice, dx written once.
// The second pass of each begins with the rows that the first read last, which may still be in the cache.

#include "../cuda/columns.cuh"

// Rows whose loads a thread has under way together.
constexpr int FORWARD_ROWS = 4, BACKWARD_ROWS = 2;

// What is kept between the passes, each [groups, channels].
struct Kept {
    float* mean;   // Rounded to float; `low` is what rounding lost.
    float* var;    // Biased.
    float* scale;  // gamma / std.
    float* offset; // beta, less what the rounding of the mean amounts to.
    double* low;
    double* invstd;
};

// The normalized value: one expression for the forward pass and for the mask of the backward pass.
__device__ __forceinline__ float normalized(float x, float mean, float scale, float offset) {
    return fmaf(x - mean, scale, offset);
}

// The largest value that storing makes 0.
template <typename T> __device__ __forceinline__ float vanishing();
template <> __device__ __forceinline__ float vanishing<float>() { return 0.0f; }
// Half of the least subnormal number, a tie that goes to 0.
template <> __device__ __forceinline__ float vanishing<bf16>() { return __uint_as_float(0x8000u); }

// ---- forward ----------------------------------------------------------------------------------------------------

// Mean and M2 (the sum of squared deviations) of each channel over a chunk: [groups, chunks, channels] each. Sums are
// taken around the chunk's first row, so that no mean is too large for them.
template <typename T, int W>
__device__ __forceinline__ void moments(const T* x, double* means, double* m2s, const Columns& columns) {
    __shared__ ColumnRoom<W, 2> room;
    const Place at = place_of(columns, W, blockIdx.x, blockIdx.y, threadIdx.x);
    const T* first_row = x + at.begin * columns.channels;
    float sum[2][W], shift[W];
#pragma unroll
    for (int i = 0; i < W; i++) sum[0][i] = sum[1][i] = 0.0f;
    if (at.inside) {
        const auto first = load<T, W>(first_row + at.channel);
#pragma unroll
        for (int i = 0; i < W; i++) shift[i] = widen(first.at[i]);
        each_row<FORWARD_ROWS>(at, columns, [&](long long i, long long step, auto count) {
            constexpr int N = decltype(count)::value;
            Vector<T, W> rows[N];
#pragma unroll
            for (int k = 0; k < N; k++) rows[k] = load<T, W>(x + i + k * step);
#pragma unroll
            for (int k = 0; k < N; k++) {
#pragma unroll
                for (int c = 0; c < W; c++) {
                    const float v = widen(rows[k].at[c]) - shift[c];
                    sum[0][c] += v;
                    sum[1][c] = fmaf(v, v, sum[1][c]);
                }
            }
        });
    }
    double sums[2];
    column_sums<W, 2>(sum, columns, room, sums);
    const long long k = threadIdx.x, channel = blockIdx.y * columns.tile * W + k;
    if (k >= columns.tile * W || channel >= columns.channels) return;
    const double count = (double)rows_of(columns, at.chunk), deviation = sums[0] / count;
    const double m2 = sums[1] - sums[0] * deviation;
    const long long to = ((long long)at.group * columns.chunks + at.chunk) * columns.channels + channel;
    means[to] = (double)widen(first_row[channel]) + deviation;
    m2s[to] = m2 < 0.0 ? 0.0 : m2; // Rounding may leave less than nothing; a NaN stays.
}

// Mean and M2 of all rows of group blockIdx.y from those of its chunks, each of which weighs as many rows as it has
// (Chan, Golub, LeVeque 1983, for many parts at once). The same in all threads of a channel.
__device__ __forceinline__ void merge(const double* means, const double* m2s, const Columns& columns, double& mean,
                                      double& m2) {
    __shared__ MergeRoom room;
    const long long channel = (long long)blockIdx.x * MERGED + threadIdx.x % MERGED;
    const long long from = blockIdx.y * columns.chunks * columns.channels + channel;
    const long long chunks = channel < columns.channels ? columns.chunks : 0;
    double sum = 0.0;
#pragma unroll 4
    for (long long k = threadIdx.x / MERGED; k < chunks; k += MERGE_LANES) {
        sum += means[from + k * columns.channels] * (double)rows_of(columns, k);
    }
    mean = merged_sum(sum, room) / (double)columns.rows;
    sum = 0.0;
#pragma unroll 4
    for (long long k = threadIdx.x / MERGED; k < chunks; k += MERGE_LANES) {
        const double delta = means[from + k * columns.channels] - mean;
        sum += m2s[from + k * columns.channels] + delta * delta * (double)rows_of(columns, k);
    }
    m2 = merged_sum(sum, room);
}

// Mean and M2 over all rows, [groups, channels], for those who merge them with other ranks'.
extern "C" __global__ void __launch_bounds__(MERGE_THREADS)
    batch_norm_merge(const double* means, const double* m2s, Columns columns, double* mean, double* m2) {
    double merged_mean, merged_m2;
    merge(means, m2s, columns, merged_mean, merged_m2);
    const long long channel = (long long)blockIdx.x * MERGED + threadIdx.x;
    if (threadIdx.x >= MERGED || channel >= columns.channels) return;
    mean[blockIdx.y * columns.channels + channel] = merged_mean;
    m2[blockIdx.y * columns.channels + channel] = merged_m2;
}

// All that the passes need per channel.
extern "C" __global__ void __launch_bounds__(MERGE_THREADS)
    batch_norm_prepare(const double* means, const double* m2s, Columns columns, const float* gamma, const float* beta,
                       double eps, Kept kept) {
    double mean, m2;
    merge(means, m2s, columns, mean, m2);
    const long long channel = (long long)blockIdx.x * MERGED + threadIdx.x;
    if (threadIdx.x >= MERGED || channel >= columns.channels) return;
    const long long at = blockIdx.y * columns.channels + channel;
    const double var = m2 / (double)columns.rows, invstd = 1.0 / sqrt(var + eps);
    const double scale = (double)gamma[channel] * invstd;
    const float rounded = (float)mean;
    const double low = mean - (double)rounded;
    kept.mean[at] = rounded;
    kept.var[at] = (float)var;
    kept.scale[at] = (float)scale;
    kept.offset[at] = (float)((double)beta[channel] - low * scale);
    kept.low[at] = low;
    kept.invstd[at] = invstd;
}

template <typename T, int W, bool RESIDUAL>
__device__ __forceinline__ void apply(const T* x, const T* residual, T* y, const Kept& kept, const Columns& columns,
                                      bool relu) {
    const Place at = place_of(columns, W, gridDim.x - 1 - blockIdx.x, blockIdx.y, threadIdx.x);
    if (!at.inside) return;
    float mean[W], scale[W], offset[W];
    const long long own = at.group * columns.channels + at.channel;
    load_channels<W>(kept.mean + own, mean);
    load_channels<W>(kept.scale + own, scale);
    load_channels<W>(kept.offset + own, offset);
    each_row<FORWARD_ROWS>(at, columns, [&](long long i, long long step, auto count) {
        constexpr int N = decltype(count)::value;
        Vector<T, W> rows[N], added[RESIDUAL ? N : 1];
#pragma unroll
        for (int k = 0; k < N; k++) {
            rows[k] = load<T, W>(x + i + k * step);
            if (RESIDUAL) added[k] = load<T, W>(residual + i + k * step);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            Vector<T, W> out;
#pragma unroll
            for (int c = 0; c < W; c++) {
                float v = normalized(widen(rows[k].at[c]), mean[c], scale[c], offset[c]);
                if (RESIDUAL) v += widen(added[k].at[c]);
                out.at[c] = narrow<T>(relu && v <= 0.0f ? 0.0f : v); // A NaN stays a NaN.
            }
            store(y + i + k * step, out);
        }
    });
}

// ---- backward ---------------------------------------------------------------------------------------------------

// How dy becomes dy', the gradient behind the ReLU: it is that already, or is masked where the normalized x is not above
// 0, or where y is not, and then written over dy.
enum Incoming { MASKED, RECOMPUTE, MASK };

// Sums over a chunk of dy' and of dy' (x - mean): [groups, chunks, channels] each.
template <typename T, int W, Incoming INCOMING>
__device__ __forceinline__ void gradient_sums(T* dy, const T* y, const T* x, const Kept& kept, const Columns& columns,
                                              double* firsts, double* seconds) {
    __shared__ ColumnRoom<W, 2> room;
    const Place at = place_of(columns, W, blockIdx.x, blockIdx.y, threadIdx.x);
    float sum[2][W];
#pragma unroll
    for (int i = 0; i < W; i++) sum[0][i] = sum[1][i] = 0.0f;
    if (at.inside) {
        float mean[W], scale[W], offset[W];
        const long long own = at.group * columns.channels + at.channel;
        load_channels<W>(kept.mean + own, mean);
        if (INCOMING == RECOMPUTE) {
            load_channels<W>(kept.scale + own, scale);
            load_channels<W>(kept.offset + own, offset);
        }
        each_row<BACKWARD_ROWS>(at, columns, [&](long long i, long long step, auto count) {
            constexpr int N = decltype(count)::value;
            Vector<T, W> gradients[N], rows[N], outputs[INCOMING == MASK ? N : 1];
#pragma unroll
            for (int k = 0; k < N; k++) {
                gradients[k] = load<T, W>(dy + i + k * step);
                rows[k] = load<T, W>(x + i + k * step);
                if (INCOMING == MASK) outputs[k] = load<T, W>(y + i + k * step);
            }
#pragma unroll
            for (int k = 0; k < N; k++) {
#pragma unroll
                for (int c = 0; c < W; c++) {
                    float g = widen(gradients[k].at[c]);
                    const float v = widen(rows[k].at[c]);
                    if (INCOMING == RECOMPUTE && normalized(v, mean[c], scale[c], offset[c]) <= vanishing<T>()) g = 0.0f;
                    if (INCOMING == MASK) {
                        if (widen(outputs[k].at[c]) <= 0.0f) g = 0.0f;
                        gradients[k].at[c] = narrow<T>(g);
                    }
                    sum[0][c] += g;
                    sum[1][c] = fmaf(g, v - mean[c], sum[1][c]);
                }
                if (INCOMING == MASK) store(dy + i + k * step, gradients[k]);
            }
        });
    }
    double sums[2];
    column_sums<W, 2>(sum, columns, room, sums);
    const long long k = threadIdx.x, channel = blockIdx.y * columns.tile * W + k;
    if (k >= columns.tile * W || channel >= columns.channels) return;
    const long long to = ((long long)at.group * columns.chunks + at.chunk) * columns.channels + channel;
    firsts[to] = sums[0];
    seconds[to] = sums[1];
}

// dx = scale dy' - shift - slope (x - mean): slope and shift from the sums of dy' and dy' x_hat, each over the number of
// rows.
__device__ __forceinline__ void slope_and_shift(double beta, double gamma, double scale, double invstd, double low,
                                                float& slope, float& shift) {
    const double steep = scale * invstd * gamma;
    slope = (float)steep;
    shift = (float)(scale * beta - low * steep);
}

// The sums over all rows of dy' and dy' x_hat, [groups, channels] each, and over the groups too: the gradients of beta
// and gamma, [channels]. With them slope and shift, [groups, channels], which are 0 if the statistics are constants: then
// there is no `gamma`.
extern "C" __global__ void __launch_bounds__(MERGE_THREADS)
    batch_norm_total(const double* firsts, const double* seconds, Columns columns, int groups, const float* gamma,
                     Kept kept, double* betas, double* gammas, float* slopes, float* shifts, float* dgamma,
                     float* dbeta) {
    __shared__ MergeRoom room;
    const long long channel = (long long)blockIdx.x * MERGED + threadIdx.x % MERGED;
    const bool inside = channel < columns.channels;
    double all_beta = 0.0, all_gamma = 0.0;
    for (int group = 0; group < groups; group++) {
        const long long from = group * columns.chunks * columns.channels + channel;
        double beta = 0.0, slope = 0.0;
#pragma unroll 4
        for (long long k = threadIdx.x / MERGED; k < (inside ? columns.chunks : 0); k += MERGE_LANES) {
            beta += firsts[from + k * columns.channels];
            slope += seconds[from + k * columns.channels];
        }
        beta = merged_sum(beta, room);
        slope = merged_sum(slope, room);
        if (threadIdx.x >= MERGED || !inside) continue;
        const long long at = group * columns.channels + channel;
        const double low = kept.low[at], invstd = kept.invstd[at], rows = (double)columns.rows;
        const double own = (slope - low * beta) * invstd;
        betas[at] = beta;
        gammas[at] = own;
        all_beta += beta;
        all_gamma += own;
        slopes[at] = shifts[at] = 0.0f;
        if (gamma) {
            slope_and_shift(beta / rows, own / rows, gamma[channel] * invstd, invstd, low, slopes[at], shifts[at]);
        }
    }
    if (threadIdx.x >= MERGED || !inside) return;
    dbeta[channel] = (float)all_beta;
    dgamma[channel] = (float)all_gamma;
}

// Slope and shift, [groups, channels], from means that count the rows of all ranks.
extern "C" __global__ void batch_norm_slopes(const double* betas, const double* gammas, long long channels,
                                             long long n, const float* gamma, Kept kept, float* slopes, float* shifts) {
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) return;
    const double low = kept.low[at], invstd = kept.invstd[at];
    slope_and_shift(betas[at], gammas[at], gamma[at % channels] * invstd, invstd, low, slopes[at], shifts[at]);
}

// dx may be x itself.
template <typename T, int W, bool RECOMPUTED>
__device__ __forceinline__ void input_gradient(const T* dy, const T* x, T* dx, const Kept& kept, const float* slopes,
                                               const float* shifts, const Columns& columns) {
    const Place at = place_of(columns, W, gridDim.x - 1 - blockIdx.x, blockIdx.y, threadIdx.x);
    if (!at.inside) return;
    float mean[W], scale[W], offset[W], slope[W], shift[W];
    const long long own = at.group * columns.channels + at.channel;
    load_channels<W>(kept.mean + own, mean);
    load_channels<W>(kept.scale + own, scale);
    if (RECOMPUTED) load_channels<W>(kept.offset + own, offset);
    load_channels<W>(slopes + own, slope);
    load_channels<W>(shifts + own, shift);
    each_row<BACKWARD_ROWS>(at, columns, [&](long long i, long long step, auto count) {
        constexpr int N = decltype(count)::value;
        Vector<T, W> gradients[N], rows[N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            gradients[k] = load<T, W>(dy + i + k * step);
            rows[k] = load<T, W>(x + i + k * step);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
#pragma unroll
            for (int c = 0; c < W; c++) {
                float g = widen(gradients[k].at[c]);
                const float v = widen(rows[k].at[c]);
                if (RECOMPUTED && normalized(v, mean[c], scale[c], offset[c]) <= vanishing<T>()) g = 0.0f;
                rows[k].at[c] = narrow<T>(fmaf(mean[c] - v, slope[c], fmaf(g, scale[c], -shift[c])));
            }
            store(dx + i + k * step, rows[k]);
        }
    });
}

// ---- running statistics -----------------------------------------------------------------------------------------

// running = keep running + weight (the sum over groups), for the mean and the variance of each channel.
extern "C" __global__ void batch_norm_running(float* running_mean, float* running_var, const float* mean,
                                              const float* var, int channels, int groups, double keep,
                                              double mean_weight, double var_weight) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double means = 0.0, vars = 0.0;
    for (int group = 0; group < groups; group++) {
        means += mean[(long long)group * channels + channel];
        vars += var[(long long)group * channels + channel];
    }
    running_mean[channel] = (float)(keep * running_mean[channel] + mean_weight * means);
    running_var[channel] = (float)(keep * running_var[channel] + var_weight * vars);
}

// ---- kernels ----------------------------------------------------------------------------------------------------

// `vectors`: all rows may be read 16 bytes at a time.
#define BATCH_NORM(SUFFIX, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        batch_norm_moments_##SUFFIX(const T* x, double* means, double* m2s, Columns columns, bool vectors) {           \
        vectors ? moments<T, WIDTH<T>>(x, means, m2s, columns) : moments<T, 1>(x, means, m2s, columns);                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        batch_norm_apply_##SUFFIX(const T* x, T* y, Kept kept, Columns columns, bool vectors, bool relu) {             \
        vectors ? apply<T, WIDTH<T>, false>(x, x, y, kept, columns, relu)                                              \
                : apply<T, 1, false>(x, x, y, kept, columns, relu);                                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        batch_norm_apply_add_##SUFFIX(const T* x, const T* residual, T* y, Kept kept, Columns columns, bool vectors,   \
                                      bool relu) {                                                                     \
        vectors ? apply<T, WIDTH<T>, true>(x, residual, y, kept, columns, relu)                                        \
                : apply<T, 1, true>(x, residual, y, kept, columns, relu);                                              \
    }                                                                                                                  \
    BATCH_NORM_SUMS(batch_norm_sums, SUFFIX, T, MASKED)                                                                \
    BATCH_NORM_SUMS(batch_norm_sums_relu, SUFFIX, T, RECOMPUTE)                                                        \
    BATCH_NORM_SUMS(batch_norm_sums_mask, SUFFIX, T, MASK)                                                             \
    BATCH_NORM_DX(batch_norm_dx, SUFFIX, T, false)                                                                     \
    BATCH_NORM_DX(batch_norm_dx_relu, SUFFIX, T, true)

#define BATCH_NORM_SUMS(NAME, SUFFIX, T, INCOMING)                                                                     \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        NAME##_##SUFFIX(T* dy, const T* y, const T* x, Kept kept, Columns columns, bool vectors, double* firsts,       \
                        double* seconds) {                                                                             \
        vectors ? gradient_sums<T, WIDTH<T>, INCOMING>(dy, y, x, kept, columns, firsts, seconds)                       \
                : gradient_sums<T, 1, INCOMING>(dy, y, x, kept, columns, firsts, seconds);                             \
    }

#define BATCH_NORM_DX(NAME, SUFFIX, T, RECOMPUTED)                                                                     \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
        NAME##_##SUFFIX(const T* dy, const T* x, T* dx, Kept kept, const float* slopes, const float* shifts,           \
                        Columns columns, bool vectors) {                                                               \
        vectors ? input_gradient<T, WIDTH<T>, RECOMPUTED>(dy, x, dx, kept, slopes, shifts, columns)                    \
                : input_gradient<T, 1, RECOMPUTED>(dy, x, dx, kept, slopes, shifts, columns);                          \
    }

BATCH_NORM(f32, float)
BATCH_NORM(bf16, bf16)
