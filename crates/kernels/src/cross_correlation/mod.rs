//! The Barlow Twins loss as one op: batch normalization, cross-correlation and both terms in one pass.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod direct;
mod dual;
pub mod reference;
mod standardize;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Memory};
use crate::dense::{Dense, slice};
use crate::embeddings::pair;

const NAME: &str = "barlow_twins";

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
/// The tensors are f32 or bf16, whose values are taken as f32. On a GPU products are exact f32, or TF32 where the run allows it.
///
/// # Errors
/// If the shapes differ, N < 2, `lambda` is negative or not finite, `eps` is not positive and finite, or the tensors are
/// of another type or on two devices.
pub fn barlow_twins(z1: &Tensor, z2: &Tensor, lambda: f64, eps: f64) -> Result<BarlowTwinsParts> {
    let (z1, z2) = check(z1, z2, lambda, eps)?;
    let saved = Arc::new(OnceLock::new());
    let total = z1.apply_op2(&z2, BarlowTwins { lambda, eps, saved: saved.clone() })?;
    let Some(saved) = saved.get() else { bail!("{NAME}: the forward pass left no parts") };
    saved.parts(total)
}

/// [`barlow_twins`] and the gradients of its total for `z1` and `z2`, `[N, D]` f32, without a graph: Candle's would hold
/// zeros and a sum beside each gradient.
///
/// # Errors
/// As [`barlow_twins`].
pub fn loss_and_gradients(z1: &Tensor, z2: &Tensor, lambda: f64, eps: f64) -> Result<(BarlowTwinsParts, [Tensor; 2])> {
    let (z1, z2) = check(z1, z2, lambda, eps)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&z1) {
        let views = [Memory::of(NAME, &gpu, &z1)?, Memory::of(NAME, &gpu, &z2)?];
        let (total, saved) = cuda::forward(&gpu, views, z1.dim(1)?, [lambda, eps])?;
        let one = Tensor::ones((), DType::F32, z1.device())?;
        let gradients = cuda::backward(&gpu, &saved, [&z1, &z2], lambda, &one)?;
        return Ok((Saved::Cuda(Box::new(saved)).parts(total.into_tensor(())?)?, gradients));
    }
    let (v1, v2) = (Dense::new(NAME, &z1)?, Dense::new(NAME, &z2)?);
    let saved = cpu::forward(&v1, &v2, z1.dim(1)?, eps);
    let [d1, d2] = cpu::backward(&saved, &v1, &v2, lambda, 1.0);
    let total = Tensor::new(total(&saved, lambda), z1.device())?;
    let tensor = |v| Tensor::from_vec(v, z1.shape(), z1.device());
    Ok((Saved::Cpu(Box::new(saved)).parts(total)?, [tensor(d1)?, tensor(d2)?]))
}

fn check(z1: &Tensor, z2: &Tensor, lambda: f64, eps: f64) -> Result<(Tensor, Tensor)> {
    if !(lambda.is_finite() && lambda >= 0.0) {
        bail!("{NAME}: lambda must not be negative, is {lambda}")
    }
    if !(eps.is_finite() && eps > 0.0) {
        bail!("{NAME}: eps must be positive and finite, is {eps}")
    }
    pair(NAME, z1, z2)
}

fn total(saved: &cpu::Saved, lambda: f64) -> f32 {
    (saved.invariance + lambda * saved.redundancy) as f32
}

/// What a forward pass leaves for the backward pass, and for the parts.
enum Saved {
    Cpu(Box<cpu::Saved>),
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Saved>),
}

impl Saved {
    fn parts(&self, total: Tensor) -> Result<BarlowTwinsParts> {
        let (invariance, redundancy) = match self {
            Self::Cpu(saved) => {
                let scalar = |v: f64| Tensor::new(v as f32, total.device());
                (scalar(saved.invariance)?, scalar(saved.redundancy)?)
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(saved) => (saved.invariance.clone(), saved.redundancy.clone()),
        };
        Ok(BarlowTwinsParts { total, invariance, redundancy })
    }
}

/// One application of the op; its forward pass leaves here what its backward pass needs.
struct BarlowTwins {
    lambda: f64,
    eps: f64,
    saved: Arc<OnceLock<Saved>>,
}

impl BarlowTwins {
    fn keep(&self, saved: Saved) -> Result<()> {
        match self.saved.set(saved) {
            Ok(()) => Ok(()),
            Err(_) => bail!("{NAME}: one op value was applied twice"),
        }
    }
}

impl CustomOp2 for BarlowTwins {
    fn name(&self) -> &'static str {
        "barlow-twins"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (z1, z2) = (slice(NAME, s1, l1)?, slice(NAME, s2, l2)?);
        let saved = cpu::forward(z1, z2, l1.dims()[1], self.eps);
        let total = total(&saved, self.lambda);
        self.keep(Saved::Cpu(Box::new(saved)))?;
        Ok((CpuStorage::F32(vec![total]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let gpu = Gpu::new(&s1.device);
        let views = [Memory::of_storage(NAME, s1, l1)?, Memory::of_storage(NAME, s2, l2)?];
        let (total, saved) = cuda::forward(&gpu, views, l1.dims()[1], [self.lambda, self.eps])?;
        self.keep(Saved::Cuda(Box::new(saved)))?;
        Ok((total.into_storage(), Shape::from(())))
    }

    fn bwd(&self, z1: &Tensor, z2: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let saved = match self.saved.get() {
            None => bail!("{NAME}: backward before forward"),
            Some(Saved::Cpu(saved)) => saved,
            #[cfg(feature = "cuda")]
            Some(Saved::Cuda(saved)) => {
                let Some(gpu) = Gpu::of(z1) else { bail!("{NAME}: backward on another device than forward") };
                let [d1, d2] = cuda::backward(&gpu, saved, [z1, z2], self.lambda, upstream)?;
                return Ok((Some(d1), Some(d2)));
            }
        };
        let upstream = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let (v1, v2) = (Dense::new(NAME, z1)?, Dense::new(NAME, z2)?);
        let [d1, d2] = cpu::backward(saved, &v1, &v2, self.lambda, upstream);
        let tensor = |v| Tensor::from_vec(v, z1.shape(), z1.device());
        Ok((Some(tensor(d1)?), Some(tensor(d2)?)))
    }
}
