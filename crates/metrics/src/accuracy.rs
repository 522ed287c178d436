//! Accuracies of predicted classes.

use candle_core::{Result, Tensor, bail};

use crate::matrix::Matrix;

fn check(predictions: usize, labels: usize) -> Result<()> {
    if predictions != labels {
        bail!("accuracy: {predictions} predictions with {labels} labels")
    }
    if labels == 0 {
        bail!("accuracy: there is no row to judge")
    }
    Ok(())
}

/// Share of the predictions that equal their label (top-1 accuracy), in [0, 1].
///
/// # Errors
/// If the numbers differ or are 0.
pub fn accuracy(predictions: &[u32], labels: &[u32]) -> Result<f64> {
    check(predictions.len(), labels.len())?;
    let right = predictions.iter().zip(labels).filter(|(p, l)| p == l).count();
    Ok(right as f64 / labels.len() as f64)
}

/// Mean over the classes that occur among the labels of each class's accuracy: for sets whose classes differ in size.
///
/// # Errors
/// If the numbers differ or are 0.
pub fn mean_per_class_accuracy(predictions: &[u32], labels: &[u32]) -> Result<f64> {
    check(predictions.len(), labels.len())?;
    let mut classes = std::collections::BTreeMap::<u32, (u64, u64)>::new();
    for (p, l) in predictions.iter().zip(labels) {
        let (right, all) = classes.entry(*l).or_default();
        *right += u64::from(p == l);
        *all += 1;
    }
    Ok(classes.values().map(|&(right, all)| right as f64 / all as f64).sum::<f64>() / classes.len() as f64)
}

/// How often class i (row) was called class j (column): `classes` rows of `classes` counts.
///
/// # Errors
/// If the numbers differ or are 0, or a class is not below `classes`.
pub fn confusion(predictions: &[u32], labels: &[u32], classes: usize) -> Result<Vec<Vec<u64>>> {
    check(predictions.len(), labels.len())?;
    let mut counts = vec![vec![0; classes]; classes];
    for (&p, &l) in predictions.iter().zip(labels) {
        match counts.get_mut(l as usize).and_then(|row| row.get_mut(p as usize)) {
            Some(count) => *count += 1,
            None => bail!("confusion: label {l} called {p}, with {classes} classes"),
        }
    }
    Ok(counts)
}

/// Share of the rows of `scores` `[M, classes]` whose label is among the `k` largest scores; of equal scores the lower class is
/// the larger one.
///
/// # Errors
/// If the numbers differ, a label is not a column, `k` is 0, or a score is NaN or infinite.
pub fn top_k_accuracy(scores: &Tensor, labels: &[u32], k: usize) -> Result<f64> {
    let scores = Matrix::finite("top-k accuracy: the scores", scores)?;
    check(scores.rows, labels.len())?;
    if k == 0 {
        bail!("top-k accuracy: k is 0")
    }
    let mut right = 0;
    for (row, &label) in scores.iter().zip(labels) {
        let label = label as usize;
        let Some(own) = row.get(label) else { bail!("top-k accuracy: label {label} with {} classes", scores.cols) };
        let ahead = row.iter().enumerate().filter(|&(j, s)| s > own || (s == own && j < label)).count();
        right += usize::from(ahead < k);
    }
    Ok(right as f64 / labels.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// By hand: classes 0 (3 of 4 right), 1 (0 of 1), 2 (1 of 1).
    #[test]
    fn accuracies_of_a_hand_made_case() -> Result<()> {
        let (predictions, labels) = ([0, 0, 0, 1, 2, 2], [0, 0, 0, 0, 1, 2]);
        assert_eq!(accuracy(&predictions, &labels)?, 4.0 / 6.0);
        assert!((mean_per_class_accuracy(&predictions, &labels)? - 1.75 / 3.0).abs() < 1e-15);
        assert_eq!(confusion(&predictions, &labels, 3)?, [[3, 1, 0], [0, 0, 1], [0, 0, 1]]);
        Ok(())
    }

    #[test]
    fn top_k_counts_ties_for_the_lower_class() -> Result<()> {
        let scores = Tensor::new(&[[1f32, 3.0, 2.0], [1.0, 1.0, 1.0]], &Device::Cpu)?;
        assert_eq!(top_k_accuracy(&scores, &[1, 0], 1)?, 1.0);
        assert_eq!(top_k_accuracy(&scores, &[2, 1], 1)?, 0.0);
        assert_eq!(top_k_accuracy(&scores, &[2, 1], 2)?, 1.0);
        assert_eq!(top_k_accuracy(&scores, &[0, 2], 2)?, 0.0);
        Ok(())
    }

    #[test]
    fn counts_that_differ_are_refused() {
        assert!(accuracy(&[1], &[1, 2]).is_err());
        assert!(accuracy(&[], &[]).is_err());
        assert!(confusion(&[3], &[0], 3).is_err());
    }
}
