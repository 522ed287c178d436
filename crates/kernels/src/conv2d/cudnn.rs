//! Convolution through cuDNN, channels last: what it needs to know of a convolution is made once, and its algorithm measured once.
//!
//! A *plan* is what one pass of one convolution (its sizes, types and arithmetic) needs: cuDNN's descriptors, and the fastest of its algorithms that gives the same
//! bits every time, as measured on the arrays of the first call. Plans stay with the process. So does one workspace a device, as large as the largest
//! that a plan has asked for. A convolution that cuDNN refuses is remembered too, and left to the caller.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cudnn::result::CudnnError;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUstreamCaptureStatus;
use candle_core::{DType, Result, bail};

use super::NAME;
use crate::cuda::{Buffer, Gpu, Memory};

/// Workspace that an algorithm may have, in bytes.
const WORKSPACE: usize = 1 << 30;

/// What is computed from the other two of x, w and y.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    /// y
    Forward,
    /// The gradient of x.
    InputGrad,
    /// The gradient of w.
    WeightGrad,
}

/// Arrays `[N, H, W, C]`, `[O, kh, kw, C]` and `[N, H', W', O]`: values or gradients, one of which is written.
#[derive(Clone, Copy)]
pub(super) struct Arrays<'a> {
    pub(super) x: Memory<'a>,
    pub(super) w: Memory<'a>,
    pub(super) y: Memory<'a>,
}

/// What is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Convolution {
    pub(super) pass: Pass,
    /// n, h, w, c, o, kh, kw, stride, padding, oh and ow of the geometry.
    pub(super) sizes: [i32; 11],
    /// Whether products of f32 numbers may be TF32.
    pub(super) tf32: bool,
}

/// What a plan depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    convolution: Convolution,
    /// The types of x and y, and of w.
    types: [DType; 2],
}

impl Key {
    /// Whether products are those of f32 numbers.
    fn exact(&self) -> bool {
        self.types[0] == DType::F32 && !self.convolution.tf32
    }
}

/// One device's cuDNN.
struct Library {
    /// Keeps the stream and its context alive, on which the handle works.
    gpu: Gpu,
    handle: sys::cudnnHandle_t,
    workspace: Option<Buffer>,
    plans: HashMap<Key, Option<Plan>>,
}

struct Plan {
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

// SAFETY: handles and descriptors are addresses of cuDNN's objects, which any thread may use, one at a time: the lock sees to that.
unsafe impl Send for Library {}

/// By context and stream; none where there is no cuDNN.
type Libraries = HashMap<(usize, usize), Option<Library>>;

static LIBRARIES: Mutex<Option<Libraries>> = Mutex::new(None);

fn with_library<R>(gpu: &Gpu, f: impl FnOnce(&mut Library) -> Result<R>) -> Result<Option<R>> {
    gpu.stream().context().bind_to_thread().w()?;
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (gpu.stream().context().cu_ctx().addr(), gpu.stream().cu_stream().addr());
    let library = libraries.get_or_insert_default().entry(key).or_insert_with(|| Library::open(gpu).ok());
    library.as_mut().map(f).transpose()
}

/// The version of the device's cuDNN (91900 is 9.19.0), if it has one.
pub(super) fn version(gpu: &Gpu) -> Option<usize> {
    with_library(gpu, |_| Ok(result::get_version())).ok().flatten()
}

/// Computes a pass, plus `add`, which has the result's shape. False if there is no cuDNN, or it does not do this convolution: then nothing has been written that counts.
pub(super) fn run(gpu: &Gpu, convolution: Convolution, arrays: Arrays, add: Option<Memory>) -> Result<bool> {
    let key = Key { convolution, types: [arrays.x.dtype(), arrays.w.dtype()] };
    let done = with_library(gpu, |library| {
        if !library.plans.contains_key(&key) {
            // Measuring waits for the device, which a graph that is being captured cannot do.
            if gpu.stream().capture_status().w()? != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
                return Ok(false);
            }
            let plan = library.plan(&key, arrays)?;
            library.plans.insert(key, plan);
        }
        let Some(Some(plan)) = library.plans.get(&key) else { return Ok(false) };
        if library.workspace.as_ref().map_or(0, |room| room.memory().bytes()) < plan.workspace {
            library.workspace = None;
            library.workspace = Some(gpu.alloc(DType::U8, plan.workspace)?);
        }
        let beta = match add {
            Some(add) => {
                gpu.copy(add, arrays.written(convolution.pass))?;
                1.0
            }
            None => 0.0,
        };
        match plan.run(library.handle, arrays, beta, library.workspace.as_ref().map(Buffer::memory)) {
            Ok(()) => Ok(true),
            Err(e) => bail!("{NAME}: cuDNN failed ({e}) in {convolution:?}; DIPTYCH_CUDNN=off goes without it"),
        }
    })?;
    Ok(done.unwrap_or(false))
}

