//! Values in another type, on the device: f32 masters as bf16, and bf16 gradients as f32.

use candle_core::{DType, Result, bail};

use super::{Buffer, Gpu, Memory, modules};

/// Memory of a caller, or a copy of it in another type.
pub(crate) enum Cast<'a> {
    Same(Memory<'a>),
    Copy(Buffer),
}

impl Cast<'_> {
    pub(crate) fn memory(&self) -> Memory<'_> {
        match self {
            Self::Same(memory) => *memory,
            Self::Copy(buffer) => buffer.memory(),
        }
    }
}

/// `x` as values of `dtype`: itself, or a copy to the nearest bf16 or to f32.
pub(crate) fn cast<'a>(op: &str, gpu: &Gpu, x: Memory<'a>, dtype: DType) -> Result<Cast<'a>> {
    if x.dtype() == dtype {
        return Ok(Cast::Same(x));
    }
    let y = gpu.alloc(dtype, x.len())?;
    cast_into(op, gpu, x, y.memory())?;
    Ok(Cast::Copy(y))
}

/// Writes `x`, f32 or bf16, to `y` of the other type.
pub(crate) fn cast_into(op: &str, gpu: &Gpu, x: Memory, y: Memory) -> Result<()> {
    const THREADS: usize = 256;
    let name = match (x.dtype(), y.dtype()) {
        (DType::F32, DType::BF16) => "cast_narrow",
        (DType::BF16, DType::F32) => "cast_widen",
        (from, to) => bail!("{op}: no conversion of {from:?} to {to:?}"),
    };
    if x.len() != y.len() {
        bail!("{op}: {} values to convert, room for {}", x.len(), y.len())
    }
    let aligned = x.vectors(0) && y.vectors(0);
    let args = &mut [x.into(), y.into(), (x.len() as i64).into(), aligned.into()];
    let grid = [x.len().div_ceil(8 * THREADS) as u32, 1, 1];
    // SAFETY: the kernel takes both arrays, their common length and whether they are aligned, and stays below the length.
    unsafe { gpu.launch(&modules::CAST, name, grid, [THREADS as u32, 1, 1], 0, args) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Array;

    /// Against half's conversion, for lengths of no, one and many vectors, from unaligned beginnings too.
    #[test]
    fn casts_round_to_nearest_even() {
        for (n, from) in [(1, 0), (8, 0), (8, 1), (5000, 0), (5001, 3)] {
            let all = Array::random(&[n + from], 1);
            let x = all.tensor().unwrap().narrow(0, from, n).unwrap();
            let Some(gpu) = Gpu::of(&x) else { return };
            let narrowed = cast("cast", &gpu, Memory::of("cast", &gpu, &x).unwrap(), DType::BF16).unwrap();
            let wide = cast("cast", &gpu, narrowed.memory(), DType::F32).unwrap();
            let Cast::Copy(wide) = wide else { panic!("a copy is expected") };
            let expected = all.data[from..].iter().map(|&v| half::bf16::from_f32(v as f32).to_f64());
            let got = Array::of(&wide.into_tensor(n).unwrap()).unwrap().data;
            for (i, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                assert_eq!(got, expected, "value {i} of {n}, from {from} on, of {}", all.data[from + i]);
            }
        }
    }
}
