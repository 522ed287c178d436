//! Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al., ICML 2021, arXiv:2103.03230).

use std::sync::Arc;

use candle_core::{Result, Tensor};
use diptych_comm::{Collective, all_gather};
use diptych_kernels::barlow_twins;

use crate::Loss;
use crate::loss::wide;

/// The official code's `BatchNorm1d(affine=False)` epsilon.
const EPS: f64 = 1e-5;

/// How the two terms of [`BarlowTwins`] are balanced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Balance {
    /// The paper's factor before the redundancy term: 0.0051 in the official code, for D = 8192.
    Lambda(f64),
    /// No factor to choose: each row of C weighs the mean of its off-diagonal squares against its diagonal,
    /// `sum_i [(1 - C_ii)^2 + mean_{j != i} C_ij^2]`, which is lambda = 1 / (D - 1). For D = 8192 that is 0.00012, far below the official value, which was tuned for accuracy.
    RowMean,
}

/// The cross-correlation of two views' embeddings is pulled to the identity.
///
/// ```text
/// C = norm(z1)^T norm(z2) / N,   L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2        (eq. 1, 2)
/// ```
///
/// `norm` brings each column to mean 0 and variance 1, as the official code's batch norm does: biased variance, eps 1e-5,
/// gradient through the statistics. (The paper's listing uses the unbiased deviation.) N is the batch given here, or over
/// all ranks with [`Self::loss_over`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BarlowTwins {
    /// How invariance and redundancy are balanced.
    pub balance: Balance,
}

impl BarlowTwins {
    /// The loss of two views.
    ///
    /// `z1`, `z2`: `[N, D]`, f32 or bf16, row i of both from the same image.
    ///
    /// Parts: `invariance` and `redundancy`, the two sums without lambda.
    ///
    /// # Errors
    /// If the shapes differ, N < 2, or lambda is negative or not finite.
    pub fn loss(&self, z1: &Tensor, z2: &Tensor) -> Result<Loss> {
        let lambda = match self.balance {
            Balance::Lambda(lambda) => lambda,
            // One column has nothing to be redundant with.
            Balance::RowMean => 1.0 / z1.dims().last().map_or(1, |&d| d.saturating_sub(1).max(1)) as f64,
        };
        let parts = barlow_twins(z1, z2, lambda, EPS)?;
        Ok(Loss { total: parts.total, parts: vec![("invariance", parts.invariance), ("redundancy", parts.redundancy)] })
    }

