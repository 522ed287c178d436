// 8-bit floats: only named by Candle's kernels, and never used here. A kernel that does use one ends with a sentence.
#pragma once

#include "../core/fibers.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"

enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
using __nv_fp8_storage_t = unsigned char;

struct __nv_fp8_e4m3 {
    __nv_fp8_storage_t __x;

    __nv_fp8_e4m3() = default;
    template <typename T> explicit __nv_fp8_e4m3(T) { refuse(); }
    template <typename T> explicit operator T() const {
        refuse();
        return T();
    }
    [[noreturn]] static void refuse() { emulator::fail("8-bit floats are not emulated"); }
};

inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t, __nv_fp8_interpretation_t) { __nv_fp8_e4m3::refuse(); }
