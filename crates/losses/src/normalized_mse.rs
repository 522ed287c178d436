//! The loss of BYOL: Bootstrap Your Own Latent (Grill et al., NeurIPS 2020, arXiv:2006.07733).

use candle_core::{Result, Tensor};
use diptych_kernels::l2_normalize;

use crate::Loss;
use crate::loss::{cosine, wide};
use crate::rows::check_pair;

/// The squared distance between directions: a prediction and its target, both at length 1.
///
/// ```text
/// L = |p / |p| - t / |t||^2 = 2 - 2 cos(p, t)        (eq. 2)
/// ```
///
/// BYOL adds this for both orders of the two views. Gradients go to both arguments where they are tracked: the caller
/// detaches the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NormalizedMse;

impl NormalizedMse {
    /// The mean over rows.
    ///
    /// `p`, `target`: `[N, D]`, f32 or bf16, any scale, row i of both from the same image; they are L2-normalized here. A row
    /// of zeros normalizes to zeros and gets no gradient.
    ///
    /// Parts: `positive_cosine`, the mean cosine similarity.
    ///
    /// # Errors
    /// If the shapes differ or are empty.
    pub fn loss(&self, p: &Tensor, target: &Tensor) -> Result<Loss> {
        check_pair("normalized_mse", p, target)?;
        let (p, target) = (l2_normalize(&wide(p)?)?, l2_normalize(&wide(target)?)?);
        // As a difference, so that a small loss keeps its digits.
        let total = (&p - &target)?.sqr()?.sum(1)?.mean_all()?;
        Ok(Loss { total, parts: vec![("positive_cosine", cosine(&p, &target)?)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use diptych_kernels::check::Array;

    /// By hand: the same direction, orthogonal, opposite.
    #[test]
    fn from_0_to_4() -> Result<()> {
        let p = Tensor::new(&[[3f32, 0.0]], &Device::Cpu)?;
        for (target, expected, cosine) in [([0.5f32, 0.0], 0.0, 1.0), ([0.0, 2.0], 2.0, 0.0), ([-9.0, 0.0], 4.0, -1.0)]
        {
            let loss = NormalizedMse.loss(&p, &Tensor::new(&[target], &Device::Cpu)?)?;
            assert_eq!(loss.total.to_scalar::<f32>()?, expected);
            assert_eq!((loss.parts[0].0, loss.parts[0].1.to_scalar::<f32>()?), ("positive_cosine", cosine));
        }
        Ok(())
    }

    /// The gradient is tangential, goes to the target only where it is tracked, and parts carry none.
    #[test]
    fn the_caller_decides_about_the_target() -> Result<()> {
        let [p, t] = [1, 2].map(|seed| Var::from_tensor(&Array::random(&[6, 5], seed).tensor().unwrap()).unwrap());
        let both = NormalizedMse.loss(&p, &t)?.total.backward()?;
        let along = (both.get(&p).unwrap() * p.as_tensor())?.sum(1)?.abs()?.max(0)?.to_scalar::<f32>()?;
        assert!(along < 1e-6 && both.get(&t).is_some());
        let loss = NormalizedMse.loss(&p, &t.detach())?;
        assert!(loss.total.backward()?.get(&t).is_none());
        assert!(loss.parts[0].1.backward()?.get(&p).is_none());
        Ok(())
    }

    #[test]
    fn shapes_are_checked() -> Result<()> {
        let z = Array::random(&[4, 3], 1).tensor()?;
        let error = NormalizedMse.loss(&z, &z.narrow(0, 0, 2)?).unwrap_err().to_string();
        assert!(error.contains("normalized_mse") && error.contains("[4, 3] and [2, 3]"), "{error}");
        Ok(())
    }
}