    /// The loss over all ranks' rows, statistics included: the same on each of them, with gradients for this rank's.
    ///
    /// `z1`, `z2`: `[N, D]`, this rank's, N the same on every rank. They are gathered, so that memory is O(ranks N D).
    ///
    /// # Errors
    /// As [`Self::loss`], with N counted over all ranks, or if a collective fails.
    pub fn loss_over(&self, z1: &Tensor, z2: &Tensor, comm: &Arc<dyn Collective>) -> Result<Loss> {
        self.loss(&all_gather(comm, &wide(z1)?)?, &all_gather(comm, &wide(z2)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use diptych_kernels::check::Array;

    fn views(n: usize, d: usize) -> Result<(Tensor, Tensor)> {
        Ok((Array::random(&[n, d], 1).tensor()?, Array::random(&[n, d], 2).tensor()?))
    }

    fn numbers(balance: Balance, z1: &Tensor, z2: &Tensor) -> Result<[f32; 3]> {
        let loss = BarlowTwins { balance }.loss(z1, z2)?;
        assert_eq!((loss.parts[0].0, loss.parts[1].0), ("invariance", "redundancy"));
        Ok([loss.total.to_scalar()?, loss.parts[0].1.to_scalar()?, loss.parts[1].1.to_scalar()?])
    }

    /// By hand: columns (1, -1, 1, -1) and (1, 1, -1, -1) are uncorrelated, so C is the identity and the loss 0 (up to
    /// eps); with the second view's columns exchanged C has ones off the diagonal only: 2 + 2 lambda.
    #[test]
    fn identity_and_exchange() -> Result<()> {
        let z = Tensor::new(&[[1f32, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], &Device::Cpu)?;
        let [total, ..] = numbers(Balance::Lambda(0.25), &z, &z)?;
        assert!(total.abs() < 1e-8);
        let exchanged = z.index_select(&Tensor::new(&[1u32, 0], &Device::Cpu)?, 1)?;
        let [total, invariance, redundancy] = numbers(Balance::Lambda(0.25), &z, &exchanged)?;
        assert!((total - 2.5).abs() < 1e-4 && (invariance - 2.0).abs() < 1e-4 && (redundancy - 2.0).abs() < 1e-4);
        Ok(())
    }

    #[test]
    fn the_total_is_made_of_the_parts() -> Result<()> {
        for (n, d) in [(10, 4), (5, 16)] {
            let (z1, z2) = views(n, d)?;
            let [total, invariance, redundancy] = numbers(Balance::Lambda(0.3), &z1, &z2)?;
            assert!((total - (invariance + 0.3 * redundancy)).abs() < 1e-5 * total);
            let [total, ..] = numbers(Balance::RowMean, &z1, &z2)?;
            assert!((total - (invariance + redundancy / (d - 1) as f32)).abs() < 1e-5 * total);
        }
        Ok(())
    }

    /// Scaling and shifting a view's columns, exchanging the views, and one order of images or columns change nothing.
    #[test]
    fn scale_and_order_do_not_matter() -> Result<()> {
        for (n, d) in [(16, 6), (6, 16)] {
            let (z1, z2) = views(n, d)?;
            let value =
                |z1: &Tensor, z2: &Tensor| Ok::<_, candle_core::Error>(numbers(Balance::Lambda(0.1), z1, z2)?[0]);
            let before = value(&z1, &z2)?;
            let near = |v: f32, tolerance: f32| assert!((v / before - 1.0).abs() < tolerance, "{v} {before}");
            near(value(&((&z1 * 5.0)? - 2.0)?, &z2)?, 2e-4);
            near(value(&z2, &z1)?, 1e-5);
            let order = |len: usize| Tensor::new((0..len as u32).rev().collect::<Vec<_>>(), &Device::Cpu);
            for (dim, len) in [(0, n), (1, d)] {
                near(value(&z1.index_select(&order(len)?, dim)?, &z2.index_select(&order(len)?, dim)?)?, 1e-5);
            }
        }
        Ok(())
    }

    /// A shift of a column changes nothing, so the gradient of each column sums to zero; parts carry none.
    #[test]
    fn the_gradient_is_centered_and_only_the_total_has_one() -> Result<()> {
        for (n, d) in [(16, 6), (6, 16)] {
            let (z1, z2) = views(n, d)?;
            let z1 = Var::from_tensor(&z1)?;
            let loss = BarlowTwins { balance: Balance::Lambda(0.1) }.loss(&z1, &z2)?;
            let grads = loss.total.backward()?;
            let gradient = grads.get(&z1).unwrap();
            let largest = gradient.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(largest > 1e-3);
            assert!(gradient.sum(0)?.abs()?.max(0)?.to_scalar::<f32>()? < 1e-5 * largest);
            assert!(loss.parts[0].1.backward()?.get(&z1).is_none());
        }
        Ok(())
    }

    #[test]
    fn errors_come_through() -> Result<()> {
        let (z1, z2) = views(4, 3)?;
        let error = BarlowTwins { balance: Balance::Lambda(f64::NAN) }.loss(&z1, &z2).unwrap_err().to_string();
        assert!(error.contains("lambda"), "{error}");
        let error = BarlowTwins { balance: Balance::RowMean }.loss(&z1, &z2.narrow(0, 0, 2)?).unwrap_err().to_string();
        assert!(error.contains("[4, 3] and [2, 3]"), "{error}");
        Ok(())
    }
}
