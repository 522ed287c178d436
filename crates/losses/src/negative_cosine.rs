//! The loss of SimSiam: Exploring Simple Siamese Representation Learning (Chen and He, CVPR 2021, arXiv:2011.10566).

use candle_core::{Result, Tensor};
use diptych_kernels::l2_normalize;

use crate::Loss;
use crate::loss::{cosine, wide};
use crate::rows::check_pair;

/// The negative cosine similarity of a prediction and the other view's embedding.
///
/// ```text
/// D(p, z) = - p / |p| . z / |z|        (eq. 1)
/// ```
///
/// SimSiam takes the mean of D(p1, z2) and D(p2, z1) (eq. 2). Gradients go to both arguments where they are tracked: the
/// stop-gradient is the caller's. A loss of -1 says nothing about collapse: embeddings that are all the same have it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NegativeCosine;

impl NegativeCosine {
    /// The mean over rows.
    ///
    /// `p`, `z`: `[N, D]`, f32 or bf16, any scale, row i of both from the same image; they are L2-normalized here. A row of
    /// zeros normalizes to zeros and gets no gradient.
    ///
    /// Parts: `positive_cosine`, the mean cosine similarity.
    ///
    /// # Errors
    /// If the shapes differ or are empty.
    pub fn loss(&self, p: &Tensor, z: &Tensor) -> Result<Loss> {
        check_pair("negative_cosine", p, z)?;
        let (p, z) = (l2_normalize(&wide(p)?)?, l2_normalize(&wide(z)?)?);
        let total = (&p * &z)?.sum(1)?.mean_all()?.neg()?;
        Ok(Loss { total, parts: vec![("positive_cosine", cosine(&p, &z)?)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NormalizedMse;
    use candle_core::{Device, Var};
    use diptych_kernels::check::Array;

    /// By hand: cosines 1 and 0.6.
    #[test]
    fn two_rows() -> Result<()> {
        let p = Tensor::new(&[[2f32, 0.0], [0.5, 0.0]], &Device::Cpu)?;
        let z = Tensor::new(&[[1f32, 0.0], [3.0, 4.0]], &Device::Cpu)?;
        let loss = NegativeCosine.loss(&p, &z)?;
        assert!((loss.total.to_scalar::<f32>()? + 0.8).abs() < 1e-6);
        assert_eq!(loss.parts[0].0, "positive_cosine");
        assert!((loss.parts[0].1.to_scalar::<f32>()? - 0.8).abs() < 1e-6);
        Ok(())
    }

    /// BYOL's loss is 2 + 2 of this one, in value and gradient.
    #[test]
    fn it_is_byols_up_to_a_factor() -> Result<()> {
        let p = Var::from_tensor(&Array::random(&[6, 5], 1).tensor()?)?;
        let z = Array::random(&[6, 5], 2).tensor()?;
        let (a, b) = (NegativeCosine.loss(&p, &z)?.total, NormalizedMse.loss(&p, &z)?.total);
        assert!((2.0 + 2.0 * a.to_scalar::<f32>()? - b.to_scalar::<f32>()?).abs() < 1e-6);
        let (a, b) = (a.backward()?, b.backward()?);
        let gap = ((a.get(&p).unwrap() * 2.0)? - b.get(&p).unwrap())?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(gap < 1e-6);
        Ok(())
    }
}
