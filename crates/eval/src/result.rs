//! What an evaluation says in the end.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The epoch of a training at which the test set was classified best. It was chosen by the test set, so it is no result: it is told because some
/// papers' codes report it, and shows how much of a difference that makes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// Counted from 1; with several seeds, the first one's.
    pub epoch: usize,
    /// The value after it; with several seeds, the mean.
    pub value: f64,
}

/// The value of one pair of settings of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridValue {
    /// Neighbors.
    pub k: usize,
    /// Of the votes' weights; none where all votes count the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature: Option<f64>,
    /// The value; with several seeds, the mean.
    pub value: f64,
}

/// One number with what it was measured on; its JSON is what `eval --json` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// How it was measured: `knn`, `linear`, `logistic` or `finetune`.
    pub protocol: String,
    /// What was measured: `top1`.
    pub metric: String,
    /// The value; with several seeds, the mean over them. Accuracies are fractions in [0, 1].
    pub value: f64,
    /// The top-1 accuracy, where that is what was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top1: Option<f64>,
    /// Share of the images whose class is among the first five, where a classifier ranks more than five classes; with several seeds, the mean.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top5: Option<f64>,
    /// Which images it was measured on: `test`.
    pub split: String,
    /// How many.
    pub n: usize,
    /// The weights, as they were named.
    pub weights: String,
    /// The data, as it was named.
    pub data: String,
    /// Mean over the seeds, if there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean: Option<f64>,
    /// Standard deviation over the seeds (of a sample: divided by their number less 1), if there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub std: Option<f64>,
    /// How many seeds, if there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seeds: Option<usize>,
    /// The protocol in words.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub words: String,
    /// What was chosen on validation images, by the name of the setting; with several seeds, the first one's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub chosen: BTreeMap<String, f64>,
    /// Where a grid was asked for: the value of every pair. The best of them is no result, since it would be chosen by the test images.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub grid: Vec<GridValue>,
    /// Where the value is of the last epoch: the best epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub best_epoch: Option<BestEpoch>,
    /// The best of several seeds: shown, not kept in the JSON.
    #[serde(skip)]
    pub best: Option<f64>,
}

impl EvalResult {
    /// A top-1 accuracy on `n` test images; weights and data are named by [`EvalResult::over_seeds`].
    pub(crate) fn top1(protocol: &str, accuracy: f64, n: usize) -> Self {
        Self {
            protocol: protocol.into(),
            metric: "top1".into(),
            value: accuracy,
            top1: Some(accuracy),
            top5: None,
            split: "test".into(),
            n,
            weights: String::new(),
            data: String::new(),
            mean: None,
            std: None,
            seeds: None,
            words: String::new(),
            chosen: BTreeMap::new(),
            grid: Vec::new(),
            best_epoch: None,
            best: None,
        }
    }

    /// One result from those of one or several seeds, with the names of weights and data.
    ///
    /// # Errors
    /// If there is none, or they are not of one protocol and one set.
    pub fn over_seeds(results: Vec<Self>, weights: &str, data: &str) -> Result<Self> {
        let Some(first) = results.first() else { bail!("there is no result to report") };
        let same = |r: &Self| {
            (&r.protocol, &r.metric, &r.split, r.n) == (&first.protocol, &first.metric, &first.split, first.n)
        };
        if !results.iter().all(same) {
            bail!("results of different protocols or sets have no common mean")
        }
        let mut all = Self { weights: weights.into(), data: data.into(), ..first.clone() };
        if results.len() > 1 {
            let n = results.len() as f64;
            let mean = results.iter().map(|r| r.value).sum::<f64>() / n;
            let squares = results.iter().map(|r| (r.value - mean).powi(2)).sum::<f64>();
            all.value = mean;
            all.top1 = first.top1.map(|_| mean);
            all.top5 = first.top5.map(|_| results.iter().filter_map(|r| r.top5).sum::<f64>() / n);
            all.mean = Some(mean);
            all.std = Some((squares / (n - 1.0)).sqrt());
            all.seeds = Some(results.len());
            for (i, point) in all.grid.iter_mut().enumerate() {
                point.value = results.iter().filter_map(|r| r.grid.get(i)).map(|point| point.value).sum::<f64>() / n;
            }
            let of_best = results.iter().filter_map(|r| r.best_epoch).map(|best| best.value).sum::<f64>() / n;
            all.best_epoch = first.best_epoch.map(|best| BestEpoch { value: of_best, ..best });
            all.best = results.iter().map(|r| r.value).reduce(f64::max);
        }
        Ok(all)
    }
}

impl Display for EvalResult {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let percent = |v: f64| 100.0 * v;
        write!(f, "{} {}: {:.2} %", self.protocol, self.metric, percent(self.value))?;
        if let (Some(std), Some(seeds), Some(best)) = (self.std, self.seeds, self.best) {
            write!(f, " +- {:.2} over {seeds} seeds (best {:.2} %)", percent(std), percent(best))?;
        }
        write!(f, " on {} {} images", self.n, self.split)?;
        if !self.weights.is_empty() {
            write!(f, "; weights {}, data {}", self.weights, self.data)?;
        }
        if let Some(top5) = self.top5 {
            write!(f, "\n  top5: {:.2} %", percent(top5))?;
        }
        if let Some(best) = self.best_epoch {
            write!(
                f,
                "\n  best epoch {}: {:.2} % (chosen by the test images: no result)",
                best.epoch,
                percent(best.value)
            )?;
        }
        if !self.words.is_empty() {
            write!(f, "\n  {}", self.words)?;
        }
        for (name, value) in &self.chosen {
            write!(f, "\n  chosen {}: {value}", name.replace('_', " "))?;
        }
        for point in &self.grid {
            write!(f, "\n  k {:>5}", point.k)?;
            if let Some(temperature) = point.temperature {
                write!(f, ", temperature {temperature:<5}")?;
            }
            write!(f, "  {:.2} %", percent(point.value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(result: &EvalResult) -> Vec<String> {
        let value = serde_json::to_value(result).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    }

    /// The names that scripts read, no more and no fewer.
    #[test]
    fn json_has_the_promised_keys() -> Result<()> {
        let one = EvalResult::over_seeds(vec![EvalResult::top1("knn", 0.5, 10)], "a.safetensors", "images")?;
        let mut names = vec!["data", "metric", "n", "protocol", "split", "top1", "value", "weights"];
        let mut got = keys(&one);
        got.sort();
        assert_eq!(got, names);
        let results = [0.5, 0.6, 0.7].map(|v| EvalResult::top1("linear", v, 10));
        let three = EvalResult::over_seeds(results.to_vec(), "run", "images")?;
        names.extend(["mean", "seeds", "std"]);
        names.sort_unstable();
        let mut got = keys(&three);
        got.sort();
        assert_eq!(got, names);
        let (value, std) = (three.value, three.std.unwrap());
        assert!((value - 0.6).abs() < 1e-12 && (std - 0.1).abs() < 1e-12, "{value} {std}");
        assert_eq!(
            three.to_string(),
            "linear top1: 60.00 % +- 10.00 over 3 seeds (best 70.00 %) on 10 test images; weights run, data images"
        );
        Ok(())
    }

    #[test]
    fn unlike_results_have_no_mean() {
        let results = vec![EvalResult::top1("knn", 0.5, 10), EvalResult::top1("knn", 0.5, 11)];
        assert!(EvalResult::over_seeds(results, "", "").is_err());
        assert!(EvalResult::over_seeds(Vec::new(), "", "").is_err());
    }
}
