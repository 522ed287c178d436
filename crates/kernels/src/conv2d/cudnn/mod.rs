//! Convolution through cuDNN, channels last: what it needs to know of a convolution is made once, and its algorithm measured once.
//!
//! A *plan* is what one pass of one convolution (its sizes, types and arithmetic) needs: cuDNN's descriptors, and the fastest of its algorithms that gives the same
//! bits every time, as measured on the arrays of the first call. Plans stay with the process. So does one workspace a device, as large as the largest
//! that a plan has asked for. A convolution that cuDNN refuses is remembered too, and left to the caller.

mod plan;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cudnn::result::CudnnError;
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUstreamCaptureStatus;
use candle_core::{DType, Result, bail};

use super::NAME;
use crate::cuda::{Buffer, Cast, Gpu, Memory};
use plan::Plan;

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
        let (x, w, y) = (aligned(gpu, arrays.x)?, aligned(gpu, arrays.w)?, aligned(gpu, arrays.y)?);
        let arrays = Arrays { x: x.memory(), w: w.memory(), y: y.memory() };
        if !library.plans.contains_key(&key) {
            // Measuring waits for the device, which a graph that is being captured cannot do.
            if gpu.stream().capture_status().w()? != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
                return Ok(false);
            }
            let plan = Plan::new(&library.gpu, library.handle, &key, arrays);
            library.plans.insert(key, plan);
        }
        let Some(Some(plan)) = library.plans.get(&key) else { return Ok(false) };
        if library.workspace.as_ref().map_or(0, |room| room.memory().bytes()) < plan.workspace() {
            library.workspace = None;
            library.workspace = Some(gpu.alloc(DType::U8, plan.workspace())?);
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

/// `x`, or a copy of it where it begins in the middle of a vector: cuDNN's algorithms count on 16 bytes. What they write is new, and so aligned.
fn aligned<'a>(gpu: &Gpu, x: Memory<'a>) -> Result<Cast<'a>> {
    if x.vectors(0) {
        return Ok(Cast::Same(x));
    }
    let copy = gpu.alloc(x.dtype(), x.len())?;
    gpu.copy(x, copy.memory())?;
    Ok(Cast::Copy(copy))
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
}
