//! Rows to unit length, f32 or bf16.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::bf16;

use crate::dense::{Dense, activation, slice, tensor};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod reference;

const NAME: &str = "l2_normalize";

/// `y_i = x_i / |x_i|` for each row of `x` `[N, D]`; a zero row stays zero and gets no gradient.
///
/// Zero means a norm below 1.2e-38 (PyTorch's `normalize` divides every norm below 1e-12 by 1e-12 instead, gradient included).
///
/// # Errors
/// If x is not of rank 2, neither f32 nor bf16, or D is 0.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    match x.dims() {
        &[_, dim] if dim > 0 => activation(NAME, "x", x)?.apply_op1(Normalize { dim }),
        dims => bail!("{NAME}: x has shape {dims:?}; expected [N, D]"),
    }
}

struct Normalize {
    dim: usize,
}

impl CustomOp1 for Normalize {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = match storage {
            CpuStorage::BF16(_) => {
                bf16::to_cpu_storage_owned(cpu::normalize::<bf16>(slice(NAME, storage, layout)?, self.dim))
            }
            _ => f32::to_cpu_storage_owned(cpu::normalize::<f32>(slice(NAME, storage, layout)?, self.dim)),
        };
        Ok((y, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        Ok((cuda::forward(storage, layout, self.dim)?, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        #[cfg(feature = "cuda")]
        if let Some(gpu) = crate::cuda::Gpu::of(x) {
            return cuda::backward(&gpu, &dy, x, self.dim).map(Some);
        }
        let dx = match x.dtype() {
            DType::BF16 => {
                let (dy, x) = (Dense::<bf16>::new(NAME, &dy)?, Dense::new(NAME, x)?);
                tensor(cpu::backward(&dy, &x, self.dim), y.shape())
            }
            _ => {
                let (dy, x) = (Dense::<f32>::new(NAME, &dy)?, Dense::new(NAME, x)?);
                tensor(cpu::backward(&dy, &x, self.dim), y.shape())
            }
        };
        dx.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op, check_op_bf16, device};
    use candle_core::Var;

    #[test]
    fn l2_normalize_equals_the_reference() {
        let reference = |a: &[Array]| Array::new(&a[0].shape, reference::normalize(&a[0].data, a[0].shape[1]));
        let op = |t: &[Tensor]| l2_normalize(&t[0]);
        for (shape, seed) in [([5, 7], 1), ([1, 129], 2), ([3, 1], 3), ([9, 16], 4)] {
            let x = [Array::random(&shape, seed)];
            check_op(&op, &reference, &x, Tolerance::default()).unwrap();
            check_op_bf16(&op, &reference, &x, &[0], Tolerance::BF16).unwrap();
        }
    }

    #[test]
    fn a_zero_row_stays_zero_without_gradient() -> Result<()> {
        let x = Var::new(&[[0f32, 0.0], [3.0, 4.0]], &device()?)?;
        let y = l2_normalize(&x)?;
        assert_eq!(y.to_vec2::<f32>()?, [[0.0, 0.0], [0.6, 0.8]]);
        let grads = y.sum_all()?.backward()?;
        assert_eq!(grads.get(&x).unwrap().to_vec2::<f32>()?[0], [0.0, 0.0]);
        Ok(())
    }

    /// The squares of these rows over- and underflow in f32.
    #[test]
    fn huge_and_tiny_rows_have_unit_length() -> Result<()> {
        let x = Tensor::new(&[[3e30f32, 4e30], [3e-30, 4e-30]], &device()?)?;
        for row in l2_normalize(&x)?.to_vec2::<f32>()? {
            assert!((row[0] - 0.6).abs() < 1e-6 && (row[1] - 0.8).abs() < 1e-6, "{row:?}");
        }
        Ok(())
    }

    #[test]
    fn nan_is_not_hidden() -> Result<()> {
        let y = l2_normalize(&Tensor::new(&[[1f32, f32::NAN]], &device()?)?)?.to_vec2::<f32>()?;
        assert!(y[0].iter().all(|v| v.is_nan()), "{y:?}");
        Ok(())
    }
}
