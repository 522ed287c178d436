//! A tensor of a file as it lies there: type, shape and bytes.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, View};

/// A tensor of a file: little-endian values in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// What its values are.
    pub dtype: Dtype,
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its values.
    pub bytes: Vec<u8>,
}

impl Array {
    /// f32 values, bit for bit.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// One whole number, of no sides, as PyTorch counts the batches of a norm.
    pub fn from_count(count: i64) -> Self {
        Self { dtype: Dtype::I64, shape: Vec::new(), bytes: count.to_le_bytes().to_vec() }
    }

    /// The number of a tensor that [`from_count`](Self::from_count) makes.
    pub fn count(&self) -> Option<i64> {
        let bytes = self.bytes.as_slice().try_into().ok()?;
        (self.dtype == Dtype::I64).then(|| i64::from_le_bytes(bytes))
    }

    /// The values as f32: what is f32 is left as it is, f64 is rounded, f16 and bf16 keep their values.
    ///
    /// # Errors
    /// If they are no floats.
    pub fn into_f32(self) -> Result<Self> {
        let values: Vec<f32> = match self.dtype {
            Dtype::F32 => return Ok(self),
            Dtype::F64 => chunks(&self.bytes).map(|bytes| f64::from_le_bytes(bytes) as f32).collect(),
            Dtype::F16 => chunks(&self.bytes).map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            Dtype::BF16 => chunks(&self.bytes).map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
            other => bail!("holds {other:?} values, weights are floats (f16, bf16, f32 or f64)"),
        };
        Ok(Self::from_f32(&self.shape, &values))
    }

    /// The same in Candle, as f32 on the CPU.
    ///
    /// # Errors
    /// As [`into_f32`](Self::into_f32).
    pub fn tensor(&self) -> Result<Tensor> {
        if self.dtype != Dtype::F32 {
            return self.clone().into_f32()?.tensor();
        }
        let values: Vec<f32> = chunks(&self.bytes).map(f32::from_le_bytes).collect();
        Ok(Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)?)
    }

    /// From Candle's tensor of f32 or i64.
    ///
    /// # Errors
    /// If the device cannot copy, or the values are of another type.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let flat = tensor.flatten_all()?;
        let shape = tensor.dims().to_vec();
        match tensor.dtype() {
            candle_core::DType::F32 => Ok(Self::from_f32(&shape, &flat.to_vec1::<f32>()?)),
            candle_core::DType::I64 => {
                let bytes = flat.to_vec1::<i64>()?.iter().flat_map(|value| value.to_le_bytes()).collect();
                Ok(Self { dtype: Dtype::I64, shape, bytes })
            }
            other => bail!("a weights file holds f32 and i64, not {other:?}"),
        }
    }

    /// The tensor of these sides that lies in a storage at `offset` with `stride`, both in elements, as PyTorch describes one.
    ///
    /// # Errors
    /// If it reaches beyond the storage, or has more values than that.
    pub(crate) fn gather(
        storage: &[u8],
        dtype: Dtype,
        offset: usize,
        shape: &[usize],
        stride: &[usize],
    ) -> Result<Self> {
        let beyond = || {
            format!(
                "has shape {shape:?} with strides {stride:?} at {offset}, beyond its storage of {} bytes",
                storage.len()
            )
        };
        if shape.len() != stride.len() || shape.len() > 16 {
            bail!("has {} sides and {} strides", shape.len(), stride.len())
        }
        let size = dtype.bitsize() / 8;
        let count = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        let count = count.filter(|count| count.checked_mul(size).is_some_and(|bytes| bytes <= storage.len()));
        let count = count.with_context(beyond)?;
        let far =
            |sum: usize, (side, step): (&usize, &usize)| sum.checked_add(step.checked_mul(side.saturating_sub(1))?);
        let end =
            shape.iter().zip(stride).try_fold(offset, far).and_then(|last| last.checked_add(1)?.checked_mul(size));
        if count > 0 && end.is_none_or(|end| end > storage.len()) {
            bail!(beyond())
        }
        let mut bytes = Vec::with_capacity(count * size);
        if count > 0 {
            copy(&mut bytes, storage, size, offset, shape, stride);
        }
        Ok(Self { dtype, shape: shape.to_vec(), bytes })
    }
}

/// Appends the values in row-major order; all bounds are checked by the caller.
fn copy(out: &mut Vec<u8>, storage: &[u8], size: usize, at: usize, shape: &[usize], stride: &[usize]) {
    let mut row = 1;
    let contiguous = shape.iter().zip(stride).rev().all(|(side, step)| {
        let fits = *side == 1 || *step == row;
        row *= side;
        fits
    });
    if contiguous {
        out.extend_from_slice(&storage[at * size..(at + row) * size]);
        return;
    }
    for i in 0..shape[0] {
        copy(out, storage, size, at + i * stride[0], &shape[1..], &stride[1..]);
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(count: usize) -> Vec<u8> {
        (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    fn values(array: &Array) -> Vec<f32> {
        array.tensor().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn strides_are_followed() {
        let whole = storage(24);
        let rows = Array::gather(&whole, Dtype::F32, 4, &[2, 3], &[3, 1]).unwrap();
        assert_eq!(values(&rows), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let turned = Array::gather(&whole, Dtype::F32, 0, &[3, 2], &[1, 3]).unwrap();
        assert_eq!(values(&turned), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let scalar = Array::gather(&whole, Dtype::F32, 23, &[], &[]).unwrap();
        assert_eq!(values(&scalar), [23.0]);
        assert_eq!(Array::gather(&whole, Dtype::F32, 99, &[0, 3], &[3, 1]).unwrap().bytes.len(), 0);
    }

    #[test]
    fn what_lies_beyond_the_storage_is_refused() {
        let whole = storage(24);
        let huge = usize::MAX;
        for (offset, shape, stride) in [
            (19, vec![2, 3], vec![3, 1]),
            (0, vec![25], vec![1]),
            (0, vec![2, 2], vec![23, 1]),
            (huge, vec![1], vec![1]),
            (0, vec![huge, huge], vec![1, 1]),
            (0, vec![1 << 40], vec![0]),
            (0, vec![2], vec![huge]),
            (0, vec![2], vec![]),
        ] {
            let result = Array::gather(&whole, Dtype::F32, offset, &shape, &stride);
            assert!(result.is_err(), "{offset} {shape:?} {stride:?}");
        }
    }

    #[test]
    fn halves_and_doubles_become_floats() {
        let half = Array { dtype: Dtype::F16, shape: vec![2], bytes: vec![0x00, 0x3c, 0x00, 0xc0] };
        assert_eq!(values(&half), [1.0, -2.0]);
        let brain = Array { dtype: Dtype::BF16, shape: vec![1], bytes: vec![0x80, 0x3f] };
        assert_eq!(values(&brain), [1.0]);
        let double = Array { dtype: Dtype::F64, shape: vec![1], bytes: 0.1f64.to_le_bytes().to_vec() };
        assert_eq!(values(&double), [0.1f32]);
        assert!(Array::from_count(3).into_f32().is_err());
        assert_eq!(Array::from_count(3).count(), Some(3));
    }

    /// A signaling NaN keeps its bits.
    #[test]
    fn floats_keep_their_bits() {
        let bits = [0x7fa0_0001u32, 0x8000_0000, 0x0000_0001];
        let array = Array::from_f32(&[3], &bits.map(f32::from_bits));
        let back = Array::from_tensor(&array.tensor().unwrap()).unwrap();
        assert_eq!(back, array);
    }
}
