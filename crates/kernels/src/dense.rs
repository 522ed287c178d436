//! From tensors to slices: the checks that every op makes once, so that its `cpu.rs` sees `&[f32]` and nothing else.

use std::ops::Deref;

use candle_core::{CpuStorage, Layout, Result, Storage, StorageRef, Tensor, bail};

/// The contiguous f32 values behind a custom op's argument.
pub(crate) fn slice<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: a tensor that is not contiguous") };
    match storage {
        CpuStorage::F32(values) => Ok(&values[start..end]),
        other => bail!("{op} takes f32 tensors, not {:?}", candle_core::backend::BackendStorage::dtype(other)),
    }
}

/// A contiguous f32 CPU tensor's values, for a backward pass; holds the tensor's read lock.
pub(crate) struct Dense<'a> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
}

impl<'a> Dense<'a> {
    pub(crate) fn new(op: &str, tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(values) = &*storage else { bail!("{op} runs on the CPU only in this build") };
        slice(op, values, layout)?;
        // `slice` found the tensor contiguous.
        let start = layout.start_offset();
        Ok(Self { end: start + layout.shape().elem_count(), start, storage })
    }
}

impl Deref for Dense<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            // `new` has refused every other kind.
            _ => &[],
        }
    }
}

/// A tensor of an op's argument, contiguous; an error in words if it is not f32 on the CPU.
pub(crate) fn input(op: &str, name: &str, x: &Tensor) -> Result<Tensor> {
    if x.dtype() != candle_core::DType::F32 {
        bail!("{op}: {name} is {:?}; only f32 tensors are supported, convert it with to_dtype", x.dtype())
    }
    if !x.device().is_cpu() {
        bail!("{op}: {name} is on {:?}; this op runs on the CPU only in this build", x.device().location())
    }
    x.contiguous()
}
