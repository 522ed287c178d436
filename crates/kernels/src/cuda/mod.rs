//! What the ops' CUDA sides share: a device's stream, memory as kernels see it, modules and launches.
//!
//! **All work on a device goes into one stream**, in the order in which it is asked for. So memory that is freed here is freed after
//! the kernels that were started before, a buffer may be written by a kernel while an older one still has it to read, and nothing ever
//! waits for anything but a value that is read back. [`open`] makes such a device; Candle's own `Device::new_cuda` takes a stream per thread
//! instead, with which a tensor made by one thread and used by another would race.

mod cast;
pub(crate) mod columns;
pub(crate) mod gemm;
mod memory;
mod module;
mod pool;
mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream, DeviceRepr, DriverError, result, sys};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Tensor, bail};

pub(crate) use cast::{Cast, cast, cast_into};
pub(crate) use memory::{Buffer, Memory};
pub(crate) use module::{Arg, Module, modules};
pub(crate) use pool::{peak_memory, reset_peak_memory};
pub(crate) use upload::Uploader;

/// The device of this number, the same one for every caller in a process, with one stream for all of its work, and memory that stays with the
/// process between steps.
///
/// # Errors
/// If there is no driver or no such device; the sentence says which.
pub fn open(ordinal: usize) -> Result<Device> {
    // Tensors of two devices don't mix, even if they are one card.
    static OPEN: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&ordinal) {
        return Ok(device.clone());
    }
    let count = count()?;
    if ordinal >= count {
        bail!("there is no GPU {ordinal}; this machine has {count}, counted from 0")
    }
    let device = Device::new_cuda_with_stream(ordinal).map_err(|e| explained(&e))?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: events keep several streams in order, and this device has one, into which all of its work goes.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda)?;
    open.insert(ordinal, device.clone());
    Ok(device)
}

/// What is missing beside the driver.
fn explained(error: &candle_core::Error) -> candle_core::Error {
    let text = error.to_string();
    let library = [("Cublas", "cuBLAS (libcublas.so.13 or .12)"), ("Curand", "cuRAND (libcurand.so.10)")];
    match library.into_iter().find(|(word, _)| text.contains(word)) {
        Some((_, library)) => candle_core::Error::msg(format!(
            "the driver sees a GPU, but {library} was not found or does not start; put its folder into LD_LIBRARY_PATH (a CUDA \
             toolkit has it in lib64, PyTorch's packages below site-packages/nvidia)"
        )),
        None => candle_core::Error::msg(text.lines().next().unwrap_or_default()),
    }
}

/// How many GPUs there are; at least one.
fn count() -> Result<usize> {
    match CudaContext::device_count() {
        Ok(count @ 1..) => Ok(count as usize),
        Ok(_) | Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
            bail!(
                "there is no NVIDIA GPU to be used here: no driver (libcuda.so.1) was found, or it sees no GPU; \
                 `nvidia-smi` shows what the driver sees"
            )
        }
        Err(DriverError(sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)) => {
            bail!("the NVIDIA driver's library and kernel module are of different versions; restart the machine")
        }
        Err(e) => bail!("the NVIDIA driver does not answer ({e:?})"),
    }
}

/// What a device is, for people to read.
pub(crate) fn describe(device: &CudaDevice) -> Result<Vec<(&'static str, String)>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().w()?;
    let (major, minor) = context.compute_capability().w()?;
    let (free, total) = context.mem_get_info().w()?;
    let mut version = 0;
    // SAFETY: the call writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().w()?;
    let gigabytes = |bytes: usize| format!("{:.1} GB", bytes as f64 / 1e9);
    Ok(vec![
        ("GPU", format!("{} (number {})", context.name().w()?, context.ordinal())),
        ("compute", format!("capability {major}.{minor}, {} multiprocessors", Gpu::new(device).multiprocessors()?)),
        ("GPU memory", format!("{}, of which {} are free", gigabytes(total), gigabytes(free))),
        ("driver", format!("CUDA {}.{}", version / 1000, version % 1000 / 10)),
        ("convolution", crate::conv2d::algorithm(&Device::Cuda(device.clone()))),
    ])
}

