//! The linear protocol: a softmax classifier on frozen, standardized features.
//!
//! Features are standardized by the mean and standard deviation of the training rows (batch norm without scale and shift, frozen), as is
//! usual since MoCo v3 and MAE; without it one learning rate would not do for backbones of different scales. The classifier starts at
//! zero and is trained by SGD with Nesterov momentum 0.9, batch 256, a cosine schedule over 100 epochs, on the features of the center view
//! (no augmentation). All learning rates and weight decays of the grid are trained at once, as columns of one matrix; a tenth of the
//! training rows, drawn by the seed, chooses among them. Then the chosen one is trained on all of them, and judged on the test set once,
//! after the last epoch.

use anyhow::{Result, ensure};
use diptych_kernels::linear::cpu::{Extents, bias_gradient, forward, weight_gradient};
use diptych_random::Stream;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rows::{Rows, largest};
use crate::{EvalResult, Features};

/// How a linear probe is trained. Plain data; the default is the protocol that the module describes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Learning rates to try, at batch 256.
    pub learning_rates: Vec<f64>,
    /// Weight decays to try with each; biases have none.
    pub weight_decays: Vec<f64>,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows per step.
    pub batch_size: usize,
    /// Momentum, Nesterov's.
    pub momentum: f32,
    /// Share of the training rows that choose among learning rates and weight decays.
    pub validation: f64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            learning_rates: vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
            weight_decays: vec![0.0, 1e-3, 1e-2, 1e-1],
            epochs: 100,
            batch_size: 256,
            momentum: 0.9,
            validation: 0.1,
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Share of the test rows that were classified rightly.
    pub accuracy: f64,
    /// A class for each test row.
    pub predictions: Vec<u32>,
    /// The chosen learning rate.
    pub learning_rate: f64,
    /// The chosen weight decay.
    pub weight_decay: f64,
    /// Its accuracy on the rows that chose it.
    pub validation_accuracy: f64,
}

