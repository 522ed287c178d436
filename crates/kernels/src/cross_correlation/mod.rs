//! The Barlow Twins loss as one op: batch normalization, cross-correlation and both terms in one pass.

mod cpu;
mod direct;
mod dual;
pub mod reference;
mod standardize;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::dense::{Dense, slice};
use crate::embeddings::pair;

/// The Barlow Twins loss and its two terms.
pub struct BarlowTwinsParts {
    /// `invariance + lambda * redundancy`, `[]` f32; the only one that carries gradients.
    pub total: Tensor,
    /// `sum_i (C_ii - 1)^2`, `[]` f32, detached.
    pub invariance: Tensor,
    /// `sum_{i != j} C_ij^2`, `[]` f32, detached and without lambda.
    pub redundancy: Tensor,
}

/// The loss of Barlow Twins (arXiv:2103.03230, eq. 1 and 2) as its official code computes it.
///
/// `z1`, `z2`: `[N, D]`, row i of both from the same image. Each column is normalized to mean 0 and variance 1 by the
/// biased variance plus `eps` (the code's batch norm without affine; its `eps` is 1e-5); then
///
/// ```text
/// C = z1^T z2 / N,   L = sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2
/// ```
///
/// The gradient goes through the normalization. Where D >= N, the D x D matrix is never made: the same sums come from the
/// two N x N Gram matrices. Beside the gradients no more than three quarters of the views' memory is needed, and little
/// where N is far from D. The result is the same for any number of threads.
///
/// # Errors
/// If the shapes differ, N < 2, `lambda` is negative or not finite, `eps` is not positive and finite, or the tensors are
/// not f32 on the CPU.
pub fn barlow_twins(z1: &Tensor, z2: &Tensor, lambda: f64, eps: f64) -> Result<BarlowTwinsParts> {
    let (z1, z2) = pair("barlow_twins", z1, z2)?;
    if !(lambda.is_finite() && lambda >= 0.0) {
        bail!("barlow_twins: lambda must not be negative, is {lambda}")
    }
    if !(eps.is_finite() && eps > 0.0) {
        bail!("barlow_twins: eps must be positive and finite, is {eps}")
    }
    let saved = Arc::new(OnceLock::new());
    let total = z1.apply_op2(&z2, BarlowTwins { lambda, eps, saved: saved.clone() })?;
    let Some(saved) = saved.get() else { bail!("barlow_twins: the forward pass left no parts") };
    let scalar = |v: f64| Tensor::new(v as f32, z1.device());
    Ok(BarlowTwinsParts { total, invariance: scalar(saved.invariance)?, redundancy: scalar(saved.redundancy)? })
}

/// One application of the op; its forward pass leaves here what its backward pass needs.
struct BarlowTwins {
    lambda: f64,
    eps: f64,
    saved: Arc<OnceLock<cpu::Saved>>,
}

impl CustomOp2 for BarlowTwins {
    fn name(&self) -> &'static str {
        "barlow-twins"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (z1, z2) = (slice("barlow_twins", s1, l1)?, slice("barlow_twins", s2, l2)?);
        let saved = cpu::forward(z1, z2, l1.dims()[1], self.eps);
        let total = (saved.invariance + self.lambda * saved.redundancy) as f32;
        if self.saved.set(saved).is_err() {
            bail!("barlow-twins: one op value was applied twice")
        }
        Ok((CpuStorage::F32(vec![total]), Shape::from(())))
    }

    fn bwd(&self, z1: &Tensor, z2: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved.get() else { bail!("barlow-twins: backward before forward") };
        let upstream = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let (v1, v2) = (Dense::new("barlow_twins", z1)?, Dense::new("barlow_twins", z2)?);
        let [d1, d2] = cpu::backward(saved, &v1, &v2, self.lambda, upstream);
        let tensor = |v| Tensor::from_vec(v, z1.shape(), z1.device());
        Ok((Some(tensor(d1)?), Some(tensor(d2)?)))
    }
}
