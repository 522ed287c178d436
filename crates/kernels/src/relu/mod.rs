//! ReLU whose derivative at 0 is 0, as PyTorch's is (Candle's own passes the gradient there).

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Elements a task takes: large enough to pay for its start, small enough to share among threads.
const CHUNK: usize = 1 << 16;

struct Relu;

/// The gradient: `dy` where `y > 0`, else 0.
struct ReluGrad;

/// `max(x, 0)` for f32 tensors of any shape; the derivative at 0 is 0 and a NaN stays a NaN.
///
/// # Errors
/// If `x` is not f32 or not on the CPU.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Relu)
}

fn dense<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) =
        layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("relu: not contiguous".into()))?;
    match storage {
        CpuStorage::F32(v) => Ok(&v[start..end]),
        _ => bail!("relu takes f32 tensors"),
    }
}

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = dense(storage, layout)?;
        // Written so that NaN, which is not <= 0, passes through.
        let y = x.par_iter().with_min_len(CHUNK).map(|&v| if v <= 0.0 { 0.0 } else { v }).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(y.apply_op2_no_bwd(&dy.contiguous()?, &ReluGrad)?))
    }
}

impl CustomOp2 for ReluGrad {
    fn name(&self) -> &'static str {
        "relu-grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, dy) = (dense(s1, l1)?, dense(s2, l2)?);
        let dx = y.par_iter().with_min_len(CHUNK).zip(dy).map(|(&y, &dy)| if y <= 0.0 { 0.0 } else { dy }).collect();
        Ok((CpuStorage::F32(dx), l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op};
    use candle_core::{Device, Var};

    fn check(shape: &[usize]) {
        let reference = |x: &[Array]| x[0].map(|v| v.max(0.0));
        check_op(&|x| relu(&x[0]), &reference, &[Array::random(shape, 5)], Tolerance::default()).unwrap();
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
        let y = relu(&x)?.to_vec1::<f32>()?;
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [f32::INFINITY, 0.0]);
        Ok(())
    }
}