impl<'a> Arrays<'a> {
    fn written(&self, pass: Pass) -> Memory<'a> {
        match pass {
            Pass::Forward => self.y,
            Pass::InputGrad => self.x,
            Pass::WeightGrad => self.w,
        }
    }

    /// x, w and y.
    fn addresses(&self) -> [*mut c_void; 3] {
        [self.x, self.w, self.y].map(|memory| memory.pointer() as *mut c_void)
    }
}

impl Library {
    fn open(gpu: &Gpu) -> std::result::Result<Self, CudnnError> {
        let handle = result::create_handle()?;
        // SAFETY: the handle has just been made, and the stream lives as long as the library.
        unsafe { result::set_stream(handle, gpu.stream().cu_stream().cast())? };
        Ok(Self { gpu: gpu.clone(), handle, workspace: None, plans: HashMap::new() })
    }

    /// The plan of a convolution, or none if cuDNN has no algorithm for it. Writes to the array that the pass writes.
    fn plan(&self, key: &Key, arrays: Arrays) -> Result<Option<Plan>> {
        let Ok(descriptors) = Descriptors::new(key) else { return Ok(None) };
        // Less where memory is short.
        let room =
            [WORKSPACE, WORKSPACE / 4, WORKSPACE / 32].into_iter().find_map(|n| self.gpu.alloc(DType::U8, n).ok());
        let room = room.as_ref().map(Buffer::memory);
        let Ok(mut measured) = descriptors.measure(self.handle, key.convolution.pass, arrays, room) else {
            return Ok(None);
        };
        measured.retain(|one| one.usable && (!key.exact() || !one.on_tensor_cores()));
        let Some(best) = measured.into_iter().min_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds)) else {
            return Ok(None);
        };
        if !key.exact() {
            // SAFETY: the descriptor is a convolution's.
            let set = unsafe { result::set_convolution_math_type(descriptors.convolution, best.math) };
            if set.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(Plan { descriptors, algorithm: best.algorithm, workspace: best.workspace }))
    }
}

/// One algorithm as cuDNN has measured it.
struct Measured {
    algorithm: Algorithm,
    /// It ran, and gives the same bits every time.
    usable: bool,
    milliseconds: f32,
    workspace: usize,
    math: sys::cudnnMathType_t,
}

impl Measured {
    fn on_tensor_cores(&self) -> bool {
        !matches!(self.math, sys::cudnnMathType_t::CUDNN_FMA_MATH | sys::cudnnMathType_t::CUDNN_DEFAULT_MATH)
    }
}

/// Algorithms that cuDNN may tell of: each in at most two arithmetics.
const ALGORITHMS: usize = 16;

impl Descriptors {
    fn new(key: &Key) -> std::result::Result<Self, CudnnError> {
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
            _ => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        };
        let made = Self {
            x: result::create_tensor_descriptor()?,
            w: result::create_filter_descriptor()?,
            y: result::create_tensor_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
        };
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

