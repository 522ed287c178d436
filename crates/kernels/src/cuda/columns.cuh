// Passes over an array [groups, rows, channels] whose threads keep channels for themselves (columns_index.h), and sums over
// its rows: in float within a thread, in double between threads, always in the same order.
#pragma once

#include "columns_index.h"
#include "common.cuh"

constexpr int COLUMN_THREADS = 256;

template <int N> struct Count {
    static constexpr int value = N;
};

// Calls f(i, step, Count) where i is the offset of the thread's first value of a row and i + k step those of the rows
// after it: N rows at a time, so that their loads are under way together, then one by one.
template <int N, typename F>
__device__ __forceinline__ void each_row(const Place& at, const Columns& columns, F f) {
    const long long step = columns.lanes * columns.channels, end = at.end * columns.channels;
    long long i = at.first * columns.channels + at.channel;
    for (; i + (N - 1) * step < end; i += N * step) f(i, step, Count<N>());
    for (; i < end; i += step) f(i, step, Count<1>());
}

// W values that are per channel, from the thread's first channel on.
template <int W> __device__ __forceinline__ void load_channels(const float* p, float (&v)[W]) {
    constexpr int N = W % 4 == 0 ? 4 : 1;
#pragma unroll
    for (int i = 0; i < W; i += N) {
        const auto part = load<float, N>(p + i);
#pragma unroll
        for (int k = 0; k < N; k++) v[i + k] = part.at[k];
    }
}

// Shared memory for the sums of A arrays.
template <int W, int A> struct ColumnRoom {
    float values[A][COLUMN_THREADS * W];
    double parts[A][COLUMN_THREADS];
};

// Sums over a block's lanes of what its threads hold: thread k < tile W gets those of the block's channel k. All threads
// must come here, idle ones too.
template <int W, int A>
__device__ __forceinline__ void column_sums(const float (&v)[A][W], const Columns& columns, ColumnRoom<W, A>& room,
                                            double (&sums)[A]) {
    const int t = threadIdx.x, width = (int)columns.tile * W, lanes = (int)columns.lanes;
#pragma unroll
    for (int a = 0; a < A; a++) {
#pragma unroll
        for (int i = 0; i < W; i++) room.values[a][t * W + i] = v[a][i];
    }
    __syncthreads();
    const int helpers = helpers_of(COLUMN_THREADS, width), helper = t / width, k = t % width;
#pragma unroll
    for (int a = 0; a < A; a++) {
        double sum = 0.0;
        if (helper < helpers) {
            for (int lane = helper; lane < lanes; lane += helpers) sum += room.values[a][lane * width + k];
        }
        room.parts[a][t] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int a = 0; a < A; a++) {
        sums[a] = 0.0;
        if (t >= width) continue;
        for (int h = 0; h < helpers; h++) sums[a] += room.parts[a][h * width + t];
    }
}

// The second step of a sum over all rows: a block has this many channels, and many threads for the chunks of each, since
// these are few blocks, which wait for memory more than they compute.
constexpr int MERGED = 4, MERGE_THREADS = 1024, MERGE_LANES = MERGE_THREADS / MERGED;

using MergeRoom = double[MERGE_THREADS / 32][MERGED];

// Sums over the threads of one channel (t % MERGED), in every thread. All threads must come here.
__device__ __forceinline__ double merged_sum(double v, MergeRoom& room) {
#pragma unroll
    for (int offset = MERGED; offset < 32; offset *= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads(); // `room` may still be read from the sum before.
    if (lane < MERGED) room[warp][lane] = v;
    __syncthreads();
    double sum = 0.0;
#pragma unroll
    for (int w = 0; w < MERGE_THREADS / 32; w++) sum += room[w][lane % MERGED];
    return sum;
}
