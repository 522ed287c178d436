//! Logistic regression on frozen features by L-BFGS, with an L2 penalty that a validation split chooses: the transfer protocol of SimCLR (Chen et al. 2020,
//! arXiv:2002.05709, appendix B.8) and BYOL (Grill et al. 2020, arXiv:2006.07733, appendix D).
//!
//! For a penalty `l` the classifier minimizes `sum of cross entropies + l / 2 |W|^2` (biases are not penalized), which is scikit-learn's with `C = 1 / l`.
//! All penalties are fitted at once: each pass over the features serves every classifier that has not converged.

mod lbfgs;
mod objective;
mod one_vs_rest;

use anyhow::{Result, ensure};
use diptych_random::Stream;
use lbfgs::{Lbfgs, Limits};
use objective::{Classifiers, Goal, Problem};
pub use one_vs_rest::OneVsRest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rows::{Rows, largest};
use crate::{EvalResult, Features};

/// Bytes that the searches which are under way together may hold, unless one holds more.
const MEMORY: usize = 1 << 30;

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

/// The fit for one of several penalties.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The L2 penalty.
    pub penalty: f64,
    /// The objective, by the number of rows.
    pub objective: f64,
    /// Share of the rows to which it was fitted that it classifies rightly.
    pub accuracy: f64,
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
        self.check()?;
        let (train, test) = Rows::both(train, test, classes)?;
        let (held, rest) = divided(train.len(), self.validation, seed);
        let (validation, rest) = (train.select(&held), train.select(&rest));
        let problem = |rows| Problem { rows, goal: Goal::One(&rows.labels), classes };
        let scores = accuracies(&self.fit(problem(&rest), &self.penalties).0, &validation);
        let best = self.best(&scores);
        let (chosen, objectives) = self.fit(problem(&train), &self.penalties[best..=best]);
        let predictions = predictions(&chosen, &test);
        Ok(Regressed {
            accuracy: diptych_metrics::accuracy(&predictions, &test.labels)?,
            predictions,
            penalty: self.penalties[best],
            validation_accuracy: scores[best],
            objective: objectives[0],
        })
    }

    /// Fits all penalties on all of `train`, whose labels are below `classes`, in their order.
    ///
    /// # Errors
    /// If the settings are wrong, the set has no labels or an unknown one, or a feature is not finite.
    pub fn path(&self, train: &Features, classes: usize) -> Result<Vec<Point>> {
        self.check()?;
        let rows = Rows::new("training", train, classes)?;
        let problem = Problem { rows: &rows, goal: Goal::One(&rows.labels), classes };
        let (classifiers, objectives) = self.fit(problem, &self.penalties);
        let found = self.penalties.iter().zip(objectives).zip(accuracies(&classifiers, &rows));
        Ok(found.map(|((penalty, objective), accuracy)| Point { penalty: *penalty, objective, accuracy }).collect())
    }

    /// One classifier for each penalty, and the objective of each.
    fn fit(&self, problem: Problem, penalties: &[f64]) -> (Classifiers, Vec<f64>) {
        let limits = Limits { gradient: self.tolerance, iterations: self.iterations };
        let (mut points, mut objectives) = (Vec::new(), Vec::new());
        for penalties in penalties.chunks((MEMORY / lbfgs::bytes(problem.size())).max(1)) {
            let mut searches: Vec<Lbfgs> =
                penalties.iter().map(|_| Lbfgs::new(vec![0.0; problem.size()], limits)).collect();
            loop {
                let active: Vec<usize> = (0..searches.len()).filter(|i| !searches[*i].finished()).collect();
                if active.is_empty() {
                    break;
                }
                let wanted: Vec<Vec<f64>> = active.par_iter().map(|i| searches[*i].wanted()).collect();
                let chosen: Vec<f64> = active.iter().map(|i| penalties[*i]).collect();
                let samples = problem.evaluate(&wanted, &chosen);
                let unfinished = searches.par_iter_mut().filter(|search| !search.finished()).collect::<Vec<_>>();
                unfinished.into_par_iter().zip(samples).for_each(|(search, sample)| search.tell(sample));
            }
            objectives.extend(searches.iter().map(Lbfgs::value));
            points.extend(searches.into_iter().map(Lbfgs::into_point));
        }
        (Classifiers::at(&points, problem.classes, problem.rows.width), objectives)
    }

    fn check(&self) -> Result<()> {
        let positive = self.penalties.iter().all(|penalty| penalty.is_finite() && *penalty >= 0.0);
        ensure!(
            !self.penalties.is_empty() && positive,
            "logistic regression: penalties are numbers from 0 up, one at least"
        );
        ensure!(
            (0.0..1.0).contains(&self.validation),
            "logistic regression: validation is {}, it must be a share of the training rows, from 0 up and below 1",
            self.validation
        );
        ensure!(
            self.tolerance > 0.0 && self.iterations > 0,
            "logistic regression: tolerance {} and iterations {} must be above 0",
            self.tolerance,
            self.iterations
        );
        Ok(())
    }

    /// The best of the scores, one for each penalty: of equal ones that of the stronger penalty.
    fn best(&self, scores: &[f64]) -> usize {
        let stronger = |a: usize, b: usize| self.penalties[a].total_cmp(&self.penalties[b]);
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(stronger(a, b)));
        best.unwrap_or(0)
    }
}

/// Rows that choose and rows to fit, both drawn by the seed.
fn divided(n: usize, share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut held = Stream::named(seed, "logistic.validation").permutation(n);
    let rest = held.split_off(((n as f64 * share).round() as usize).clamp(1, n - 1));
    (held, rest)
}

/// The accuracy of each classifier.
fn accuracies(classifiers: &Classifiers, rows: &Rows) -> Vec<f64> {
    let mut right = vec![0usize; classifiers.count()];
    classifiers.judge(rows, |i, row| {
        for (right, logits) in right.iter_mut().zip(row.chunks_exact(classifiers.classes())) {
            *right += usize::from(largest(logits) == rows.labels[i]);
        }
    });
    right.into_iter().map(|right| right as f64 / rows.len() as f64).collect()
}

/// The first classifier's classes.
fn predictions(classifiers: &Classifiers, rows: &Rows) -> Vec<u32> {
    let mut predictions = Vec::with_capacity(rows.len());
    classifiers.judge(rows, |_, row| predictions.push(largest(&row[..classifiers.classes()])));
    predictions
}
