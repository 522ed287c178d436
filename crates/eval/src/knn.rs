//! The kNN protocol: training images vote for the classes of test images.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use diptych_metrics::{Knn, Votes, classify, nearest_in};
use diptych_random::Stream;
use serde::{Deserialize, Serialize};

use crate::{EvalResult, Features, GridValue};

/// A setting with one value, or several to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values<T> {
    /// One.
    One(T),
    /// Several.
    Several(Vec<T>),
}

impl<T: Copy> Values<T> {
    fn all(&self) -> Vec<T> {
        match self {
            Self::One(value) => vec![*value],
            Self::Several(values) => values.clone(),
        }
    }
}

/// How votes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// By `exp(similarity / temperature)`.
    #[default]
    Similarity,
    /// One each.
    Uniform,
}

/// What features are made of when they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Rounded to bf16; products are added in f32.
    Bf16,
}

/// How kNN is done. Plain data; the default is `k` = 20 and temperature 0.07.
///
/// With several values every pair is judged, from one search for the largest `k`. Which pair is the result is then decided by a part of the training
/// images, never by the test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Neighbors {
    /// How many neighbors vote.
    pub k: Values<usize>,
    /// Of the votes' weights; without meaning where they are uniform.
    pub temperature: Values<f64>,
    /// `similarity` or `uniform`.
    pub weights: Weights,
    /// `f32` or `bf16`.
    pub precision: Precision,
    /// The share of the training images that choose among several pairs.
    pub validation: f64,
}

impl Default for Neighbors {
    fn default() -> Self {
        Self {
            k: Values::One(20),
            temperature: Values::One(0.07),
            weights: Weights::Similarity,
            precision: Precision::F32,
            validation: 0.1,
        }
    }
}

impl Neighbors {
    /// Whether there is more than one pair to choose from, which is when a seed makes a difference.
    pub fn is_grid(&self) -> bool {
        self.pairs().len() > 1
    }

    /// Every pair, in the order given: k and, where votes are weighted, temperature.
    fn pairs(&self) -> Vec<(usize, Option<f64>)> {
        let temperatures: Vec<Option<f64>> = match self.weights {
            Weights::Similarity => self.temperature.all().into_iter().map(Some).collect(),
            Weights::Uniform => vec![None],
        };
        self.k.all().into_iter().flat_map(|k| temperatures.iter().map(move |t| (k, *t))).collect()
    }

