//! The objective of several linear classifiers at once and its gradient, in blocks of rows: products in f32, sums over rows in f64.

use diptych_kernels::exp;
use diptych_kernels::linear::cpu::{Extents, bias_gradient, forward, weight_gradient};
use rayon::prelude::*;

use super::lbfgs::Sample;
use crate::Targets;
use crate::rows::Rows;

/// Rows that go through all classifiers at once, at most.
const BLOCK: usize = 2048;
/// Logits that are held at once, unless 64 rows have more.
const LOGITS: usize = 1 << 21;

/// What classifiers are to say about rows.
#[derive(Clone, Copy)]
pub(super) enum Goal<'a> {
    /// One class each: cross entropy of a softmax over the classes.
    One(&'a [u32]),
    /// Any of the classes: binary cross entropy of each, but for what is left out.
    Several(&'a Targets),
}

impl Goal<'_> {
    /// Turns the logits of row `at` into derivatives of its loss, for one classifier after the other, and adds each one's loss to `losses`.
    fn turn(self, at: usize, row: &mut [f32], classes: usize, losses: &mut [f64]) {
        match self {
            Goal::One(labels) => {
                let label = labels[at] as usize;
                for (p, loss) in row.chunks_exact_mut(classes).zip(losses.iter_mut()) {
                    let top = p.iter().fold(f32::NEG_INFINITY, |most, v| if *v > most { *v } else { most });
                    *loss -= f64::from(p[label] - top);
                    p.iter_mut().for_each(|v| *v -= top);
                }
                row.iter_mut().for_each(|v| *v = exp(*v));
                for (p, loss) in row.chunks_exact_mut(classes).zip(losses) {
                    let sum: f64 = p.iter().map(|v| f64::from(*v)).sum();
                    *loss += sum.ln();
                    let inverse = (1.0 / sum) as f32;
                    p.iter_mut().for_each(|v| *v *= inverse);
                    p[label] -= 1.0;
                }
            }
            Goal::Several(targets) => {
                for (p, loss) in row.chunks_exact_mut(classes).zip(losses) {
                    for (v, target) in p.iter_mut().zip(targets.row(at)) {
                        if *target < 0 {
                            *v = 0.0;
                            continue;
                        }
                        // ln(1 + exp(logit)) - target logit, with no overflow on either side.
                        let (logit, target) = (f64::from(*v), f64::from(*target));
                        let small = (-logit.abs()).exp();
                        *loss += logit.max(0.0) - target * logit + small.ln_1p();
                        let sigmoid = if logit >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
                        *v = (sigmoid - target) as f32;
                    }
                }
            }
        }
    }
}

/// Classifiers to be found: rows, what to say about them, and how many classes.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) rows: &'a Rows,
    pub(super) goal: Goal<'a>,
    pub(super) classes: usize,
}

impl Problem<'_> {
    /// How many numbers a point has: weights `[classes, width]`, then biases `[classes]`.
    pub(super) fn size(&self) -> usize {
        self.classes * (self.rows.width + 1)
    }

    /// The mean objective and its gradient at one point for each penalty.
    pub(super) fn evaluate(&self, points: &[Vec<f64>], penalties: &[f64]) -> Vec<Sample> {
        let (rows, classes) = (self.rows, self.classes);
        let (width, outputs) = (rows.width, points.len() * classes);
        let block = block(outputs);
        let (w, b) = side_by_side(points, classes, width);
        let mut losses = vec![0f64; points.len()];
        let (mut dw, mut db) = (vec![0f64; outputs * width], vec![0f64; outputs]);
        let mut parts = vec![0f64; block * points.len()];
        for (i, x) in rows.x.chunks(block * width).enumerate() {
            let extents = Extents { rows: x.len() / width, inputs: width, outputs };
            let mut p = forward(x, &w, Some(&b), extents);
            let parts = &mut parts[..extents.rows * points.len()];
            parts.fill(0.0);
            let of_rows = p.par_chunks_exact_mut(outputs).zip(parts.par_chunks_exact_mut(points.len()));
            of_rows
                .enumerate()
                .for_each(|(row, (logits, losses))| self.goal.turn(i * block + row, logits, classes, losses));
            for part in parts.chunks_exact(points.len()) {
                losses.iter_mut().zip(part).for_each(|(sum, loss)| *sum += loss);
            }
            let of_weights = weight_gradient(&p, x, extents);
            dw.par_chunks_mut(width).zip(of_weights.par_chunks(width)).for_each(|(sums, part)| {
                sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += f64::from(*v));
            });
            db.iter_mut().zip(bias_gradient(&p, extents)).for_each(|(sum, v)| *sum += f64::from(v));
        }
        let share = 1.0 / rows.len() as f64;
        let sample = |i: usize| {
            let weights = &points[i][..classes * width];
            let penalty = penalties[i] * share;
            let square: f64 = weights.iter().map(|w| w * w).sum();
            let of_weights = dw[i * classes * width..][..classes * width].iter().zip(weights);
            let mut gradient = Vec::with_capacity(points[i].len());
            gradient.extend(of_weights.map(|(g, w)| g * share + penalty * w));
            gradient.extend(db[i * classes..][..classes].iter().map(|g| g * share));
            Sample { value: losses[i] * share + 0.5 * penalty * square, gradient }
        };
        (0..points.len()).into_par_iter().map(sample).collect()
    }
}