impl Probe {
    /// [`Probe::run`] as a result to be printed or kept.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn result(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<EvalResult> {
        let found = self.run(train, test, classes, seed)?;
        let mut result = EvalResult::top1("linear", found.accuracy, test.indices.len());
        result.chosen.insert("learning_rate".into(), found.learning_rate);
        result.chosen.insert("weight_decay".into(), found.weight_decay);
        result.words = format!(
            "linear classifier on frozen, standardized features of the center view; SGD, {} epochs, batch {}; learning rate and weight decay were chosen on {} % of the training images; last epoch",
            self.epochs,
            self.batch_size,
            100.0 * self.validation
        );
        Ok(result)
    }

    /// Trains on `train`, judges on `test`; labels are below `classes`. `seed` gives the validation rows and the order of batches.
    ///
    /// # Errors
    /// If a set has no labels or an unknown one, there are fewer than 2 training rows, a feature is not finite, the widths differ, or the
    /// grid is empty.
    pub fn run(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<Fitted> {
        let learning_rates = self.learning_rates.iter();
        let grid: Vec<(f64, f64)> =
            learning_rates.flat_map(|&lr| self.weight_decays.iter().map(move |&decay| (lr, decay))).collect();
        ensure!(!grid.is_empty() && self.batch_size > 0, "linear probe: the grid is empty, or the batch size 0");
        let (train, test) = Rows::both(train, test, classes)?;

        // Validation rows choose; they take no part in the standardization either.
        let order = Stream::named(seed, "probe.validation").permutation(train.labels.len());
        let held = ((train.labels.len() as f64 * self.validation).round() as usize).clamp(1, train.labels.len() - 1);
        let (validation, rest) = (train.select(&order[..held]), train.select(&order[held..]));
        let scale = Standardization::of(&rest);
        let (validation, rest) = (scale.apply(validation), scale.apply(rest));
        let scores: Vec<(f64, f64)> = self.fit(&rest, &grid, classes, seed).judge(&validation);
        let mut best = 0;
        for (i, &(accuracy, loss)) in scores.iter().enumerate() {
            let (top, least) = scores[best];
            // A loss of NaN comes from a rate too high.
            if accuracy > top || (accuracy == top && (loss < least || least.is_nan())) {
                best = i;
            }
        }

        let scale = Standardization::of(&train);
        let (train, test) = (scale.apply(train), scale.apply(test));
        let classifier = self.fit(&train, &grid[best..=best], classes, seed);
        let predictions = classifier.predict(&test);
        Ok(Fitted {
            accuracy: diptych_metrics::accuracy(&predictions, &test.labels)?,
            predictions,
            learning_rate: grid[best].0,
            weight_decay: grid[best].1,
            validation_accuracy: scores[best].0,
        })
    }

    /// Trains one classifier for each (learning rate, weight decay), all in one pass over the rows.
    fn fit(&self, rows: &Rows, grid: &[(f64, f64)], classes: usize, seed: u64) -> Classifiers {
        let (width, outputs) = (rows.width, grid.len() * classes);
        let mut found = Classifiers { w: vec![0.0; outputs * width], b: vec![0.0; outputs], classes, width };
        let (mut dw, mut db) = (vec![0f32; outputs * width], vec![0f32; outputs]);
        let batch = self.batch_size.min(rows.labels.len());
        let steps = self.epochs * rows.labels.len().div_ceil(batch);
        let mut step = 0;
        for epoch in 0..self.epochs as u64 {
            let order =
                Stream::keyed(seed, &[u64::from_be_bytes(*b"probe\0\0\0"), epoch]).permutation(rows.labels.len());
            for part in order.chunks(batch) {
                let part = rows.select(part);
                let mut p = found.logits(&part);
                found.softmax(&mut p, &part.labels);
                let extents = found.extents(part.labels.len());
                let (gw, gb) = (weight_gradient(&p, &part.x, extents), bias_gradient(&p, extents));
                let factor = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
                let share = classes * width;
                let weights = found.w.par_chunks_mut(share).zip(dw.par_chunks_mut(share)).zip(gw.par_chunks(share));
                weights.zip(grid).for_each(|(((w, dw), gw), &(lr, decay))| {
                    self.update(w, dw, gw, (lr * factor) as f32, decay as f32);
                });
                let biases = found.b.chunks_mut(classes).zip(db.chunks_mut(classes)).zip(gb.chunks(classes));
                biases
                    .zip(grid)
                    .for_each(|(((b, db), gb), &(lr, _))| self.update(b, db, gb, (lr * factor) as f32, 0.0));
                step += 1;
            }
        }
        found
    }

    /// One step of SGD with Nesterov momentum, as PyTorch has it.
    fn update(&self, w: &mut [f32], velocity: &mut [f32], gradient: &[f32], lr: f32, decay: f32) {
        for ((w, v), &g) in w.iter_mut().zip(velocity).zip(gradient) {
            let g = g + decay * *w;
            *v = self.momentum * *v + g;
            *w -= lr * (g + self.momentum * *v);
        }
    }
}

/// Mean and 1 / standard deviation of each feature.
struct Standardization {
    mean: Vec<f64>,
    inverse: Vec<f64>,
}

impl Standardization {
    fn of(rows: &Rows) -> Self {
        let n = rows.labels.len() as f64;
        let (mut mean, mut var) = (vec![0f64; rows.width], vec![0f64; rows.width]);
        for row in rows.x.chunks_exact(rows.width) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
        }
        for row in rows.x.chunks_exact(rows.width) {
            for ((s, m), &v) in var.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(v) - m).powi(2) / n;
            }
        }
        // A feature that (all but) never changes says nothing: 0, not noise made large.
        let largest = var.iter().fold(0f64, |m, &v| m.max(v)).sqrt();
        let inverse = var.iter().map(|v| v.sqrt()).map(|s| if s > 1e-6 * largest { 1.0 / s } else { 0.0 }).collect();
        Self { mean, inverse }
    }

    fn apply(&self, mut rows: Rows) -> Rows {
        for row in rows.x.chunks_exact_mut(rows.width) {
            for ((v, m), s) in row.iter_mut().zip(&self.mean).zip(&self.inverse) {
                *v = ((f64::from(*v) - m) * s) as f32;
            }
        }
        rows
    }
}

