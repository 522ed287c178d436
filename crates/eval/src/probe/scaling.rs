//! What is done to features before the classifier.

use serde::{Deserialize, Serialize};

use crate::rows::Rows;

/// What is done to features before the classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Each feature less its mean, by its standard deviation, both those of the training rows (of the center view).
    Standardized,
    /// Nothing.
    Raw,
    /// Batch norm without scale and shift (He et al. 2022, arXiv:2111.06377, appendix A.1): training rows by the statistics of their batch, test rows by
    /// running ones (momentum 0.1, epsilon 1e-6).
    BatchNorm,
    /// Each row by its length.
    #[serde(rename = "l2")]
    L2,
}

/// PyTorch's: how much of the running statistics a batch replaces.
const MOMENTUM: f64 = 0.1;
/// MAE's.
const EPSILON: f64 = 1e-6;

/// A scaling with what it knows of the training rows.
#[derive(Clone)]
pub(super) struct Scaler {
    scaling: Scaling,
    mean: Vec<f64>,
    /// What a feature less its mean is multiplied by; for [`Scaling::BatchNorm`] the running variance.
    spread: Vec<f64>,
}

impl Scaler {
    /// For training on rows of which `center` has the center views.
    pub(super) fn new(scaling: Scaling, center: &Rows) -> Self {
        let (mean, spread) = match scaling {
            Scaling::Standardized => {
                let (mean, variance) = moments(center);
                // A feature that (all but) never changes says nothing: 0, not noise made large.
                let largest = variance.iter().fold(0f64, |m, &v| m.max(v)).sqrt();
                let inverse = |s: f64| if s > 1e-6 * largest { 1.0 / s } else { 0.0 };
                (mean, variance.iter().map(|v| inverse(v.sqrt())).collect())
            }
            Scaling::BatchNorm => (vec![0.0; center.width], vec![1.0; center.width]),
            Scaling::Raw | Scaling::L2 => (Vec::new(), Vec::new()),
        };
        Self { scaling, mean, spread }
    }

    /// A batch to train on.
    pub(super) fn batch(&mut self, rows: Rows) -> Rows {
        if self.scaling != Scaling::BatchNorm {
            return self.apply(rows);
        }
        let (mean, variance) = moments(&rows);
        let n = rows.len() as f64;
        let unbiased = n / (n - 1.0).max(1.0);
        for (running, new) in self.mean.iter_mut().zip(&mean) {
            *running += MOMENTUM * (new - *running);
        }
        for (running, new) in self.spread.iter_mut().zip(&variance) {
            *running += MOMENTUM * (new * unbiased - *running);
        }
        shifted(rows, &mean, &inverses(&variance))
    }

    /// Rows to judge.
    pub(super) fn apply(&self, mut rows: Rows) -> Rows {
        match self.scaling {
            Scaling::Raw => rows,
            Scaling::Standardized => shifted(rows, &self.mean, &self.spread),
            Scaling::BatchNorm => shifted(rows, &self.mean, &inverses(&self.spread)),
            Scaling::L2 => {
                for row in rows.x.chunks_exact_mut(rows.width) {
                    let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
                    row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
                }
                rows
            }
        }
    }

    /// Whether what it makes of test rows is the same after every batch.
    pub(super) fn settled(&self) -> bool {
        self.scaling != Scaling::BatchNorm
    }
}

fn inverses(variance: &[f64]) -> Vec<f64> {
    variance.iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect()
}

fn shifted(mut rows: Rows, mean: &[f64], factor: &[f64]) -> Rows {
    for row in rows.x.chunks_exact_mut(rows.width) {
        for ((v, m), s) in row.iter_mut().zip(mean).zip(factor) {
            *v = ((f64::from(*v) - m) * s) as f32;
        }
    }
    rows
}

/// Mean and variance (divided by the number of rows) of each feature.
fn moments(rows: &Rows) -> (Vec<f64>, Vec<f64>) {
    let n = rows.len() as f64;
    let (mut mean, mut variance) = (vec![0f64; rows.width], vec![0f64; rows.width]);
    for row in rows.x.chunks_exact(rows.width) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
    }
    for row in rows.x.chunks_exact(rows.width) {
        for ((s, m), &v) in variance.iter_mut().zip(&mean).zip(row) {
            *s += (f64::from(v) - m).powi(2) / n;
        }
    }
    (mean, variance)
}