    /// That the settings can be used with so many training images.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self, training: usize) -> Result<()> {
        let pairs = self.pairs();
        ensure!(!pairs.is_empty(), "knn.k and knn.temperature need one value at least");
        for (k, temperature) in &pairs {
            ensure!(*k > 0, "knn.k = 0: the number of neighbors that vote must be 1 or more");
            ensure!(
                *k <= training,
                "knn.k = {k}, but there are only {training} training images to vote; give --set knn.k={training} or less"
            );
            let positive = temperature.is_none_or(|t| t > 0.0 && t.is_finite());
            ensure!(
                positive,
                "knn.temperature = {:?}: expected a positive number, usually 0.07",
                temperature.unwrap_or(0.0)
            );
        }
        let share = self.validation > 0.0 && self.validation < 1.0;
        ensure!(
            pairs.len() == 1 || share && training >= 2,
            "knn.validation = {} of {training} training images: a grid needs a part of them to choose by, such as 0.1",
            self.validation
        );
        Ok(())
    }

    /// Judges `test` by its neighbors in `train`; with a grid, `seed` gives the training rows that choose.
    ///
    /// # Errors
    /// If a set has no labels, [`Neighbors::check`] finds something, the widths differ, or a feature is not finite.
    pub fn result(&self, train: &Features, test: &Features, seed: u64) -> Result<EvalResult> {
        let (bank, truth) = (train.labels("kNN")?, test.labels("kNN")?);
        self.check(bank.len())?;
        let pairs = self.pairs();
        let best = if pairs.len() > 1 { self.choose(&train.x, bank, seed)? } else { 0 };
        let values = self.judge(&train.x, bank, &test.x, truth)?;
        let mut result = EvalResult::top1("knn", values[best], test.indices.len());
        let (k, temperature) = pairs[best];
        if pairs.len() > 1 {
            result.chosen.insert("k".into(), k as f64);
            result.chosen.extend(temperature.map(|t| ("temperature".to_string(), t)));
            let value =
                |(&(k, temperature), &value): (&(usize, Option<f64>), &f64)| GridValue { k, temperature, value };
            result.grid = pairs.iter().zip(&values).map(value).collect();
        }
        let votes = match temperature {
            Some(t) => format!("votes exp(s / {t})"),
            None => "votes of equal weight".into(),
        };
        let (rounded, share) = (self.precision == Precision::Bf16, 100.0 * self.validation);
        result.words = format!(
            "the {k} nearest of {} training images by cosine similarity s of frozen features{}, {votes}",
            bank.len(),
            if rounded { " rounded to bf16" } else { "" },
        );
        if pairs.len() > 1 {
            result.words += &format!(
                "; k and temperature were chosen on {share} % of the training images among {} pairs, never by the test images",
                pairs.len()
            );
        }
        Ok(result)
    }

    /// The place of the pair that is best for some of the training rows, judged by the others; the first of equals.
    fn choose(&self, x: &Tensor, labels: &[u32], seed: u64) -> Result<usize> {
        let n = labels.len();
        let order = Stream::named(seed, "knn.validation").permutation(n);
        let held = ((n as f64 * self.validation).round() as usize).clamp(1, n - 1);
        let part = |rows: &[usize]| -> Result<(Tensor, Vec<u32>)> {
            let index: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
            let of = rows.iter().map(|row| labels[*row]).collect();
            Ok((x.index_select(&Tensor::from_vec(index, rows.len(), x.device())?, 0)?, of))
        };
        let ((held, truth), (rest, bank)) = (part(&order[..held])?, part(&order[held..])?);
        let values = self.judge(&rest, &bank, &held, &truth)?;
        Ok((1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best }))
    }

    /// The accuracy of every pair, from one search. Of a bank that is smaller than k, all rows vote.
    fn judge(&self, bank: &Tensor, labels: &[u32], queries: &Tensor, truth: &[u32]) -> Result<Vec<f64>> {
        let pairs = self.pairs();
        let most = pairs.iter().map(|(k, _)| *k).max().unwrap_or(1).min(labels.len());
        let precision = match self.precision {
            Precision::F32 => diptych_metrics::Precision::F32,
            Precision::Bf16 => diptych_metrics::Precision::Bf16,
        };
        let found = nearest_in(precision, queries, bank, most)?;
        let accuracy = |&(k, temperature): &(usize, Option<f64>)| {
            let votes = temperature.map_or(Votes::Uniform, |temperature| Votes::Weighted { temperature });
            Ok(diptych_metrics::accuracy(&classify(&found, labels, k.min(most), votes)?, truth)?)
        };
        pairs.iter().map(accuracy).collect()
    }
}

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

    /// A grid gives what each pair gives alone, and takes one that its training rows chose.
    #[test]
    fn a_grid_is_its_pairs() -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(60, 3));
        let train = pixels(&dataset, &transform(32, 1))?;
        // Noise over everything, so that pairs differ.
        let noise: Vec<f32> = {
            let mut stream = Stream::keyed(1, &[]);
            (0..train.x.elem_count()).map(|_| 40.0 * (stream.uniform() as f32 - 0.5)).collect()
        };
        let noise = Tensor::from_vec(noise, train.x.dims(), train.x.device())?;
        let test = Features { x: (&train.x + noise)?, ..train.clone() };
        let grid = Neighbors {
            k: Values::Several(vec![1, 5, 40]),
            temperature: Values::Several(vec![0.05, 1.0]),
            ..Neighbors::default()
        };
        let found = grid.result(&train, &test, 0)?;
        assert_eq!(found.grid.len(), 6);
        for point in &found.grid {
            let (k, temperature) = (Values::One(point.k), Values::One(point.temperature.unwrap()));
            let alone = Neighbors { k, temperature, ..Neighbors::default() }.result(&train, &test, 0)?;
            assert_eq!(alone.value, point.value);
            assert!(alone.grid.is_empty() && alone.chosen.is_empty());
            assert_eq!(alone.value, knn(&train, &test, point.k, point.temperature.unwrap())?.accuracy);
        }
        let of = |point: &&GridValue| {
            Some(&(point.k as f64)) == found.chosen.get("k")
                && point.temperature.as_ref() == found.chosen.get("temperature")
        };
        assert_eq!(found.grid.iter().find(of).unwrap().value, found.value);
        assert!(found.words.contains("among 6 pairs, never by the test images"), "{}", found.words);
        assert_eq!(found, grid.result(&train, &test, 0)?);
        let votes = Neighbors { weights: Weights::Uniform, ..grid };
        let found = votes.result(&train, &test, 0)?;
        assert_eq!(
            found.grid.iter().map(|point| (point.k, point.temperature)).collect::<Vec<_>>(),
            [(1, None), (5, None), (40, None)]
        );
        Ok(())
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let error = |settings: Neighbors| settings.check(12).unwrap_err().to_string();
        let several = |k: &[usize]| Neighbors { k: Values::Several(k.to_vec()), ..Neighbors::default() };
        assert!(error(several(&[1, 20])).contains("knn.k = 20, but there are only 12"));
        assert!(error(several(&[])).contains("one value at least"));
        assert!(error(several(&[0])).contains("knn.k = 0"));
        let negative = Neighbors { temperature: Values::One(-1.0), ..several(&[1]) };
        assert!(error(negative).contains("knn.temperature = -1.0"));
        let none = Neighbors { validation: 0.0, ..several(&[1, 2]) };
        assert!(error(none).contains("knn.validation = 0 of 12"));
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
