// CUDA C++ for the CPU: what a .cu file of this workspace needs to be compiled by g++ and run.
//
// A launch runs block after block; each thread of a block is a fiber, which runs until it meets another thread (a
// barrier, a shuffle) or ends. The order in which they run is ours (DIPTYCH_EMULATOR_ORDER), shared memory begins
// as NaNs, and asynchronous copies happen as late or as early as they may: what a kernel forgot to wait for shows as
// other numbers. README.md says how to run one kernel from a C++ program.
#pragma once

#include "core/words.h"
// The words must come first.
#include "core/atomics.h"
#include "core/fibers.h"
#include "core/launch.h"
#include "core/math.h"
#include "core/tensor.h"
#include "core/warp.h"