/// Several linear classifiers side by side: classifier g has the outputs `g classes .. (g + 1) classes`.
struct Classifiers {
    /// `[outputs, width]`.
    w: Vec<f32>,
    /// `[outputs]`.
    b: Vec<f32>,
    classes: usize,
    width: usize,
}

impl Classifiers {
    fn extents(&self, rows: usize) -> Extents {
        Extents { rows, inputs: self.width, outputs: self.b.len() }
    }

    /// `[rows, outputs]`.
    fn logits(&self, rows: &Rows) -> Vec<f32> {
        forward(&rows.x, &self.w, Some(&self.b), self.extents(rows.labels.len()))
    }

    /// Turns logits into the gradient of the mean cross entropy, `(softmax - onehot) / rows`.
    fn softmax(&self, logits: &mut [f32], labels: &[u32]) {
        let share = 1.0 / labels.len() as f32;
        logits.par_chunks_exact_mut(self.b.len()).zip(labels).for_each(|(row, &label)| {
            for p in row.chunks_exact_mut(self.classes) {
                let top = p.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                let mut sum = 0.0;
                for v in p.iter_mut() {
                    *v = (*v - top).exp();
                    sum += *v;
                }
                let factor = share / sum;
                p.iter_mut().for_each(|v| *v *= factor);
                p[label as usize] -= share;
            }
        });
    }

    /// Accuracy and mean cross entropy of each classifier.
    fn judge(&self, rows: &Rows) -> Vec<(f64, f64)> {
        let mut scores = vec![(0.0, 0.0); self.b.len() / self.classes];
        let n = rows.labels.len() as f64;
        for (row, &label) in self.logits(rows).chunks_exact(self.b.len()).zip(&rows.labels) {
            for (score, logits) in scores.iter_mut().zip(row.chunks_exact(self.classes)) {
                let top = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                let sum: f64 = logits.iter().map(|&v| f64::from(v - top).exp()).sum();
                score.0 += f64::from(u8::from(largest(logits) == label));
                score.1 += sum.ln() + f64::from(top - logits[label as usize]);
            }
        }
        scores.iter().map(|(right, loss)| (right / n, loss / n)).collect()
    }