    /// Runs every algorithm that takes no more than `room`, on these arrays.
    fn measure(
        &self,
        handle: sys::cudnnHandle_t,
        pass: Pass,
        arrays: Arrays,
        room: Option<Memory>,
    ) -> std::result::Result<Vec<Measured>, CudnnError> {
        let [x, w, y] = arrays.addresses();
        let (room, bytes) = room.map_or((null_mut(), 0), |room| (room.pointer() as *mut c_void, room.bytes()));
        let (count, mut told) = (ALGORITHMS as i32, 0);
        // The three structures have the same fields, with an algorithm of another type each.
        macro_rules! measured {
            ($find:ident, $algorithm:expr, $($arrays:expr),*) => {{
                // SAFETY: all zeros are an algorithm's name, a status, numbers and two enumerations of these structures.
                let mut results = unsafe { std::mem::zeroed::<[_; ALGORITHMS]>() };
                // SAFETY: the arrays have the sizes of their descriptors; there is room for `count` results.
                unsafe {
                    sys::$find(handle, $($arrays),*, count, &raw mut told, results.as_mut_ptr(), room, bytes).result()?;
                }
                results[..(told.max(0) as usize).min(ALGORITHMS)].iter().map(|one| Measured {
                    algorithm: $algorithm(one.algo),
                    usable: one.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                        && one.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                        && one.memory <= bytes,
                    milliseconds: one.time,
                    workspace: one.memory,
                    math: one.mathType,
                }).collect()
            }};
        }
        let Self { x: xd, w: wd, y: yd, convolution } = *self;
        Ok(match pass {
            Pass::Forward => {
                measured!(cudnnFindConvolutionForwardAlgorithmEx, Algorithm::Forward, xd, x, wd, w, convolution, yd, y)
            }
            Pass::InputGrad => measured!(
                cudnnFindConvolutionBackwardDataAlgorithmEx,
                Algorithm::InputGrad,
                wd,
                w,
                yd,
                y,
                convolution,
                xd,
                x
            ),
            Pass::WeightGrad => measured!(
                cudnnFindConvolutionBackwardFilterAlgorithmEx,
                Algorithm::WeightGrad,
                xd,
                x,
                yd,
                y,
                convolution,
                wd,
                w
            ),
        })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the descriptors are this structure's, and nobody else's. What cuDNN says to that changes nothing.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.x);
            let _ = result::destroy_filter_descriptor(self.w);
            let _ = result::destroy_tensor_descriptor(self.y);
            let _ = result::destroy_convolution_descriptor(self.convolution);
        }
    }
}

impl Plan {
    /// The pass's array = the convolution + `beta` times what is in it.
    fn run(
        &self,
        handle: sys::cudnnHandle_t,
        arrays: Arrays,
        beta: f32,
        room: Option<Memory>,
    ) -> std::result::Result<(), CudnnError> {
        let [x, w, y] = arrays.addresses();
        let Descriptors { x: xd, w: wd, y: yd, convolution } = self.descriptors;
        let (alpha, beta) = ((&raw const ONE).cast(), (&raw const beta).cast());
        let (room, bytes) = room.map_or((null_mut(), 0), |room| (room.pointer() as *mut c_void, self.workspace));
        // SAFETY: the arrays have the sizes of their descriptors, and the workspace is at least as large as the algorithm's; all
        // live until the stream has passed this point.
        unsafe {
            match self.algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    handle,
                    alpha,
                    xd,
                    x,
                    wd,
                    w,
                    convolution,
                    algorithm,
                    room,
                    bytes,
                    beta,
                    yd,
                    y,
                ),
                Algorithm::InputGrad(algorithm) => result::convolution_backward_data(
                    handle,
                    alpha,
                    wd,
                    w,
                    yd,
                    y,
                    convolution,
                    algorithm,
                    room,
                    bytes,
                    beta,
                    xd,
                    x,
                ),
                Algorithm::WeightGrad(algorithm) => result::convolution_backward_filter(
                    handle,
                    alpha,
                    xd,
                    x,
                    yd,
                    y,
                    convolution,
                    algorithm,
                    room,
                    bytes,
                    beta,
                    wd,
                    w,
                ),
            }
        }
    }
}

static ONE: f32 = 1.0;