/// Rows of a block for so many logits each.
fn block(outputs: usize) -> usize {
    (LOGITS / outputs).clamp(64, BLOCK)
}

/// Weights `[all classes, width]` and biases of several points, each `[classes, width]` and then `[classes]`.
fn side_by_side(points: &[Vec<f64>], classes: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut w, mut b) = (Vec::with_capacity(points.len() * classes * width), Vec::new());
    for point in points {
        let (weights, biases) = point.split_at(classes * width);
        w.extend(weights.iter().map(|value| *value as f32));
        b.extend(biases.iter().map(|value| *value as f32));
    }
    (w, b)
}

/// Fitted classifiers side by side.
pub(super) struct Classifiers {
    w: Vec<f32>,
    b: Vec<f32>,
    classes: usize,
    width: usize,
}

impl Classifiers {
    /// From the points where searches ended.
    pub(super) fn at(points: &[Vec<f64>], classes: usize, width: usize) -> Self {
        let (w, b) = side_by_side(points, classes, width);
        Self { w, b, classes, width }
    }

    /// Shows each row's number and its logits, classifier by classifier.
    pub(super) fn judge(&self, rows: &Rows, mut see: impl FnMut(usize, &[f32])) {
        let outputs = self.b.len();
        let block = block(outputs);
        for (i, x) in rows.x.chunks(block * self.width).enumerate() {
            let extents = Extents { rows: x.len() / self.width, inputs: self.width, outputs };
            let logits = forward(x, &self.w, Some(&self.b), extents);
            logits.chunks_exact(outputs).enumerate().for_each(|(row, logits)| see(i * block + row, logits));
        }
    }

    /// How many classes each knows.
    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.b.len() / self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_one() {
        for i in 0..86_000 {
            let x = i as f32 * -1e-3;
            assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() < 2.5e-7, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    /// Both goals, over more rows than a block has: the gradient is the slope of the value.
    #[test]
    fn gradients_are_slopes() {
        let (n, width, classes) = (2 * BLOCK + 3, 3, 2);
        let x: Vec<f32> = (0..n * width).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let labels: Vec<u32> = (0..n as u32).map(|i| i * 7 % 5 % 2).collect();
        let values = (0..n * classes).map(|i| (i * 13 % 3) as i8 - 1).collect();
        let targets = Targets::new(classes, values).unwrap();
        let rows = Rows { x, labels: labels.clone(), width };
        for goal in [Goal::One(&labels), Goal::Several(&targets)] {
            let problem = Problem { rows: &rows, goal, classes };
            let point: Vec<f64> = (0..problem.size()).map(|i| (i as f64 * 1.7).sin()).collect();
            let at = |point: &Vec<f64>| problem.evaluate(&[point.clone(), point.clone()], &[0.0, 800.0]);
            let here = at(&point);
            assert!(here[1].value > here[0].value);
            for i in 0..problem.size() {
                let moved = |step: f64| {
                    let mut point = point.clone();
                    point[i] += step;
                    at(&point)
                };
                let (up, down) = (moved(1e-2), moved(-1e-2));
                for k in 0..2 {
                    let slope = (up[k].value - down[k].value) / 2e-2;
                    assert!((slope - here[k].gradient[i]).abs() < 2e-4, "{i}: {slope}, {}", here[k].gradient[i]);
                }
            }
        }
    }
}
