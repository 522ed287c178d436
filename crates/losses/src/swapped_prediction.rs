//! The loss of SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al., NeurIPS
//! 2020, arXiv:2006.09882).

use candle_core::{Result, Tensor};

use crate::Loss;
use crate::loss::wide;
use crate::rows::{check_pair, check_temperature, cross_entropy, log_softmax, x_log_x};

/// One view's scores must predict the code of another view of the same image.
///
/// ```text
/// l(s, q) = - sum_k q_k log softmax(s / t)_k        (eq. 2)
/// ```
///
/// The codes q come from [`crate::sinkhorn`] and are constants here. ln K is what scores that are all the same give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwappedPrediction {
    /// The temperature t. The paper's is 0.1.
    pub temperature: f64,
}

impl SwappedPrediction {
    /// The mean over rows.
    ///
    /// `scores`: `[N, K]`, f32 or bf16, the similarities of a view's embeddings and the prototypes. `codes`: `[N, K]`, the
    /// other view's; rows sum to 1. They get no gradient.
    ///
    /// Parts: `code_entropy`, the mean over rows of the codes' entropy, which is the least the loss can be.
    ///
    /// # Errors
    /// If the shapes differ or are empty, or the temperature is not positive and finite.
    pub fn loss(&self, scores: &Tensor, codes: &Tensor) -> Result<Loss> {
        check_pair("swapped_prediction", scores, codes)?;
        check_temperature("swapped_prediction", self.temperature)?;
        let (scores, codes) = (wide(scores)?, wide(&codes.detach())?);
        let total = cross_entropy(&codes, &log_softmax(&scores.affine(1.0 / self.temperature, 0.0)?)?)?;
        let code_entropy = x_log_x(&codes)?.sum(1)?.mean_all()?.neg()?;
        Ok(Loss { total, parts: vec![("code_entropy", code_entropy)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use diptych_kernels::check::Array;

    const LOSS: SwappedPrediction = SwappedPrediction { temperature: 0.1 };

    /// By hand: a code of one prototype, scores 1 and 0 of two, t = 1: ln(1 + 1/e).
    #[test]
    fn two_prototypes() -> Result<()> {
        let (scores, code) = (Tensor::new(&[[1f32, 0.0]], &Device::Cpu)?, Tensor::new(&[[1f32, 0.0]], &Device::Cpu)?);
        let loss = SwappedPrediction { temperature: 1.0 }.loss(&scores, &code)?;
        assert!((f64::from(loss.total.to_scalar::<f32>()?) - (-1f64).exp().ln_1p()).abs() < 1e-6);
        assert_eq!((loss.parts[0].0, loss.parts[0].1.to_scalar::<f32>()?), ("code_entropy", 0.0));
        Ok(())
    }

    /// Scores that are all the same give ln K; the entropy of uniform codes is that too.
    #[test]
    fn collapsed_scores_give_the_log_of_the_prototypes() -> Result<()> {
        let scores = Tensor::ones((4, 7), DType::F32, &Device::Cpu)?;
        let loss = LOSS.loss(&scores, &scores.affine(1.0 / 7.0, 0.0)?)?;
        for value in [&loss.total, &loss.parts[0].1] {
            assert!((value.to_scalar::<f32>()? - 7f32.ln()).abs() < 1e-6);
        }
        Ok(())
    }

    /// A row's shift does not matter, so its gradient sums to zero; codes get none.
    #[test]
    fn the_gradient_is_centered_and_codes_have_none() -> Result<()> {
        let scores = Var::from_tensor(&Array::random(&[5, 9], 1).tensor()?)?;
        let codes = Var::from_tensor(&Array::random(&[5, 9], 2).map(|v| (1.0 + v) / 9.0).tensor()?)?;
        let loss = LOSS.loss(&scores, &codes.broadcast_div(&codes.sum_keepdim(1)?)?)?;
        let grads = loss.total.backward()?;
        let gradient = grads.get(&scores).unwrap();
        assert!(gradient.sum(1)?.abs()?.max(0)?.to_scalar::<f32>()? < 1e-5);
        assert!(gradient.abs()?.max_all()?.to_scalar::<f32>()? > 1e-3);
        assert!(grads.get(&codes).is_none());
        assert!(loss.parts[0].1.backward()?.get(&scores).is_none());
        Ok(())
    }
}