/// Freed memory goes back to the driver at every synchronization unless the pool is told to keep it.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    if !stream.context().has_async_alloc() {
        return Ok(());
    }
    // SAFETY: the device is open, and the attribute is a 64-bit number that the call reads before it returns.
    unsafe {
        let pool = result::device::get_default_mem_pool(stream.context().cu_device()).w()?;
        let mut all = u64::MAX;
        let threshold = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut all).cast()).result().w()
    }
}

/// A device on which an op's arguments lie.
#[derive(Clone)]
pub(crate) struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
}

impl Gpu {
    /// The device of a tensor, if it is one of these.
    pub(crate) fn of(tensor: &Tensor) -> Option<Self> {
        match tensor.device() {
            Device::Cuda(device) => Some(Self::new(device)),
            _ => None,
        }
    }

    pub(crate) fn new(device: &CudaDevice) -> Self {
        Self { device: device.clone(), stream: device.cuda_stream() }
    }

    pub(crate) fn device(&self) -> &CudaDevice {
        &self.device
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Streaming multiprocessors.
    pub(crate) fn multiprocessors(&self) -> Result<u32> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        Ok(self.stream.context().attribute(attribute).w()?.max(1) as u32)
    }

    /// Uninitialized memory for `len` values of type `dtype`, for kernels to write before anything reads it.
    pub(crate) fn alloc(&self, dtype: DType, len: usize) -> Result<Buffer> {
        Buffer::new(self, dtype, len)
    }

    /// Zeros.
    pub(crate) fn zeros(&self, dtype: DType, len: usize) -> Result<Buffer> {
        let buffer = Buffer::new(self, dtype, len)?;
        self.fill_with_zeros(buffer.memory())?;
        Ok(buffer)
    }

    /// Sets memory to zeros.
    pub(crate) fn fill_with_zeros(&self, memory: Memory) -> Result<()> {
        if memory.bytes() == 0 {
            return Ok(());
        }
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the memory is that many bytes of this device, alive until the stream has passed this point.
        unsafe { result::memset_d8_async(memory.pointer(), 0, memory.bytes(), self.stream.cu_stream()).w() }
    }

    /// Copies values from one place to another of the same size.
    pub(crate) fn copy(&self, from: Memory, to: Memory) -> Result<()> {
        if from.bytes() != to.bytes() {
            bail!("a copy of {} bytes to {}", from.bytes(), to.bytes())
        }
        if from.bytes() == 0 {
            return Ok(());
        }
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: both are that many bytes of this device, alive until the stream has passed this point.
        unsafe { result::memcpy_dtod_async(to.pointer(), from.pointer(), from.bytes(), self.stream.cu_stream()).w() }
    }

    /// Copies values of the host to the device: parameters of a launch that are too many to be its arguments.
    pub(crate) fn upload<T: CudaDType + DeviceRepr + 'static>(&self, values: &[T]) -> Result<Buffer> {
        let slice = self.device.clone_htod(values)?;
        Ok(Buffer::wrap(CudaStorage::wrap_cuda_slice(slice, self.device.clone()), values.len()))
    }

    /// Starts `name` of a module: `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory each.
    ///
    /// # Safety
    /// The arguments must be those of the kernel, in number, order and type, and the kernel must stay inside of the memory that they name.
    pub(crate) unsafe fn launch(
        &self,
        module: &'static Module,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &mut [Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let context = self.stream.context();
        context.bind_to_thread().w()?;
        let function = module.function(context, name, shared)?;
        let mut pointers: Vec<_> = args.iter_mut().map(Arg::pointer).collect();
        let (grid, block) = (grid.into(), block.into());
        // SAFETY: the function belongs to this context, and the caller promises that the arguments are the kernel's.
        let started =
            unsafe { result::launch_kernel(function, grid, block, shared, self.stream.cu_stream(), &mut pointers) };
        match started {
            Ok(()) => Ok(()),
            Err(e) => {
                bail!("{name}: the kernel did not start ({e:?}; grid {grid:?}, block {block:?}, {shared} bytes shared)")
            }
        }
    }
}

/// The kernel `NAME_f32` or `NAME_bf16` for a type of elements.
pub(crate) fn named(name: &str, dtype: DType) -> Result<String> {
    match dtype {
        DType::F32 => Ok(format!("{name}_f32")),
        DType::BF16 => Ok(format!("{name}_bf16")),
        other => bail!("{name}: no kernel for {other:?}"),
    }
}
