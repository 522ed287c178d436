//! LARS: Large Batch Training of Convolutional Networks (You et al., arXiv:1708.03888), as the papers' codes compute it.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use diptych_kernels::optimizer::{LarsStep, lars_steps};
use diptych_nn::ParamStore;

use crate::groups::{Rules, Treatment};
use crate::optimizer::{Buffers, Optimizer, step_all};
use crate::variant::Variant;

/// Layer-wise adaptive rate scaling, by default as in the official Barlow Twins code.
///
/// ```text
/// dp = g + wd w;  q = eta |w| / |dp|, 1 where a norm is 0;  dp *= q;  b = mu b + dp;  w -= lr b
/// ```
///
/// Parameters that do not decay by [`Rules`] (biases and norms, by their role) are not adapted either:
/// `b = mu b + g; w -= lr b`. See [`Variant`] for the other published forms.
pub struct Lars {
    momentum: f64,
    weight_decay: f64,
    eta: f64,
    variant: Variant,
    rules: Rules,
    buffers: Buffers,
}

impl Lars {
    /// LARS with these settings; `rules` say which parameters decay and adapt, and at which share of the learning rate.
    pub fn new(momentum: f64, weight_decay: f64, eta: f64, variant: Variant, rules: Rules) -> Self {
        Self { momentum, weight_decay, eta, variant, rules, buffers: Buffers::new() }
    }
}

impl Optimizer for Lars {
    fn step(&mut self, params: &ParamStore, grads: &GradStore, lr: f64) -> Result<Option<String>> {
        let settings = |treatment: Treatment| LarsStep {
            lr: treatment.lr(lr),
            momentum: self.momentum,
            weight_decay: if treatment.decays { self.weight_decay } else { 0.0 },
            eta: treatment.decays.then_some(self.eta),
            ratio: self.variant.ratio(),
            clip: self.variant.clip,
            lr_in_momentum: self.variant.lr_in_momentum,
        };
        let buffers = (self.momentum != 0.0).then_some(&mut self.buffers);
        step_all((params, grads), &self.rules, buffers, settings, lars_steps)
    }

    fn state(&self) -> &ParamStore {
        self.buffers.store()
    }

    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.buffers.restore(tensors)
    }
}
