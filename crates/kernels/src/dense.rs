//! From tensors to slices: the checks that every op makes once, so that its `cpu.rs` sees `&[f32]` or `&[bf16]` and
//! nothing else.

use std::marker::PhantomData;
use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, StorageRef, Tensor, WithDType, bail};
use half::bf16;
use rayon::prelude::*;

use crate::isa::multiversion;

/// What activations are stored as. Sums and statistics are always f32 or wider.
pub(crate) trait Element: WithDType {
    /// The value, exactly.
    fn widen(self) -> f32;

    /// The nearest value, ties to even; infinities and NaN stay what they are.
    fn narrow(v: f32) -> Self;

    /// The largest value that [`Element::narrow`] makes 0.
    const VANISHING: f32;

    /// The values of a storage of this type, to be changed.
    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Element for f32 {
    const VANISHING: f32 = 0.0;

    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(v: f32) -> Self {
        v
    }
}

impl Element for bf16 {
    /// Half of the least subnormal number, 2^-134, a tie that goes to 0.
    const VANISHING: f32 = f32::from_bits(0x8000);

    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::BF16(values) = storage { Some(values) } else { None }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without branches, so that loops over it become vector code (half's own has one).
    #[inline(always)]
    fn narrow(v: f32) -> Self {
        let bits = v.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
        // A NaN is cut off and made quiet: rounding could carry it into an infinity.
        let nan = (bits >> 16) | 0x0040;
        bf16::from_bits(if v.is_nan() { nan } else { rounded } as u16)
    }
}

/// Values that a task converts.
const CHUNK: usize = 1 << 14;

multiversion! {
    fn widen_into(values: &[bf16], out: &mut [f32]) {
        for (out, v) in out.iter_mut().zip(values) {
            *out = v.widen();
        }
    }

    fn narrow_into(values: &[f32], out: &mut [bf16]) {
        for (out, v) in out.iter_mut().zip(values) {
            *out = bf16::narrow(*v);
        }
    }

    fn round_into(values: &[f32], out: &mut [f32]) {
        for (out, v) in out.iter_mut().zip(values) {
            *out = bf16::narrow(*v).widen();
        }
    }
}

fn converted<T: Copy + Sync, U: Copy + Default + Send>(values: &[T], f: impl Fn(&[T], &mut [U]) + Sync) -> Vec<U> {
    let mut out = vec![U::default(); values.len()];
    out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(out, values)| f(values, out));
    out
}

/// The values as f32.
pub(crate) fn widen(values: &[bf16]) -> Vec<f32> {
    converted(values, widen_into)
}

/// The values rounded to bf16.
pub(crate) fn narrow(values: &[f32]) -> Vec<bf16> {
    converted(values, narrow_into)
}

/// The values rounded to bf16, as f32.
pub(crate) fn round(values: &[f32]) -> Vec<f32> {
    converted(values, round_into)
}

/// The contiguous values behind a custom op's argument.
pub(crate) fn slice<'a, T: Element>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: a tensor that is not contiguous") };
    match T::cpu_storage_as_slice(storage) {
        Ok(values) => Ok(&values[start..end]),
        Err(_) => {
            let other = candle_core::backend::BackendStorage::dtype(storage);
            bail!("{op}: a tensor is {other:?} where {:?} is expected", T::DTYPE)
        }
    }
}

/// A contiguous CPU tensor's values, for a backward pass; holds the tensor's read lock.
pub(crate) struct Dense<'a, T = f32> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
    element: PhantomData<T>,
}

impl<'a, T: Element> Dense<'a, T> {
    pub(crate) fn new(op: &str, tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(values) = &*storage else {
            bail!("{op}: a tensor is on a GPU where one on the CPU is expected")
        };
        slice::<T>(op, values, layout)?;
        // `slice` found the tensor contiguous.
        let start = layout.start_offset();
        Ok(Self { end: start + layout.shape().elem_count(), start, storage, element: PhantomData })
    }
}

impl<T: Element> Deref for Dense<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.storage {
            // `new` has refused every other kind.
            Storage::Cpu(values) => T::cpu_storage_as_slice(values).map_or(&[], |v| &v[self.start..self.end]),
            _ => &[],
        }
    }
}

/// A tensor of an op's argument, contiguous; an error in words if it is not f32, or on a device that ops do not run on.
pub(crate) fn input(op: &str, name: &str, x: &Tensor) -> Result<Tensor> {
    if x.dtype() != DType::F32 {
        bail!("{op}: {name} is {:?}; only f32 tensors are supported, convert it with to_dtype", x.dtype())
    }
    placed(op, name, x)
}

/// [`input`] for a tensor that may be f32 or bf16: the op's activations, whose type decides its precision.
pub(crate) fn activation(op: &str, name: &str, x: &Tensor) -> Result<Tensor> {
    if !matches!(x.dtype(), DType::F32 | DType::BF16) {
        bail!("{op}: {name} is {:?}; only f32 and bf16 tensors are supported, convert it with to_dtype", x.dtype())
    }
    placed(op, name, x)
}

fn placed(op: &str, name: &str, x: &Tensor) -> Result<Tensor> {
    let here = x.device().is_cpu() || (cfg!(feature = "cuda") && x.device().is_cuda());
    if !here {
        bail!("{op}: {name} is on {:?}; this build has no kernels for it", x.device().location())
    }
    x.contiguous()
}

/// A CPU tensor that takes over these values.
pub(crate) fn tensor<T: Element>(values: Vec<T>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against half's conversion, which is written differently, at ties, near infinity, at NaN and over random bits.
    #[test]
    fn narrow_rounds_to_nearest_even() {
        let special = [0, 0x8000_0000, 0x3F80_8000, 0x3F81_8000, 0x7F7F_FFFF, 0x7F80_0000, 0xFF80_0001, 0x7FFF_FFFF, 1];
        let random = (0..100_000u32).map(|i| i.wrapping_mul(0x9E37_79B9));
        for bits in special.into_iter().chain(random) {
            let v = f32::from_bits(bits);
            let (got, expected) = (bf16::narrow(v), bf16::from_f32(v));
            assert_eq!(got.to_bits(), expected.to_bits(), "{v} ({bits:x})");
            assert!(got.widen().to_bits() == expected.to_f32().to_bits() || v.is_nan(), "{v} ({bits:x})");
        }
    }
}
