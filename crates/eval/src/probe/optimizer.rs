//! A classifier's step: learning rate, momentum, and LARS's adaptation.

use serde::{Deserialize, Serialize};

use super::Probe;

/// What a step does with the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum, as PyTorch has it.
    Sgd,
    /// LARS (You et al. 2017, arXiv:1708.03888) as SimSiam's linear evaluation has it: the gradient and the decay of weights, and of biases, are multiplied by
    /// `trust |w| / (|g| + decay |w|)` unless either norm is 0, whatever the decay is; then SGD with momentum.
    Lars,
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to 0, step by step.
    Cosine,
    /// The same, epoch by epoch: all steps of an epoch have its first one's rate.
    CosineEpochs,
    /// A tenth after each of the milestones.
    Steps,
    /// It does not.
    Constant,
}

impl Probe {
    /// What the learning rate is multiplied by at step `step` of `steps` of epoch `epoch`, both counted from 0.
    pub(super) fn factor(&self, epoch: usize, step: usize, steps: usize) -> f64 {
        let now = epoch as f64 + step as f64 / steps as f64;
        if epoch < self.warmup_epochs {
            return now / self.warmup_epochs as f64;
        }
        let cosine = |now: f64| {
            let (start, end) = (self.warmup_epochs as f64, self.epochs as f64);
            0.5 * (1.0 + (std::f64::consts::PI * (now - start) / (end - start)).cos())
        };
        match self.schedule {
            Schedule::Cosine => cosine(now),
            Schedule::CosineEpochs => cosine(epoch as f64),
            Schedule::Steps => {
                0.1f64.powi(self.milestones.iter().filter(|milestone| epoch >= **milestone).count() as i32)
            }
            Schedule::Constant => 1.0,
        }
    }

    /// One step of one parameter.
    pub(super) fn update(&self, w: &mut [f32], velocity: &mut [f32], gradient: &[f32], lr: f32, decay: f32) {
        let adaptation = match self.optimizer {
            Optimizer::Sgd => None,
            Optimizer::Lars => self.adaptation(w, gradient, decay),
        };
        // Without adaptation LARS does not decay either, as in the code that SimSiam uses.
        let (scale, decay) = match (adaptation, self.optimizer) {
            (Some(scale), _) => (scale, decay),
            (None, Optimizer::Sgd) => (1.0, decay),
            (None, Optimizer::Lars) => (1.0, 0.0),
        };
        for ((w, v), &g) in w.iter_mut().zip(velocity).zip(gradient) {
            let g = scale * (g + decay * *w);
            *v = self.momentum * *v + g;
            *w -= lr * if self.nesterov { g + self.momentum * *v } else { *v };
        }
    }

    fn adaptation(&self, w: &[f32], gradient: &[f32], decay: f32) -> Option<f32> {
        let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let (of_weight, of_gradient) = (norm(w), norm(gradient));
        let ratio = f64::from(self.trust) * of_weight / (of_gradient + f64::from(decay) * of_weight + 1e-8);
        (of_weight > 0.0 && of_gradient > 0.0).then_some(ratio as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_as_published() {
        let probe = Probe { epochs: 100, schedule: Schedule::Steps, ..Probe::default() };
        let at = |epoch| probe.factor(epoch, 3, 10);
        assert_eq!([at(0), at(59), at(60), at(79)], [1.0, 1.0, 0.1, 0.1]);
        assert!((at(80) - 0.01).abs() < 1e-15);
        let probe = Probe { schedule: Schedule::CosineEpochs, ..probe };
        assert_eq!(probe.factor(50, 0, 10), probe.factor(50, 9, 10));
        assert!((probe.factor(50, 0, 10) - 0.5).abs() < 1e-12);
        let probe = Probe { schedule: Schedule::Cosine, warmup_epochs: 10, ..probe };
        assert_eq!([probe.factor(0, 0, 10), probe.factor(5, 0, 10), probe.factor(10, 0, 10)], [0.0, 0.5, 1.0]);
        assert!((probe.factor(55, 0, 10) - 0.5).abs() < 1e-12 && probe.factor(99, 9, 10) < 1e-5);
    }

    /// No decay is no reason not to adapt: the step has the trust's share of the weight's norm, however long the gradient.
    #[test]
    fn lars_adapts_without_decay() {
        let probe =
            Probe { optimizer: Optimizer::Lars, momentum: 0.0, nesterov: false, trust: 0.01, ..Probe::default() };
        for size in [1e-3, 1.0, 1e3] {
            let mut w = [3.0, 4.0];
            probe.update(&mut w, &mut [0.0; 2], &[size, 0.0], 1.0, 0.0);
            assert!((w[0] - (3.0 - 0.05)).abs() < 1e-5 && w[1] == 4.0, "{size}: {w:?}");
        }
        let mut zero = [0.0];
        probe.update(&mut zero, &mut [0.0], &[0.5], 1.0, 0.1);
        assert_eq!(zero, [-0.5], "what is 0 moves by its gradient");
    }
}
