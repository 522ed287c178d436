// What every kernel here stands on: bf16, 16-byte vectors, sums over warps and blocks, tensor-core products.
//
// A kernel is plain CUDA C++, `extern "C" __global__`, one per type of element: NAME_f32 and NAME_bf16. Its index
// arithmetic is in a header of its own beside it (NAME_index.h), marked HOST_DEVICE, that includes nothing of CUDA.
//
// The same files are compiled for the CPU by the emulator of tests/emulator, which stands in for the compiler's part
// (threads, shared memory, shuffles) and for the few instructions below that C++ has no word for.
#pragma once

#include "portable.h"

#ifdef DIPTYCH_EMULATOR
#include "emulator.h"
#define DYNAMIC_SHARED(name) unsigned char* name = emulator::dynamic_shared()
#else
// 16-byte aligned dynamic shared memory of the block.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

constexpr unsigned FULL_WARP = 0xffffffffu;

// ---- numbers ----------------------------------------------------------------------------------------------------

// A bf16 number in memory. Arithmetic is in float: load with `widen`, store with `narrow`.
struct __align__(2) bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
// To the nearest, ties to even; a NaN stays one.
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
#if defined(__CUDA_ARCH__) && !defined(DIPTYCH_EMULATOR)
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#else
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{(unsigned short)((bits >> 16) | 0x40)};
    return bf16{(unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
#endif
}

// Two floats as the two halves of a register of tensor-core operands, `low` in the lower.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__) && !defined(DIPTYCH_EMULATOR)
    unsigned y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
#else
    return (unsigned)narrow<bf16>(low).bits | ((unsigned)narrow<bf16>(high).bits << 16);
#endif
}

// A float rounded to TF32 (10 bits of mantissa), to the nearest, ties away from zero, as `mma_tf32` takes it.
__device__ __forceinline__ unsigned to_tf32(float x) {
#if defined(__CUDA_ARCH__) && !defined(DIPTYCH_EMULATOR)
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
#else
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    return (bits + 0x1000u) & 0xffffe000u;
#endif
}

// ---- memory -----------------------------------------------------------------------------------------------------

// N values that one thread loads or stores in one instruction (N sizeof(T) = 16, 8, 4 or 2 bytes).
template <typename T, int N> struct __align__(sizeof(T) * N) Vector {
    T at[N];
};

// Values of a type that make a 16-byte access.
template <typename T> constexpr int WIDTH = 16 / sizeof(T);

template <typename T, int N> __device__ __forceinline__ Vector<T, N> load(const T* p) {
    return *reinterpret_cast<const Vector<T, N>*>(p);
}
template <typename T, int N> __device__ __forceinline__ void store(T* p, const Vector<T, N>& v) {
    *reinterpret_cast<Vector<T, N>*>(p) = v;
}

// ---- sums -------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

__device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, offset));
    return v;
}

// The sum over a one-dimensional block of a multiple of 32 threads, in every thread, always in the same order.
// `room`: shared memory for 32 values. All threads must come here.
template <typename T> __device__ __forceinline__ T block_sum(T v, T* room) {
    v = warp_sum(v);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    __syncthreads(); // `room` may still be read from the sum before.
    if (lane == 0) room[warp] = v;
    __syncthreads();
    T sum = lane < warps ? room[lane] : T(0);
    return warp_sum(sum);
}

// ---- tensor cores -----------------------------------------------------------------------------------------------
//
// Fragments, for lane l, g = l / 4 and t = l % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16" and ".m16n8k8"):
//   d[0..1]: row g,     columns 2t, 2t + 1;   d[2..3]: row g + 8, the same columns.
//   bf16, a[0]: row g, k = 2t, 2t + 1; a[1]: row g + 8, the same; a[2], a[3]: as a[0], a[1] with k + 8.
//         b[0]: k = 2t, 2t + 1, column g; b[1]: the same with k + 8.
//   tf32, a[0]: row g, k = t; a[1]: row g + 8, k = t; a[2]: row g, k = t + 4; a[3]: row g + 8, k = t + 4.
//         b[0]: k = t, column g; b[1]: k = t + 4, column g.

#ifdef DIPTYCH_EMULATOR
__device__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
__device__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
__device__ void ldmatrix_x4(unsigned (&r)[4], const void* row);
__device__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row);
__device__ void copy_async16(void* shared, const void* global, bool valid);
__device__ void copy_async_commit();
template <int N> __device__ void copy_async_wait();
#else
// d += a b, 16 x 8 x 16, bf16 products added in float.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b, 16 x 8 x 8, TF32 products added in float.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit values from shared memory: lane l gives the address of row l % 8 of matrix l / 8 (16
// bytes, aligned) and gets, of each matrix, row l / 4, columns 2 (l % 4) and the next.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// The same with every matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// Begins to copy 16 aligned bytes to shared memory, zeros where not `valid` (then `global` is not read).
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool valid) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(shared);
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(at), "l"(global), "r"(bytes) : "memory");
}

// Ends a group of copies of this thread.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until at most N groups of this thread are under way. Other threads see the values after a barrier.
template <int N> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}
#endif
