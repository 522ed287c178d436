//! Several linear classifiers side by side, trained and judged as one matrix.

use diptych_kernels::linear::cpu::{Extents, bias_gradient, forward, weight_gradient};
use diptych_random::Stream;
use rayon::prelude::*;

use super::{Init, Probe};
use crate::rows::{Rows, largest};

/// Rows that are judged at once.
const BLOCK: usize = 1024;

/// Classifier g has the outputs `g classes .. (g + 1) classes`.
pub(super) struct Classifiers {
    /// `[outputs, width]`.
    pub(super) w: Vec<f32>,
    /// `[outputs]`.
    pub(super) b: Vec<f32>,
    /// Momentum of each.
    dw: Vec<f32>,
    db: Vec<f32>,
    classes: usize,
    width: usize,
}

impl Classifiers {
    /// So many, all alike at first.
    pub(super) fn new(count: usize, classes: usize, width: usize, init: Init, seed: u64) -> Self {
        let (weights, outputs) = (classes * width, count * classes);
        let one: Vec<f32> = match init {
            Init::Zeros => vec![0.0; weights],
            Init::Normal => {
                let mut stream = Stream::named(seed, "probe.init");
                (0..weights).map(|_| (0.01 * stream.normal()) as f32).collect()
            }
        };
        let (dw, db) = (vec![0.0; outputs * width], vec![0.0; outputs]);
        Self { w: one.repeat(count), b: vec![0.0; outputs], dw, db, classes, width }
    }

    /// One step of each on a batch, with its own learning rate and weight decay.
    pub(super) fn step(&mut self, probe: &Probe, rows: &Rows, grid: &[(f64, f64)], factor: f64) {
        let mut p = self.logits(&rows.x);
        self.softmax(&mut p, &rows.labels);
        let extents = self.extents(rows.len());
        let (gw, gb) = (weight_gradient(&p, &rows.x, extents), bias_gradient(&p, extents));
        let share = self.classes * self.width;
        let weights = self.w.par_chunks_mut(share).zip(self.dw.par_chunks_mut(share)).zip(gw.par_chunks(share));
        weights.zip(grid).for_each(|(((w, dw), gw), &(lr, decay))| {
            probe.update(w, dw, gw, (lr * factor) as f32, decay as f32);
        });
        let classes = self.classes;
        let biases = self.b.chunks_mut(classes).zip(self.db.chunks_mut(classes)).zip(gb.chunks(classes));
        biases.zip(grid).for_each(|(((b, db), gb), &(lr, decay))| {
            let decay = if probe.decay_biases { decay } else { 0.0 };
            probe.update(b, db, gb, (lr * factor) as f32, decay as f32);
        });
    }

    fn extents(&self, rows: usize) -> Extents {
        Extents { rows, inputs: self.width, outputs: self.b.len() }
    }

    /// `[rows, outputs]`.
    fn logits(&self, x: &[f32]) -> Vec<f32> {
        forward(x, &self.w, Some(&self.b), self.extents(x.len() / self.width))
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

    /// Shows the logits of each row, a block at a time.
    fn each(&self, rows: &Rows, mut see: impl FnMut(usize, &[f32])) {
        for (block, x) in rows.x.chunks(BLOCK * self.width).enumerate() {
            let logits = self.logits(x);
            logits.chunks_exact(self.b.len()).enumerate().for_each(|(i, row)| see(block * BLOCK + i, row));
        }
    }

    /// Accuracy and mean cross entropy of each classifier.
    pub(super) fn judge(&self, rows: &Rows) -> Vec<(f64, f64)> {
        let mut scores = vec![(0.0, 0.0); self.b.len() / self.classes];
        let n = rows.len() as f64;
        self.each(rows, |i, row| {
            let label = rows.labels[i];
            for (score, logits) in scores.iter_mut().zip(row.chunks_exact(self.classes)) {
                let top = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                let sum: f64 = logits.iter().map(|&v| f64::from(v - top).exp()).sum();
                score.0 += f64::from(u8::from(largest(logits) == label));
                score.1 += sum.ln() + f64::from(top - logits[label as usize]);
            }
        });
        scores.iter().map(|(right, loss)| (right / n, loss / n)).collect()
    }

    /// The first classifier's classes, and for how many rows the right one is among its first five (of equal logits the lower class comes first).
    pub(super) fn predict(&self, rows: &Rows) -> (Vec<u32>, usize) {
        let (mut predictions, mut among) = (Vec::with_capacity(rows.len()), 0);
        self.each(rows, |i, row| {
            let (row, label) = (&row[..self.classes], rows.labels[i] as usize);
            predictions.push(largest(row));
            let ahead = |(class, v): &(usize, &f32)| **v > row[label] || (**v == row[label] && *class < label);
            among += usize::from(!row[label].is_nan() && row.iter().enumerate().filter(ahead).count() < 5);
        });
        (predictions, among)
    }
}