    /// The first classifier's classes.
    fn predict(&self, rows: &Rows) -> Vec<u32> {
        self.logits(rows).chunks_exact(self.b.len()).map(|row| largest(&row[..self.classes])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// `n` rows around the corners of a simplex, `noise` wide; the last feature is constant.
    fn clusters(n: usize, classes: usize, noise: f64, seed: u64) -> Features {
        let mut stream = Stream::keyed(seed, &[1]);
        let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
        let mut x = Vec::new();
        for &label in &labels {
            x.extend((0..classes).map(|j| (f64::from(u8::from(j == label as usize)) + noise * stream.normal()) as f32));
            x.push(7.0);
        }
        let x = Tensor::from_vec(x, (n, classes + 1), &Device::Cpu).unwrap();
        Features { x, labels: Some(labels), indices: (0..n as u32).collect(), skipped: 0 }
    }

    #[test]
    fn separable_classes_are_learned() -> Result<()> {
        let found = Probe::default().run(&clusters(300, 5, 0.1, 1), &clusters(100, 5, 0.1, 2), 5, 0)?;
        assert_eq!((found.accuracy, found.validation_accuracy), (1.0, 1.0));
        let result = Probe::default().result(&clusters(300, 5, 0.1, 1), &clusters(100, 5, 0.1, 2), 5, 0)?;
        assert_eq!((result.protocol.as_str(), result.value, result.n), ("linear", 1.0, 100));
        Ok(())
    }

    /// Labels that have nothing to do with the features: about 1 / classes.
    #[test]
    fn noise_gives_chance() -> Result<()> {
        let found = Probe::default().run(&clusters(500, 4, 1e6, 3), &clusters(1000, 4, 1e6, 4), 4, 0)?;
        assert!((found.accuracy - 0.25).abs() < 0.06, "{}", found.accuracy);
        Ok(())
    }

    /// Features of any scale and offset give the same classes: they are standardized.
    #[test]
    fn scale_and_offset_do_not_matter() -> Result<()> {
        let (train, test) = (clusters(200, 3, 0.6, 5), clusters(200, 3, 0.6, 6));
        let scaled = |f: &Features| -> Result<Features> { Ok(Features { x: f.x.affine(1e-4, 3e-4)?, ..f.clone() }) };
        let a = Probe::default().run(&train, &test, 3, 0)?;
        let b = Probe::default().run(&scaled(&train)?, &scaled(&test)?, 3, 0)?;
        assert!((a.accuracy - b.accuracy).abs() <= 0.011, "{} {}", a.accuracy, b.accuracy);
        Ok(())
    }

    /// A grid with one useless rate chooses the other: the choice is made by the validation rows.
    #[test]
    fn the_better_rate_is_chosen() -> Result<()> {
        let probe = Probe { learning_rates: vec![1e-30, 0.1], weight_decays: vec![0.0], ..Probe::default() };
        let found = probe.run(&clusters(300, 4, 0.3, 7), &clusters(100, 4, 0.3, 8), 4, 0)?;
        assert_eq!(found.learning_rate, 0.1);
        assert!(found.accuracy > 0.8, "{}", found.accuracy);
        let diverging = Probe { learning_rates: vec![1e30, 0.1], weight_decays: vec![1e-2], ..Probe::default() };
        assert_eq!(diverging.run(&clusters(300, 4, 0.3, 7), &clusters(100, 4, 0.3, 8), 4, 0)?.learning_rate, 0.1);
        Ok(())
    }

    #[test]
    fn the_same_seed_gives_the_same_classes() -> Result<()> {
        let (train, test) = (clusters(300, 6, 0.9, 9), clusters(300, 6, 0.9, 10));
        let run = |seed| Probe::default().run(&train, &test, 6, seed);
        assert_eq!(run(1)?, run(1)?);
        assert_ne!(run(1)?.predictions, run(2)?.predictions);
        Ok(())
    }

    /// Long training without decay on rows that are not separable: the gradient of the mean cross entropy vanishes.
    #[test]
    fn training_ends_at_a_stationary_point() -> Result<()> {
        let rows = Rows::new("training", &clusters(120, 3, 0.8, 11), 3)?;
        let rows = Standardization::of(&rows).apply(rows);
        let probe = Probe { epochs: 2000, ..Probe::default() };
        let found = probe.fit(&rows, &[(0.3, 0.0)], 3, 0);
        let mut p = found.logits(&rows);
        found.softmax(&mut p, &rows.labels);
        let gradient = weight_gradient(&p, &rows.x, found.extents(120));
        assert!(gradient.iter().all(|g| g.abs() < 1e-3), "{gradient:?}");
        assert!(found.w.iter().any(|w| w.abs() > 0.3), "nothing was learned: {:?}", found.w);
        Ok(())
    }

    #[test]
    fn wrong_input_is_named() {
        let rows = clusters(10, 2, 0.1, 12);
        let error = |r: Result<EvalResult>| r.unwrap_err().to_string();
        let got = error(Probe::default().result(&rows, &rows, 1, 0));
        assert!(got.contains("a label 1, there are 1 classes"), "{got}");
        let unlabeled = Features { labels: None, ..rows.clone() };
        let got = error(Probe::default().result(&rows, &unlabeled, 2, 0));
        assert!(got.contains("needs a label"), "{got}");
    }
}
