//! L-BFGS (Nocedal and Wright 2006, algorithm 7.5) that is asked for a point and told what lies there, so that many problems share each pass over the data.
//!
//! The line search finds a step with the weak Wolfe conditions by doubling and bisection (Lewis and Overton 2013, algorithm 2.6), which keeps the curvature of
//! every pair positive. Everything is f64.

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that are kept.
const MEMORY: usize = 10;
/// Share of the decrease that the slope promises which a step must bring.
const DECREASE: f64 = 1e-4;
/// Share of the slope that may be left after a step.
const CURVATURE: f64 = 0.9;
/// Trials along one direction; after them rounding hides any decrease.
const TRIALS: usize = 30;

/// A smooth function's value and gradient at a point.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) value: f64,
    pub(super) gradient: Vec<f64>,
}

/// A step, the change of the gradient over it, and 1 / their product.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    inverse: f64,
}

/// A minimization under way.
pub(super) struct Lbfgs {
    point: Vec<f64>,
    here: Option<Sample>,
    memory: VecDeque<Pair>,
    direction: Vec<f64>,
    slope: f64,
    /// The step under trial, and between which steps the sought one lies.
    step: f64,
    low: f64,
    high: f64,
    trials: usize,
    iterations: usize,
    limits: Limits,
    finished: bool,
}

/// When a minimization ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// No entry of the gradient is larger.
    pub(super) gradient: f64,
    /// Steps taken.
    pub(super) iterations: usize,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

/// What a search over so many numbers holds, in bytes: its pairs, point, direction, two gradients and a trial.
pub(super) fn bytes(size: usize) -> usize {
    size_of::<f64>() * size * (2 * MEMORY + 5)
}

impl Lbfgs {
    pub(super) fn new(start: Vec<f64>, limits: Limits) -> Self {
        Self {
            direction: vec![0.0; start.len()],
            point: start,
            here: None,
            memory: VecDeque::new(),
            slope: 0.0,
            step: 0.0,
            low: 0.0,
            high: f64::INFINITY,
            trials: 0,
            iterations: 0,
            limits,
            finished: false,
        }
    }

    /// The point at which the function is wanted.
    pub(super) fn wanted(&self) -> Vec<f64> {
        self.point.iter().zip(&self.direction).map(|(x, d)| x + self.step * d).collect()
    }

    /// Whether nothing is wanted anymore.
    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    /// Where it ended.
    pub(super) fn into_point(self) -> Vec<f64> {
        self.point
    }

    /// The best point so far.
    #[cfg(test)]
    pub(super) fn point(&self) -> &[f64] {
        &self.point
    }

    /// The value there, or NaN before the first.
    pub(super) fn value(&self) -> f64 {
        self.here.as_ref().map_or(f64::NAN, |here| here.value)
    }

    /// Steps taken so far.
    #[cfg(test)]
    pub(super) fn iterations(&self) -> usize {
        self.iterations
    }

    /// Takes the function at [`wanted`](Self::wanted).
    pub(super) fn tell(&mut self, there: Sample) {
        let Some(here) = &self.here else {
            self.here = Some(there);
            return self.turn();
        };
        self.trials += 1;
        let slope = dot(&there.gradient, &self.direction);
        // A value that is not a number fails both comparisons as a rise would.
        let lower = there.value <= here.value + DECREASE * self.step * self.slope;
        if lower && slope >= CURVATURE * self.slope {
            return self.accept(there);
        }
        if lower {
            self.low = self.step;
        } else {
            self.high = self.step;
        }
        if self.trials == TRIALS {
            // Nothing better can be told apart along this direction: by steepest descent once, then the end.
            if self.memory.is_empty() {
                self.finished = true;
            } else {
                self.memory.clear();
                self.turn();
            }
            return;
        }
        self.step = if self.high.is_finite() { 0.5 * (self.low + self.high) } else { 2.0 * self.low };
    }

