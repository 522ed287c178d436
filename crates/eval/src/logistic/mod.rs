//! Logistic regression on frozen features by L-BFGS, with an L2 penalty that a validation split chooses: the transfer protocol of SimCLR (Chen et al. 2020,
//! arXiv:2002.05709, appendix B.8) and BYOL (Grill et al. 2020, arXiv:2006.07733, appendix D).
//!
//! For a penalty `l` the classifier minimizes `sum of cross entropies + l / 2 |W|^2` (biases are not penalized), which is scikit-learn's with `C = 1 / l`.
//! All penalties are fitted at once: each pass over the features serves every classifier that has not converged.

mod lbfgs;

use anyhow::{Result, ensure};
use diptych_kernels::linear::cpu::{Extents, bias_gradient, forward, weight_gradient};
use diptych_random::Stream;
use lbfgs::{Lbfgs, Limits, Sample};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rows::{Rows, largest};
use crate::{EvalResult, Features};

/// Rows that go through all classifiers at once.
const BLOCK: usize = 2048;

/// How a logistic regression is fitted. Plain data; the default is SimCLR's sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logistic {
    /// L2 penalties to try.
    pub penalties: Vec<f64>,
    /// Share of the training rows that choose among them.
    pub validation: f64,
    /// The search ends where no derivative of the mean objective is larger.
    pub tolerance: f64,
    /// Steps of the search at most.
    pub iterations: usize,
}

