//! How one pass of one convolution runs: descriptors, and the fastest algorithm as measured on the arrays of the first call.

use std::ffi::c_void;
use std::ptr::null_mut;

use candle_core::DType;
use candle_core::cuda_backend::cudarc::cudnn::result::{self, CudnnError};
use candle_core::cuda_backend::cudarc::cudnn::sys;

use super::{Arrays, Key, Pass};
use crate::cuda::{Buffer, Gpu, Memory};

/// Workspace that an algorithm may have, in bytes.
const WORKSPACE: usize = 1 << 30;

/// Algorithms that cuDNN may tell of: each in at most two arithmetics.
const ALGORITHMS: usize = 16;

static ONE: f32 = 1.0;

/// See the module's documentation.
pub(super) struct Plan {
    descriptors: Descriptors,
    algorithm: Algorithm,
    workspace: usize,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    InputGrad(sys::cudnnConvolutionBwdDataAlgo_t),
    WeightGrad(sys::cudnnConvolutionBwdFilterAlgo_t),
}

struct Descriptors {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

/// One algorithm as cuDNN knows or has measured it.
struct Told {
    algorithm: Algorithm,
    runs: bool,
    /// It gives the same bits every time.
    deterministic: bool,
    milliseconds: f32,
    workspace: usize,
    math: sys::cudnnMathType_t,
}

impl Told {
    fn on_tensor_cores(&self) -> bool {
        !matches!(self.math, sys::cudnnMathType_t::CUDNN_FMA_MATH | sys::cudnnMathType_t::CUDNN_DEFAULT_MATH)
    }
}

impl Plan {
    /// The plan of a convolution, or none if cuDNN has no algorithm for it. Measures, and so writes to the array that the pass writes.
    pub(super) fn new(gpu: &Gpu, handle: sys::cudnnHandle_t, key: &Key, arrays: Arrays) -> Option<Self> {
        let descriptors = Descriptors::new(key).ok()?;
        let (pass, exact) = (key.convolution.pass, key.exact());
        // As much as the hungriest algorithm asks for; less where memory is short.
        let known = descriptors.known(handle, pass).ok()?;
        let wanted = known.iter().filter(|one| one.runs).map(|one| one.workspace).max().unwrap_or(0).min(WORKSPACE);
        let room = [wanted, wanted / 4, wanted / 32].into_iter().find_map(|bytes| gpu.alloc(DType::U8, bytes).ok());
        let told = descriptors.measured(handle, pass, arrays, room.as_ref().map(Buffer::memory)).ok()?;
        let usable = told.into_iter().filter(|one| {
            one.runs && one.deterministic && one.workspace <= wanted && !(exact && one.on_tensor_cores())
        });
        let best = usable.min_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds))?;
        if !exact {
            // SAFETY: the descriptor is a convolution's.
            unsafe { result::set_convolution_math_type(descriptors.convolution, best.math) }.ok()?;
        }
        Some(Self { descriptors, algorithm: best.algorithm, workspace: best.workspace })
    }

    /// Bytes of workspace for [`Self::run`].
    pub(super) fn workspace(&self) -> usize {
        self.workspace
    }

    /// The pass's array = the convolution + `beta` times what is in it.
    pub(super) fn run(
        &self,
        handle: sys::cudnnHandle_t,
        arrays: Arrays,
        beta: f32,
        room: Option<Memory>,
    ) -> Result<(), CudnnError> {
        let [x, w, y] = arrays.addresses();
        let Descriptors { x: xd, w: wd, y: yd, convolution: of } = self.descriptors;
        let (alpha, beta) = ((&raw const ONE).cast(), (&raw const beta).cast());
        let (room, bytes) = room.map_or((null_mut(), 0), |room| (room.pointer() as *mut c_void, self.workspace));
        // SAFETY: the arrays have the sizes of their descriptors, and the workspace is at least as large as the algorithm's; all
        // live until the stream has passed this point.
        #[rustfmt::skip]
        let started = unsafe {
            match self.algorithm {
                Algorithm::Forward(by) => result::convolution_forward(
                    handle, alpha, xd, x, wd, w, of, by, room, bytes, beta, yd, y,
                ),
                Algorithm::InputGrad(by) => result::convolution_backward_data(
                    handle, alpha, wd, w, yd, y, of, by, room, bytes, beta, xd, x,
                ),
                Algorithm::WeightGrad(by) => result::convolution_backward_filter(
                    handle, alpha, xd, x, yd, y, of, by, room, bytes, beta, wd, w,
                ),
            }
        };
        started
    }
}