    fn accept(&mut self, there: Sample) {
        let step: Vec<f64> = self.direction.iter().map(|d| self.step * d).collect();
        self.point.iter_mut().zip(&step).for_each(|(x, s)| *x += s);
        if let Some(here) = &self.here {
            let change: Vec<f64> = there.gradient.iter().zip(&here.gradient).map(|(a, b)| a - b).collect();
            let product = dot(&step, &change);
            if product > 0.0 {
                if self.memory.len() == MEMORY {
                    self.memory.pop_front();
                }
                self.memory.push_back(Pair { step, change, inverse: 1.0 / product });
            }
        }
        self.here = Some(there);
        self.iterations += 1;
        self.turn();
    }

    /// Chooses the next direction, or ends.
    fn turn(&mut self) {
        let Some(here) = &self.here else { return };
        let steepest = largest(&here.gradient);
        if steepest <= self.limits.gradient || self.iterations >= self.limits.iterations || !steepest.is_finite() {
            self.finished = true;
            return;
        }
        let mut direction: Vec<f64> = here.gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::with_capacity(self.memory.len());
        for pair in self.memory.iter().rev() {
            let share = pair.inverse * dot(&pair.step, &direction);
            direction.iter_mut().zip(&pair.change).for_each(|(d, y)| *d -= share * y);
            shares.push(share);
        }
        let scale = match self.memory.back() {
            Some(pair) => 1.0 / (pair.inverse * dot(&pair.change, &pair.change)),
            None => 1.0 / dot(&here.gradient, &here.gradient).sqrt().max(1.0),
        };
        direction.iter_mut().for_each(|d| *d *= scale);
        for (pair, share) in self.memory.iter().zip(shares.into_iter().rev()) {
            let back = pair.inverse * dot(&pair.change, &direction);
            direction.iter_mut().zip(&pair.step).for_each(|(d, s)| *d += (share - back) * s);
        }
        self.slope = dot(&direction, &here.gradient);
        self.direction = direction;
        (self.step, self.low, self.high, self.trials) = (1.0, 0.0, f64::INFINITY, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimized(start: Vec<f64>, function: impl Fn(&[f64]) -> Sample) -> (Vec<f64>, usize) {
        let mut search = Lbfgs::new(start, Limits { gradient: 1e-9, iterations: 500 });
        let mut calls = 0;
        while !search.finished() {
            search.tell(function(&search.wanted()));
            calls += 1;
            assert!(calls < 2000, "it does not end");
        }
        (search.point().to_vec(), search.iterations())
    }

    /// Rosenbrock's valley, whose lowest point is (1, 1).
    #[test]
    fn the_curved_valley_is_followed() {
        let (point, iterations) = minimized(vec![-1.2, 1.0], |x| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            Sample { value: a * a + 100.0 * b * b, gradient: vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b] }
        });
        assert!((point[0] - 1.0).abs() < 1e-7 && (point[1] - 1.0).abs() < 1e-7, "{point:?}");
        assert!(iterations < 100, "{iterations}");
    }

    /// A quadratic whose axes differ a thousand times in steepness.
    #[test]
    fn a_long_bowl_is_descended() {
        let scales: Vec<f64> = (0..40).map(|i| 10f64.powf(f64::from(i) * 3.0 / 39.0)).collect();
        let (point, _) = minimized(vec![1.0; 40], |x| Sample {
            value: x.iter().zip(&scales).map(|(x, s)| 0.5 * s * (x - 3.0).powi(2)).sum(),
            gradient: x.iter().zip(&scales).map(|(x, s)| s * (x - 3.0)).collect(),
        });
        assert!(point.iter().all(|x| (x - 3.0).abs() < 1e-6), "{point:?}");
    }

    #[test]
    fn what_is_nowhere_lower_ends() {
        let (point, _) = minimized(vec![2.0], |_| Sample { value: 1.0, gradient: vec![0.0] });
        assert_eq!(point, [2.0]);
        // A gradient that lies: every step goes up.
        let (point, _) = minimized(vec![0.0], |x| Sample { value: x[0].abs(), gradient: vec![1.0] });
        assert!(point[0].abs() < 1e-6, "{point:?}");
        let (point, _) = minimized(vec![0.5], |_| Sample { value: f64::NAN, gradient: vec![f64::NAN] });
        assert_eq!(point, [0.5]);
    }
}
