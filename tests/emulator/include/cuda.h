// Candle's kernels ask for this header only to learn the version.
#pragma once

#define CUDA_VERSION 13000