/// What `$call` tells of algorithms. The structures of the three passes have the same fields, with an algorithm of another type each.
macro_rules! told {
    ($call:ident, $algorithm:expr, [$($before:expr),*], [$($after:expr),*]) => {{
        let mut count = 0;
        // SAFETY: all zeros are an algorithm's name, a status, numbers and two enumerations of these structures. The caller's descriptors are
        // those of the call and its arrays have their sizes, and there is room for ALGORITHMS results.
        unsafe {
            let mut results = std::mem::zeroed::<[_; ALGORITHMS]>();
            sys::$call($($before,)* ALGORITHMS as i32, &raw mut count, results.as_mut_ptr() $(, $after)*).result()?;
            let told = results[..(count.max(0) as usize).min(ALGORITHMS)].iter().map(|one| Told {
                algorithm: $algorithm(one.algo),
                runs: one.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS,
                deterministic: one.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                milliseconds: one.time,
                workspace: one.memory,
                math: one.mathType,
            });
            Ok(told.collect())
        }
    }};
}

impl Descriptors {
    fn new(key: &Key) -> Result<Self, CudnnError> {
        let [n, h, w, c, o, kh, kw, stride, padding, oh, ow] = key.convolution.sizes;
        let last = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let [of_values, of_weights] = key.types.map(|dtype| match dtype {
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            _ => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        });
        let sums = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let math = match key.types[0] {
            DType::BF16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            _ if key.exact() => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            // TF32 on every card that has it.
            _ => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        };
        let mut made = Self { x: null_mut(), w: null_mut(), y: null_mut(), convolution: null_mut() };
        made.x = result::create_tensor_descriptor()?;
        made.w = result::create_filter_descriptor()?;
        made.y = result::create_tensor_descriptor()?;
        made.convolution = result::create_convolution_descriptor()?;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        // SAFETY: the descriptors have just been made, each for what it is set to.
        unsafe {
            // Sizes come as N, C, H, W in any layout.
            result::set_tensor4d_descriptor(made.x, last, of_values, [n, c, h, w])?;
            result::set_filter4d_descriptor(made.w, of_weights, last, [o, c, kh, kw])?;
            result::set_tensor4d_descriptor(made.y, last, of_values, [n, o, oh, ow])?;
            let (p, s) = (padding, stride);
            result::set_convolution2d_descriptor(made.convolution, p, p, s, s, 1, 1, mode, sums)?;
            result::set_convolution_math_type(made.convolution, math)?;
        }
        Ok(made)
    }

    /// What cuDNN knows of its algorithms without running them.
    fn known(&self, handle: sys::cudnnHandle_t, pass: Pass) -> Result<Vec<Told>, CudnnError> {
        let Self { x, w, y, convolution: of } = *self;
        #[rustfmt::skip]
        let known = match pass {
            Pass::Forward => told!(
                cudnnGetConvolutionForwardAlgorithm_v7, Algorithm::Forward, [handle, x, w, of, y], []
            ),
            Pass::InputGrad => told!(
                cudnnGetConvolutionBackwardDataAlgorithm_v7, Algorithm::InputGrad, [handle, w, y, of, x], []
            ),
            Pass::WeightGrad => told!(
                cudnnGetConvolutionBackwardFilterAlgorithm_v7, Algorithm::WeightGrad, [handle, x, y, of, w], []
            ),
        };
        known
    }

    /// Runs every algorithm that takes no more than `room`, on these arrays.
    fn measured(
        &self,
        handle: sys::cudnnHandle_t,
        pass: Pass,
        arrays: Arrays,
        room: Option<Memory>,
    ) -> Result<Vec<Told>, CudnnError> {
        let [x, w, y] = arrays.addresses();
        let (room, bytes) = room.map_or((null_mut(), 0), |room| (room.pointer() as *mut c_void, room.bytes()));
        let Self { x: xd, w: wd, y: yd, convolution: of } = *self;
        #[rustfmt::skip]
        let measured = match pass {
            Pass::Forward => told!(
                cudnnFindConvolutionForwardAlgorithmEx, Algorithm::Forward,
                [handle, xd, x, wd, w, of, yd, y], [room, bytes]
            ),
            Pass::InputGrad => told!(
                cudnnFindConvolutionBackwardDataAlgorithmEx, Algorithm::InputGrad,
                [handle, wd, w, yd, y, of, xd, x], [room, bytes]
            ),
            Pass::WeightGrad => told!(
                cudnnFindConvolutionBackwardFilterAlgorithmEx, Algorithm::WeightGrad,
                [handle, xd, x, yd, y, of, wd, w], [room, bytes]
            ),
        };
        measured
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the descriptors are this structure's, and nobody else's; none is destroyed where making it failed. What cuDNN says to
        // that changes nothing.
        unsafe {
            let _ = if self.x.is_null() { Ok(()) } else { result::destroy_tensor_descriptor(self.x) };
            let _ = if self.w.is_null() { Ok(()) } else { result::destroy_filter_descriptor(self.w) };
            let _ = if self.y.is_null() { Ok(()) } else { result::destroy_tensor_descriptor(self.y) };
            let of = self.convolution;
            let _ = if of.is_null() { Ok(()) } else { result::destroy_convolution_descriptor(of) };
        }
    }
}
