//! The Barlow Twins loss as one op: batch normalization, cross-correlation and both terms in one pass.

mod cpu;
pub mod reference;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::dense::slice;
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
/// The gradient goes through the normalization. Where D >= 2 N, the D x D matrix is never made: the same sums come from
/// the two N x N Gram matrices. The result is the same for any number of threads.
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

    fn bwd(&self, z1: &Tensor, _: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved.get() else { bail!("barlow-twins: backward before forward") };
        let upstream = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let (d1, d2) = cpu::backward(saved, self.lambda, upstream);
        let tensor = |v| Tensor::from_vec(v, z1.shape(), z1.device());
        Ok((Some(tensor(d1)?), Some(tensor(d2)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op};
    use candle_core::{Device, Var};

    const EPS: f64 = 1e-5;

    fn check(n: usize, d: usize, lambda: f64) {
        let inputs = [Array::random(&[n, d], 21), Array::random(&[n, d], 22).map(|v| 2.0 * v + 0.5)];
        let op = |z: &[Tensor]| Ok(barlow_twins(&z[0], &z[1], lambda, EPS)?.total);
        let reference = |z: &[Array]| {
            let (invariance, redundancy) = reference::barlow_twins(&z[0], &z[1], EPS);
            Array::new(&[], vec![invariance + lambda * redundancy])
        };
        check_op(&op, &reference, &inputs, Tolerance::default()).unwrap();
    }

    #[test]
    fn the_column_form_equals_the_reference() {
        check(5, 3, 0.0051);
        check(9, 7, 0.5);
        check(4, 7, 1.0);
    }

    #[test]
    fn the_row_form_equals_the_reference() {
        check(3, 6, 0.0051);
        check(4, 9, 0.5);
        check(5, 17, 1.0);
    }

    /// Both sides of D = 2 N, with several blocks each and a cut-off last one.
    #[test]
    fn values_equal_the_reference_over_many_blocks() -> Result<()> {
        for (n, d) in [(70, 139), (70, 140), (150, 67), (67, 600)] {
            let (a, b) = (Array::random(&[n, d], 1), Array::random(&[n, d], 2));
            let parts = barlow_twins(&a.tensor()?, &b.tensor()?, 0.1, EPS)?;
            let (invariance, redundancy) = reference::barlow_twins(&a, &b, EPS);
            let close = |t: &Tensor, truth: f64| -> Result<()> {
                let v = f64::from(t.to_scalar::<f32>()?);
                assert!((v / truth - 1.0).abs() < 2e-6, "[{n}, {d}]: {v} {truth}");
                Ok(())
            };
            close(&parts.invariance, invariance)?;
            close(&parts.redundancy, redundancy)?;
            close(&parts.total, invariance + 0.1 * redundancy)?;
        }
        Ok(())
    }

    /// Scaling and shifting a column changes nothing (up to eps), and so does a common order of rows.
    #[test]
    fn columns_may_be_scaled_and_rows_permuted() -> Result<()> {
        for d in [8, 60] {
            let (a, b) = (Array::random(&[20, d], 1).tensor()?, Array::random(&[20, d], 2).tensor()?);
            let total = |a: &Tensor, b: &Tensor| barlow_twins(a, b, 0.01, 1e-9)?.total.to_scalar::<f32>();
            let before = total(&a, &b)?;
            let scaled = total(&(((&a * 7.0)? + 3.0)?), &(&b * 0.3)?)?;
            assert!((scaled / before - 1.0).abs() < 2e-5, "{scaled} {before}");
            let order = Tensor::from_vec((0..20u32).map(|i| (i * 7) % 20).collect::<Vec<_>>(), 20, &Device::Cpu)?;
            let permuted = total(&a.index_select(&order, 0)?, &b.index_select(&order, 0)?)?;
            assert!((permuted / before - 1.0).abs() < 1e-5, "{permuted} {before}");
        }
        Ok(())
    }

    #[test]
    fn a_constant_column_is_a_redundancy_of_zero_and_a_nan_is_not_hidden() -> Result<()> {
        let a = Tensor::new(&[[1f32, 5.0], [2.0, 5.0], [4.0, 5.0]], &Device::Cpu)?;
        let parts = barlow_twins(&a, &a, 1.0, EPS)?;
        assert_eq!(parts.redundancy.to_scalar::<f32>()?, 0.0);
        assert!((parts.invariance.to_scalar::<f32>()? - 1.0).abs() < 1e-4);
        for d in [2, 9] {
            let bad = Tensor::full(f32::NAN, (3, d), &Device::Cpu)?;
            assert!(barlow_twins(&bad, &bad, 1.0, EPS)?.total.to_scalar::<f32>()?.is_nan());
        }
        Ok(())
    }

    #[test]
    fn threads_do_not_change_a_bit() -> Result<()> {
        for d in [300, 700] {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| -> Result<_> {
                    let a = Var::from_tensor(&Array::random(&[200, d], 1).tensor()?)?;
                    let b = Array::random(&[200, d], 2).tensor()?;
                    let loss = barlow_twins(&a, &b, 0.2, EPS)?.total;
                    let grads = loss.backward()?;
                    Ok((loss.to_scalar::<f32>()?, grads.get(&a).unwrap().to_vec2::<f32>()?))
                })
            };
            let one = run(1)?;
            assert_eq!(one, run(2)?);
            assert_eq!(one, run(5)?);
        }
        Ok(())
    }

    #[test]
    fn bad_arguments_are_named() -> Result<()> {
        let z = |n, d| Tensor::zeros((n, d), DType::F32, &Device::Cpu);
        let error = |a: Tensor, b: Tensor, lambda, eps| barlow_twins(&a, &b, lambda, eps).err().unwrap().to_string();
        assert!(error(z(3, 4)?, z(2, 4)?, 1.0, EPS).contains("[3, 4] and [2, 4]"));
        assert!(error(z(1, 4)?, z(1, 4)?, 1.0, EPS).contains("at least 2 rows"));
        assert!(error(z(3, 4)?, z(3, 4)?, -1.0, EPS).contains("lambda must not be negative"));
        assert!(error(z(3, 4)?, z(3, 4)?, 1.0, 0.0).contains("eps must be positive"));
        Ok(())
    }
}
