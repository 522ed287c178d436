//! The loss of DeepCluster-v2: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al.,
//! NeurIPS 2020, arXiv:2006.09882, appendix D).

use candle_core::{DType, Device, Result, Tensor, bail};
use diptych_comm::{Collective, Local};

use crate::Loss;
use crate::loss::wide;
use crate::rows::{check_temperature, log_softmax};

/// Each row must pick the prototype that it was assigned to.
///
/// ```text
/// l_i = -log softmax(s_i / t)_y(i)
/// ```
///
/// The loss is the mean over the rows that have an assignment; without any it is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrototypeCrossEntropy {
    /// The temperature t. The paper's is 0.1.
    pub temperature: f64,
}

impl PrototypeCrossEntropy {
    /// The loss of one rank.
    ///
    /// `scores`: `[N, K]`, f32 or bf16, the similarities of embeddings and prototypes. `labels`: for each row its prototype, or
    /// `None` for an image that has no assignment yet.
    ///
    /// Parts: `accuracy`, the share of assigned rows whose best prototype is theirs; `assigned`, the share of rows that are.
    ///
    /// # Errors
    /// If the lengths differ, a label is not below K, or the temperature is not positive and finite.
    pub fn loss(&self, scores: &Tensor, labels: &[Option<u32>]) -> Result<Loss> {
        self.loss_over(scores, labels, &Local)
    }

    /// [`Self::loss`] for one of several ranks: the mean over ranks of the totals is the mean over all assigned rows, however
    /// they are spread. Parts are this rank's.
    ///
    /// # Errors
    /// As [`Self::loss`], or if a collective fails.
    pub fn loss_over(&self, scores: &Tensor, labels: &[Option<u32>], comm: &dyn Collective) -> Result<Loss> {
        let (rows, places) = self.check(scores, labels)?;
        let (scores, device) = (wide(scores)?, scores.device());
        let all = comm.all_reduce_sum(&Tensor::new(rows.len() as f64, &Device::Cpu)?)?.to_scalar::<f64>()?;
        let assigned = Tensor::new((rows.len() as f64 / labels.len() as f64) as f32, device)?;
        if rows.is_empty() {
            // A zero that is part of the graph: every rank walks back.
            let (total, accuracy) = ((scores.sum_all()? * &assigned)?, assigned.clone());
            return Ok(Loss { total, parts: vec![("accuracy", accuracy), ("assigned", assigned)] });
        }
        let rows = Tensor::new(rows, device)?;
        let places = Tensor::new(places, device)?;
        let scores = scores.index_select(&rows, 0)?;
        let logs = log_softmax(&scores.affine(1.0 / self.temperature, 0.0)?)?.gather(&places.unsqueeze(1)?, 1)?;
        let total = logs.sum_all()?.affine(-(comm.size() as f64) / all, 0.0)?;
        let accuracy = scores.detach().argmax(1)?.eq(&places)?.to_dtype(DType::F32)?.mean_all()?;
        Ok(Loss { total, parts: vec![("accuracy", accuracy), ("assigned", assigned)] })
    }

    /// The rows that have a label, and their labels.
    fn check(&self, scores: &Tensor, labels: &[Option<u32>]) -> Result<(Vec<u32>, Vec<u32>)> {
        const NAME: &str = "prototype_cross_entropy";
        check_temperature(NAME, self.temperature)?;
        let &[n, count] = scores.dims() else { bail!("{NAME}: scores are [N, K], got shape {:?}", scores.dims()) };
        if n == 0 || labels.len() != n {
            bail!(
                "{NAME}: {} labels for scores of shape {:?}; each row needs one, or None",
                labels.len(),
                scores.dims()
            )
        }
        if let Some(label) = labels.iter().flatten().find(|&&label| label as usize >= count) {
            bail!("{NAME}: label {label}, but there are {count} prototypes")
        }
        Ok(labels.iter().enumerate().filter_map(|(row, label)| Some((row as u32, (*label)?))).unzip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use diptych_kernels::check::Array;

    const LOSS: PrototypeCrossEntropy = PrototypeCrossEntropy { temperature: 0.1 };

    fn part(loss: &Loss, name: &str) -> Result<f32> {
        loss.parts.iter().find(|(part, _)| *part == name).unwrap().1.to_scalar()
    }

    /// By hand: two rows at t = 1, scores 1 and 0: one right (ln(1 + 1/e)), one wrong (ln(1 + e)).
    #[test]
    fn one_right_and_one_wrong() -> Result<()> {
        let scores = Tensor::new(&[[1f32, 0.0], [1.0, 0.0]], &Device::Cpu)?;
        let loss = PrototypeCrossEntropy { temperature: 1.0 }.loss(&scores, &[Some(0), Some(1)])?;
        let expected = 0.5 * ((-1f64).exp().ln_1p() + 1f64.exp().ln_1p());
        assert!((f64::from(loss.total.to_scalar::<f32>()?) - expected).abs() < 1e-6);
        assert_eq!((part(&loss, "accuracy")?, part(&loss, "assigned")?), (0.5, 1.0));
        Ok(())
    }

    /// Rows without an assignment are as if they were not there: same loss, no gradient.
    #[test]
    fn rows_without_an_assignment_are_left_out() -> Result<()> {
        let scores = Var::from_tensor(&Array::random(&[5, 4], 1).tensor()?)?;
        let some = LOSS.loss(&scores, &[Some(1), None, Some(3), None, None])?;
        let kept = Tensor::cat(&[scores.narrow(0, 0, 1)?, scores.narrow(0, 2, 1)?], 0)?;
        let only = LOSS.loss(&kept, &[Some(1), Some(3)])?;
        assert_eq!(some.total.to_scalar::<f32>()?, only.total.to_scalar::<f32>()?);
        assert_eq!(part(&some, "assigned")?, 0.4);
        let gradient = some.total.backward()?.get(&scores).unwrap().abs()?.sum(1)?.to_vec1::<f32>()?;
        let moves: Vec<bool> = gradient.into_iter().map(|v| v > 0.0).collect();
        assert_eq!(moves, [true, false, true, false, false]);
        Ok(())
    }

    /// Nothing assigned at all: 0, with a gradient of 0.
    #[test]
    fn without_any_assignment_there_is_nothing_to_learn() -> Result<()> {
        let scores = Var::from_tensor(&Array::random(&[3, 4], 1).tensor()?)?;
        let loss = LOSS.loss(&scores, &[None; 3])?;
        assert_eq!((loss.total.to_scalar::<f32>()?, part(&loss, "assigned")?), (0.0, 0.0));
        let grads = loss.total.backward()?;
        assert_eq!(grads.get(&scores).unwrap().abs()?.max_all()?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }

    #[test]
    fn labels_are_checked() -> Result<()> {
        let scores = Array::random(&[3, 4], 1).tensor()?;
        let error = |labels: &[Option<u32>]| LOSS.loss(&scores, labels).unwrap_err().to_string();
        assert!(error(&[Some(0), Some(4), None]).contains("label 4, but there are 4 prototypes"));
        assert!(error(&[Some(0)]).contains("1 labels for scores of shape [3, 4]"));
        Ok(())
    }
}
