//! SimSiam's other similarity: Exploring Simple Siamese Representation Learning (Chen and He, CVPR 2021, arXiv:2011.10566).

use candle_core::{Result, Tensor};
use diptych_kernels::l2_normalize;

use crate::Loss;
use crate::loss::{cosine, wide};
use crate::rows::{check_pair, cross_entropy, log_softmax};

/// The cross entropy of two embeddings, whose channels are taken for classes.
///
/// ```text
/// D(p, z) = - softmax(z) . log softmax(p)        (section 4.5)
/// ```
///
/// Embeddings are not normalized, and there is no temperature. Gradients go to both arguments where they are tracked: the
/// stop-gradient is the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimilarityCrossEntropy;

impl SimilarityCrossEntropy {
    /// The mean over rows.
    ///
    /// `p`, `z`: `[N, D]`, f32 or bf16, row i of both from the same image.
    ///
    /// Parts: `positive_cosine`, the mean cosine similarity.
    ///
    /// # Errors
    /// If the shapes differ or are empty.
    pub fn loss(&self, p: &Tensor, z: &Tensor) -> Result<Loss> {
        check_pair("similarity_cross_entropy", p, z)?;
        let (p, z) = (wide(p)?, wide(z)?);
        let total = cross_entropy(&log_softmax(&z)?.exp()?, &log_softmax(&p)?)?;
        let positive_cosine = cosine(&l2_normalize(&p.detach())?, &l2_normalize(&z.detach())?)?;
        Ok(Loss { total, parts: vec![("positive_cosine", positive_cosine)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use diptych_kernels::check::Array;

    /// Channels that are all the same are a uniform distribution: ln D, whatever the other one is.
    #[test]
    fn a_uniform_prediction_gives_ln_d() -> Result<()> {
        let p = Tensor::ones((3, 5), DType::F32, &Device::Cpu)?;
        let loss = SimilarityCrossEntropy.loss(&p, &Array::random(&[3, 5], 1).tensor()?)?;
        assert!((loss.total.to_scalar::<f32>()? - 5f32.ln()).abs() < 1e-6);
        Ok(())
    }

    /// Equal distributions are the minimum over p: the entropy of z, with a gradient of 0 for p but not for z.
    #[test]
    fn equal_distributions_are_the_minimum() -> Result<()> {
        let z = Var::from_tensor(&Array::random(&[4, 6], 1).tensor()?)?;
        // A shift of a row changes nothing.
        let p = Var::from_tensor(&z.as_detached_tensor().affine(1.0, 3.0)?)?;
        let grads = SimilarityCrossEntropy.loss(&p, &z)?.total.backward()?;
        let largest = |var| grads.get(var).unwrap().abs()?.max_all()?.to_scalar::<f32>();
        assert!(largest(&p)? < 1e-6 && largest(&z)? > 1e-3);
        Ok(())
    }
}
