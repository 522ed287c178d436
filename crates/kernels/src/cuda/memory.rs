//! Device memory as launches see it: an address, a length and a type.

use std::marker::PhantomData;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice as Slice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

use super::Gpu;

/// Contiguous values in device memory, which live at least as long as `'a`.
///
/// Whether a kernel may write them is the launch's business: all work of a device is in one stream, so that a write happens after everything that was
/// asked for before, and the host never looks at the memory itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory<'a> {
    pointer: u64,
    len: usize,
    dtype: DType,
    life: PhantomData<&'a ()>,
}

impl<'a> Memory<'a> {
    /// The values of a contiguous tensor on this device.
    pub(crate) fn of(op: &str, gpu: &Gpu, tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            bail!("{op}: a tensor is on the CPU, another on a GPU; move them together with to_device")
        };
        if storage.device.id() != gpu.device().id() {
            bail!("{op}: tensors lie on two devices; move them together with to_device")
        }
        let (pointer, len) = values(op, storage, layout)?;
        Ok(Self { pointer, len, dtype: tensor.dtype(), life: PhantomData })
    }

    /// The values that a custom op's argument shows.
    pub(crate) fn of_storage(op: &str, storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        let (pointer, len) = values(op, storage, layout)?;
        Ok(Self { pointer, len, dtype: storage.dtype(), life: PhantomData })
    }

    pub(crate) fn pointer(self) -> u64 {
        self.pointer
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    pub(crate) fn dtype(self) -> DType {
        self.dtype
    }

    pub(crate) fn bytes(self) -> usize {
        self.len * self.dtype.size_in_bytes()
    }

    /// `len` of the values from `start` on.
    pub(crate) fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "a part of {len} from {start} on of {} values", self.len);
        Self { pointer: self.pointer + (start * self.dtype.size_in_bytes()) as u64, len, ..self }
    }

    /// Whether rows of `row` values may be read 16 bytes at a time.
    pub(crate) fn vectors(self, row: usize) -> bool {
        self.pointer.is_multiple_of(16) && (row * self.dtype.size_in_bytes()).is_multiple_of(16)
    }
}

/// Memory that belongs to nobody else, on its way to become a tensor.
#[derive(Debug)]
pub(crate) struct Buffer {
    storage: CudaStorage,
    len: usize,
}

impl Buffer {
    pub(super) fn new(gpu: &Gpu, dtype: DType, len: usize) -> Result<Self> {
        let device = gpu.device();
        // Zero bytes have no address; a single value is never used instead.
        let room = len.max(1);
        // SAFETY: what a launch does not write stays undefined; every type here allows any bits, and ops write all of their results.
        let slice = unsafe {
            match dtype {
                DType::U8 => Slice::U8(device.alloc(room)?),
                DType::U32 => Slice::U32(device.alloc(room)?),
                DType::I64 => Slice::I64(device.alloc(room)?),
                DType::BF16 => Slice::BF16(device.alloc(room)?),
                DType::F32 => Slice::F32(device.alloc(room)?),
                DType::F64 => Slice::F64(device.alloc(room)?),
                other => bail!("no buffers of {other:?}"),
            }
        };
        Ok(Self { storage: CudaStorage { slice, device: device.clone() }, len })
    }

    pub(super) fn wrap(storage: CudaStorage, len: usize) -> Self {
        Self { storage, len }
    }

    pub(crate) fn memory(&self) -> Memory<'_> {
        let pointer = base("buffer", &self.storage).unwrap_or_default();
        Memory { pointer, len: self.len, dtype: self.storage.dtype(), life: PhantomData }
    }

    pub(crate) fn pointer(&self) -> u64 {
        self.memory().pointer()
    }

    pub(crate) fn into_tensor(self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elem_count() != self.len {
            bail!("{} values for the shape {shape:?}", self.len)
        }
        Ok(Tensor::from_storage(Storage::Cuda(self.storage), shape, BackpropOp::none(), false))
    }

    /// The result of a custom op.
    pub(crate) fn into_storage(self) -> CudaStorage {
        self.storage
    }
}

/// Where contiguous values begin, and how many they are.
fn values(op: &str, storage: &CudaStorage, layout: &Layout) -> Result<(u64, usize)> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: a tensor that is not contiguous") };
    Ok((base(op, storage)? + (start * storage.dtype().size_in_bytes()) as u64, end - start))
}

/// Where a storage's memory begins.
fn base(op: &str, storage: &CudaStorage) -> Result<u64> {
    fn address<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> u64 {
        slice.device_ptr(stream).0
    }
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        Slice::U8(slice) => address(slice, &stream),
        Slice::U32(slice) => address(slice, &stream),
        Slice::I64(slice) => address(slice, &stream),
        Slice::BF16(slice) => address(slice, &stream),
        Slice::F32(slice) => address(slice, &stream),
        Slice::F64(slice) => address(slice, &stream),
        _ => {
            bail!("{op}: a tensor is {:?}; only u8, u32, i64, bf16, f32 and f64 tensors are supported", storage.dtype())
        }
    })
}
