//! SGD with momentum, as `torch.optim.SGD` computes it.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use diptych_kernels::optimizer::{SgdStep, sgd_step};
use diptych_nn::ParamStore;

use crate::groups::Rules;
use crate::optimizer::{Buffers, Optimizer, named};

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
    fn step(&mut self, params: &ParamStore, grads: &GradStore, lr: f64) -> Result<()> {
        for (name, param) in params.iter() {
            let (Some(treatment), Some(grad)) = (self.rules.of(param), grads.get(&param.var)) else { continue };
            let step = SgdStep {
                lr: lr * treatment.lr_scale,
                momentum: self.momentum,
                weight_decay: if treatment.decays { self.weight_decay } else { 0.0 },
                nesterov: self.nesterov,
            };
            let buffer = if self.momentum == 0.0 { None } else { Some(self.buffers.get(name, param)?) };
            named(name, sgd_step(&param.var, grad, buffer.as_ref(), &step))?;
        }
        Ok(())
    }

    fn state(&self) -> &ParamStore {
        self.buffers.store()
    }

    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.buffers.restore(tensors)
    }
}
