//! ReLU whose derivative at 0 is 0, as PyTorch's is (Candle's own passes the gradient there).

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::bf16;

use crate::dense::{Dense, Element, activation, slice, tensor};

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

const NAME: &str = "relu";

/// `max(x, 0)` of any shape, f32 or bf16; the derivative at 0 is 0 and a NaN stays a NaN.
///
/// # Errors
/// If `x` is neither f32 nor bf16, or not on the CPU.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    activation(NAME, "x", x)?.apply_op1(Relu)
}

/// The gradient of x: dy where y, the result of [`relu`], is above 0 (or NaN), else 0. Without a graph.
///
/// # Errors
/// If shapes or types differ, or as [`relu`].
pub fn relu_backward(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if y.dims() != dy.dims() || y.dtype() != dy.dtype() {
        bail!("{NAME}: y is {:?} {:?}, dy {:?} {:?}", y.dtype(), y.dims(), dy.dtype(), dy.dims())
    }
    let (y, dy) = (activation(NAME, "y", y)?, dy.contiguous()?);
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(&y) {
        return cuda::backward(&gpu, &y, &dy);
    }
    fn mask<T: Element>(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
        tensor(cpu::backward::<T>(&Dense::new(NAME, y)?, &Dense::new(NAME, dy)?), y.shape())
    }
    match y.dtype() {
        DType::BF16 => mask::<bf16>(&y, &dy),
        _ => mask::<f32>(&y, &dy),
    }
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = match storage {
            CpuStorage::BF16(_) => bf16::to_cpu_storage_owned(cpu::forward::<bf16>(slice(NAME, storage, layout)?)),
            _ => f32::to_cpu_storage_owned(cpu::forward::<f32>(slice(NAME, storage, layout)?)),
        };
        Ok((y, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        Ok((cuda::forward(storage, layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        relu_backward(y, dy).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op, check_op_bf16};
    use candle_core::{Device, Var};

    fn check(shape: &[usize]) {
        let reference = |x: &[Array]| x[0].map(|v| v.max(0.0));
        let x = [Array::random(shape, 5)];
        check_op(&|x| relu(&x[0]), &reference, &x, Tolerance::default()).unwrap();
        check_op_bf16(&|x| relu(&x[0]), &reference, &x, &[0], Tolerance::BF16).unwrap();
    }

    #[test]
    fn relu_equals_the_reference() {
        check(&[2, 3, 5, 7]);
        check(&[1]);
    }

    /// PyTorch 2.15: torch.relu(x).sum().backward() gives x.grad = [0, 0, 0, 1] at [-1, 0, -0, 2].
    #[test]
    fn the_derivative_at_zero_is_zero() -> Result<()> {
        let x = Var::new(&[-1f32, 0.0, -0.0, 2.0], &Device::Cpu)?;
        let grads = relu(x.as_tensor())?.sum_all()?.backward()?;
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [0.0, 0.0, 0.0, 1.0]);
        Ok(())
    }

    #[test]
    fn nan_and_infinity_pass_through() -> Result<()> {
        let x = Tensor::new(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], &Device::Cpu)?;
        for dtype in [DType::F32, DType::BF16] {
            let y = relu(&x.to_dtype(dtype)?)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            assert!(y[0].is_nan());
            assert_eq!(y[1..], [f32::INFINITY, 0.0]);
        }
        Ok(())
    }
}
