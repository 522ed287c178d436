//! SGD with momentum, as `torch.optim.SGD` computes it.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use diptych_kernels::optimizer::{SgdStep, sgd_steps};
use diptych_nn::ParamStore;

use crate::groups::{Rules, Treatment};
use crate::optimizer::{Buffers, Optimizer, step_all};

/// Stochastic gradient descent.
///
/// ```text
/// g += wd w;  b = mu b + g;  w -= lr b     or, with nesterov,  w -= lr (g + mu b)
/// ```
pub struct Sgd {
    momentum: f64,
    weight_decay: f64,
    nesterov: bool,
    rules: Rules,
    buffers: Buffers,
}

impl Sgd {
    /// SGD with these settings; `rules` say which parameters decay and at which share of the learning rate.
    pub fn new(momentum: f64, weight_decay: f64, nesterov: bool, rules: Rules) -> Self {
        Self { momentum, weight_decay, nesterov, rules, buffers: Buffers::new() }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &ParamStore, grads: &GradStore, lr: f64) -> Result<Option<String>> {
        let settings = |treatment: Treatment| SgdStep {
            lr: treatment.lr(lr),
            momentum: self.momentum,
            weight_decay: if treatment.decays { self.weight_decay } else { 0.0 },
            nesterov: self.nesterov,
        };
        let buffers = (self.momentum != 0.0).then_some(&mut self.buffers);
        step_all((params, grads), &self.rules, buffers, settings, sgd_steps)
    }

    fn state(&self) -> &ParamStore {
        self.buffers.store()
    }

    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.buffers.restore(tensors)
    }
}
