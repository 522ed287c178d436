//! The kNN protocol: training images vote for the classes of test images.

use anyhow::Result;
use diptych_metrics::Knn;

use crate::{EvalResult, Features};

/// Weighted kNN of the `test` rows among the `train` rows, see [`diptych_metrics::knn`]; the protocol of the field is `k` = 20 and
/// temperature 0.07.
///
/// # Errors
/// If a set has no labels, `k` is larger than the training set, or a feature is not finite.
pub fn knn(train: &Features, test: &Features, k: usize, temperature: f64) -> Result<Knn> {
    let (bank, truth) = (train.labels("kNN")?, test.labels("kNN")?);
    Ok(diptych_metrics::knn(&train.x, bank, &test.x, truth, k, temperature)?)
}

/// [`knn`] as a result to be printed or kept.
///
/// # Errors
/// As [`knn`].
pub fn knn_result(train: &Features, test: &Features, k: usize, temperature: f64) -> Result<EvalResult> {
    Ok(EvalResult::top1("knn", knn(train, test, k, temperature)?.accuracy, test.indices.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, MeanColor, transform};
    use crate::{features, pixels};
    use diptych_data::Dataset;
    use std::sync::Arc;

    /// Classes of different hues: found from mean colors and from pixels.
    #[test]
    fn colors_are_told_apart() -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(60, 3));
        let found = features(&MeanColor, &dataset, &transform(32, 1))?;
        let result = knn_result(&found, &found, 20, 0.07)?;
        assert_eq!((result.protocol.as_str(), result.value, result.n), ("knn", 1.0, 60));
        let raw = pixels(&dataset, &transform(32, 1))?;
        assert_eq!(knn(&raw, &raw, 20, 0.07)?.accuracy, 1.0);
        Ok(())
    }

    #[test]
    fn missing_labels_are_named() -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(6, 2));
        let mut found = features(&MeanColor, &dataset, &transform(4, 1))?;
        found.labels = None;
        let error = knn(&found, &found, 1, 0.07).unwrap_err().to_string();
        assert!(error.contains("kNN needs a label"), "{error}");
        Ok(())
    }
}