impl Default for Logistic {
    /// 45 penalties, evenly spaced in the logarithm from 1e-6 to 1e5; a fifth of the rows chooses.
    fn default() -> Self {
        let penalties = (0..45).map(|i| 10f64.powf(-6.0 + 11.0 * f64::from(i) / 44.0)).collect();
        Self { penalties, validation: 0.2, tolerance: 1e-4, iterations: 1000 }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Regressed {
    /// Share of the test rows that were classified rightly.
    pub accuracy: f64,
    /// A class for each test row.
    pub predictions: Vec<u32>,
    /// The chosen penalty.
    pub penalty: f64,
    /// Its accuracy on the rows that chose it.
    pub validation_accuracy: f64,
    /// The objective on all training rows, by their number.
    pub objective: f64,
}

impl Logistic {
    /// [`Logistic::run`] as a result to be printed or kept.
    ///
    /// # Errors
    /// As [`Logistic::run`].
    pub fn result(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<EvalResult> {
        let found = self.run(train, test, classes, seed)?;
        let mut result = EvalResult::top1("logistic", found.accuracy, test.indices.len());
        result.chosen.insert("penalty".into(), found.penalty);
        result.words = format!(
            "softmax regression by L-BFGS on frozen features as they are; one of {} L2 penalties was chosen on {} % of the training images, then fitted on all",
            self.penalties.len(),
            100.0 * self.validation
        );
        Ok(result)
    }

    /// Fits all penalties on a part of `train`, chooses by the rest, fits the chosen one on all of it, and judges on `test` once. Labels are below
    /// `classes`; `seed` gives the validation rows. Features are taken as they are.
    ///
    /// # Errors
    /// If a set has no labels or an unknown one, there are fewer than 2 training rows, a feature is not finite, the widths differ, or there is no penalty.
    pub fn run(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<Regressed> {
        let positive = self.penalties.iter().all(|penalty| penalty.is_finite() && *penalty >= 0.0);
        ensure!(
            !self.penalties.is_empty() && positive,
            "logistic regression: penalties are numbers from 0 up, one at least"
        );
        let (train, test) = Rows::both(train, test, classes)?;
        let n = train.labels.len();
        let order = Stream::named(seed, "logistic.validation").permutation(n);
        let held = ((n as f64 * self.validation).round() as usize).clamp(1, n - 1);
        let (validation, rest) = (train.select(&order[..held]), train.select(&order[held..]));
        let fitted = self.fit(&rest, &self.penalties, classes);
        let scores = fitted.accuracies(&validation);
        // Of equal accuracies the stronger penalty.
        let best = (0..scores.len())
            .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(self.penalties[a].total_cmp(&self.penalties[b])));
        let best = best.unwrap_or(0);
        let chosen = self.fit(&train, &self.penalties[best..=best], classes);
        let predictions = chosen.predictions(&test);
        Ok(Regressed {
            accuracy: diptych_metrics::accuracy(&predictions, &test.labels)?,
            predictions,
            penalty: self.penalties[best],
            validation_accuracy: scores[best],
            objective: chosen.objectives[0],
        })
    }

    /// One classifier for each penalty.
    fn fit(&self, rows: &Rows, penalties: &[f64], classes: usize) -> Classifiers {
        let limits = Limits { gradient: self.tolerance, iterations: self.iterations };
        let size = classes * (rows.width + 1);
        let mut searches: Vec<(f64, Lbfgs, f64)> =
            penalties.iter().map(|penalty| (*penalty, Lbfgs::new(vec![0.0; size], limits), f64::NAN)).collect();
        loop {
            let active: Vec<usize> = (0..searches.len()).filter(|i| !searches[*i].1.finished()).collect();
            if active.is_empty() {
                break;
            }
            let points: Vec<Vec<f64>> = active.iter().map(|i| searches[*i].1.wanted()).collect();
            let chosen: Vec<f64> = active.iter().map(|i| searches[*i].0).collect();
            for (i, sample) in active.into_iter().zip(evaluate(rows, &points, &chosen, classes)) {
                let (_, search, value) = &mut searches[i];
                let before = search.iterations();
                let told = sample.value;
                search.tell(sample);
                if search.iterations() > before || value.is_nan() {
                    *value = told;
                }
            }
        }
        let objectives = searches.iter().map(|(.., value)| *value).collect();
        let points: Vec<&[f64]> = searches.iter().map(|(_, search, _)| search.point()).collect();
        let (w, b) = side_by_side(&points, classes, rows.width);
        Classifiers { w, b, classes, width: rows.width, objectives }
    }
}

/// Weights `[all classes, width]` and biases of several points, each `[classes, width]` and then `[classes]`.
fn side_by_side(points: &[impl AsRef<[f64]>], classes: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut w, mut b) = (Vec::new(), Vec::new());
    for point in points {
        let (weights, biases) = point.as_ref().split_at(classes * width);
        w.extend(weights.iter().map(|value| *value as f32));
        b.extend(biases.iter().map(|value| *value as f32));
    }
    (w, b)
}

/// The mean objective and its gradient at one point for each penalty. Products are f32, sums over rows f64.
fn evaluate(rows: &Rows, points: &[Vec<f64>], penalties: &[f64], classes: usize) -> Vec<Sample> {
    let (n, width, outputs) = (rows.labels.len(), rows.width, points.len() * classes);
    let (w, b) = side_by_side(points, classes, width);
    let mut losses = vec![0f64; points.len()];
    let (mut dw, mut db) = (vec![0f64; outputs * width], vec![0f64; outputs]);
    for (x, labels) in rows.x.chunks(BLOCK * width).zip(rows.labels.chunks(BLOCK)) {
        let extents = Extents { rows: labels.len(), inputs: width, outputs };
        let mut p = forward(x, &w, Some(&b), extents);
        let parts: Vec<Vec<f64>> = p
            .par_chunks_exact_mut(outputs)
            .zip(labels)
            .map(|(row, label)| softmax(row, *label as usize, classes))
            .collect();
        for part in &parts {
            losses.iter_mut().zip(part).for_each(|(sum, loss)| *sum += loss);
        }
        let add = |sums: &mut [f64], part: &[f32]| sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += f64::from(*v));
        add(&mut dw, &weight_gradient(&p, x, extents));
        add(&mut db, &bias_gradient(&p, extents));
    }
    let share = 1.0 / n as f64;
    let sample = |i: usize| {
        let weights = &points[i][..classes * width];
        let penalty = penalties[i] * share;
        let square: f64 = weights.iter().map(|w| w * w).sum();
        let of_weights = dw[i * classes * width..][..classes * width].iter().zip(weights);
        let mut gradient: Vec<f64> = of_weights.map(|(g, w)| g * share + penalty * w).collect();
        gradient.extend(db[i * classes..][..classes].iter().map(|g| g * share));
        Sample { value: losses[i] * share + 0.5 * penalty * square, gradient }
    };
    (0..points.len()).map(sample).collect()
}

/// Turns a row's logits into `softmax - onehot` for each classifier; gives the cross entropies.
fn softmax(row: &mut [f32], label: usize, classes: usize) -> Vec<f64> {
    row.chunks_exact_mut(classes)
        .map(|p| {
            let top = p.iter().fold(f32::NEG_INFINITY, |most, v| most.max(*v));
            let own = p[label];
            let mut sum = 0f64;
            for v in p.iter_mut() {
                let e = f64::from(*v - top).exp();
                sum += e;
                *v = e as f32;
            }
            p.iter_mut().for_each(|v| *v = (f64::from(*v) / sum) as f32);
            p[label] -= 1.0;
            sum.ln() + f64::from(top - own)
        })
        .collect()
}

/// Fitted classifiers side by side.
struct Classifiers {
    w: Vec<f32>,
    b: Vec<f32>,
    classes: usize,
    width: usize,
    objectives: Vec<f64>,
}

impl Classifiers {
    /// The classes that each classifier gives a row, row by row.
    fn judge(&self, rows: &Rows, mut see: impl FnMut(usize, &[f32])) {
        let outputs = self.b.len();
        for (block, (x, labels)) in rows.x.chunks(BLOCK * self.width).zip(rows.labels.chunks(BLOCK)).enumerate() {
            let extents = Extents { rows: labels.len(), inputs: self.width, outputs };
            let logits = forward(x, &self.w, Some(&self.b), extents);
            logits.chunks_exact(outputs).enumerate().for_each(|(i, row)| see(block * BLOCK + i, row));
        }
    }

    /// The accuracy of each classifier.
    fn accuracies(&self, rows: &Rows) -> Vec<f64> {
        let mut right = vec![0usize; self.b.len() / self.classes];
        self.judge(rows, |i, row| {
            for (right, logits) in right.iter_mut().zip(row.chunks_exact(self.classes)) {
                *right += usize::from(largest(logits) == rows.labels[i]);
            }
        });
        right.into_iter().map(|right| right as f64 / rows.labels.len() as f64).collect()
    }

    /// The first classifier's classes.
    fn predictions(&self, rows: &Rows) -> Vec<u32> {
        let mut predictions = Vec::with_capacity(rows.labels.len());
        self.judge(rows, |_, row| predictions.push(largest(&row[..self.classes])));
        predictions
    }
}
