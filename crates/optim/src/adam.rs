//! Adam: A Method for Stochastic Optimization (Kingma and Ba, ICLR 2015, arXiv:1412.6980), as `torch.optim.Adam` computes it.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use diptych_nn::{Param, ParamStore};

use crate::groups::Rules;
use crate::optimizer::{Buffers, Optimizer, first_non_finite};

/// What is added to the root of the second moment.
const EPS: f64 = 1e-8;

/// Adam. With g the gradient plus `weight_decay w` (where the rules let w decay):
///
/// ```text
/// m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
/// w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + 1e-8)        (algorithm 1)
/// ```
///
/// t counts the steps of each parameter, from 1.
pub struct Adam {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    rules: Rules,
    buffers: Buffers,
}

impl Adam {
    /// Adam with these settings; `rules` say which parameters decay and at which share of the learning rate.
    pub fn new(beta1: f64, beta2: f64, weight_decay: f64, rules: Rules) -> Self {
        Self { beta1, beta2, weight_decay, rules, buffers: Buffers::new() }
    }

    /// The moments of a parameter, and how many steps it has taken.
    fn moments(&mut self, name: &str, param: &Param) -> Result<[candle_core::Var; 3]> {
        let mut steps = param.clone();
        // On the host wherever the parameters are: every step reads it.
        steps.var = candle_core::Var::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu)?;
        Ok([
            self.buffers.get(&format!("{name}.first"), param)?,
            self.buffers.get(&format!("{name}.second"), param)?,
            self.buffers.get(&format!("{name}.steps"), &steps)?,
        ])
    }
}

impl Optimizer for Adam {
    fn step(&mut self, params: &ParamStore, grads: &GradStore, lr: f64) -> Result<Option<String>> {
        if let Some(name) = first_non_finite(params, grads)? {
            return Ok(Some(name));
        }
        for (name, param) in params.iter() {
            let (Some(treatment), Some(gradient)) = (self.rules.of(param), grads.get(&param.var)) else { continue };
            let (beta1, beta2) = (self.beta1, self.beta2);
            let [first, second, steps] = self.moments(name, param)?;
            let w = param.var.as_detached_tensor();
            let decay = if treatment.decays { self.weight_decay } else { 0.0 };
            let g = if decay > 0.0 { (gradient + (&w * decay)?)? } else { gradient.clone() };
            let m = ((first.as_detached_tensor() * beta1)? + (&g * (1.0 - beta1))?)?;
            let v = ((second.as_detached_tensor() * beta2)? + (g.sqr()? * (1.0 - beta2))?)?;
            let t = f64::from(steps.to_vec1::<f32>()?[0]) + 1.0;
            let denominator = ((&v / (1.0 - beta2.powf(t)))?.sqrt()? + EPS)?;
            let step = ((&m / denominator)? * (treatment.lr(lr) / (1.0 - beta1.powf(t))))?;
            param.var.set(&(w - step)?)?;
            first.set(&m)?;
            second.set(&v)?;
            steps.set(&Tensor::new(&[t as f32], steps.device())?)?;
        }
        Ok(None)
    }

    fn state(&self) -> &ParamStore {
        self.buffers.store()
    }

    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.buffers.restore(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use diptych_nn::{Group, Role};

    /// By hand: in its first step Adam moves by lr g / (|g| + eps), whatever g's size; a decayed weight has g + wd w.
    #[test]
    fn the_first_step_is_the_sign() -> Result<()> {
        let mut params = ParamStore::new(0, &Device::Cpu);
        let var = Var::from_tensor(&Tensor::new(&[1f32, -2.0, 0.5], &Device::Cpu)?)?;
        params.insert("w", Param { role: Role::Weight, group: Group::Trunk, var: var.clone() })?;
        let loss = (var.as_tensor() * Tensor::new(&[3f32, -0.01, 0.2], &Device::Cpu)?)?.sum_all()?;
        let grads = loss.backward()?;
        let mut adam = Adam::new(0.9, 0.999, 0.0, Rules::default());
        assert_eq!(adam.step(&params, &grads, 0.1)?, None);
        let moved = var.to_vec1::<f32>()?;
        assert!([0.9, -1.9, 0.4].iter().zip(&moved).all(|(a, b): (&f32, &f32)| (a - b).abs() < 1e-5), "{moved:?}");
        Ok(())
    }

    /// Against a plain f64 loop over several steps with decay, through a restore in the middle.
    #[test]
    fn steps_equal_a_plain_loop_and_survive_a_restore() -> Result<()> {
        let mut params = ParamStore::new(0, &Device::Cpu);
        let var = Var::from_tensor(&Tensor::new(&[0.3f32, -1.2], &Device::Cpu)?)?;
        params.insert("w", Param { role: Role::Weight, group: Group::Trunk, var: var.clone() })?;
        let mut adam = Adam::new(0.9, 0.99, 0.1, Rules::default());
        let mut plain = [(0.3f64, 0.0, 0.0), (-1.2, 0.0, 0.0)];
        for t in 1..=6 {
            // f = w^2 / 2, so g = w.
            let grads = (var.as_tensor().sqr()? * 0.5)?.sum_all()?.backward()?;
            if t == 4 {
                let saved: HashMap<String, Tensor> =
                    adam.state().tensors(diptych_nn::Layout::Ohwi)?.into_iter().collect();
                adam = Adam::new(0.9, 0.99, 0.1, Rules::default());
                adam.restore(&saved)?;
            }
            adam.step(&params, &grads, 0.05)?;
            for (w, m, v) in &mut plain {
                let g = *w + 0.1 * *w;
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.99 * *v + 0.01 * g * g;
                let (first, second) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.99f64.powi(t)));
                *w -= 0.05 * first / (second.sqrt() + 1e-8);
            }
        }
        let got = var.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        assert!(got.iter().zip(&plain).all(|(a, (b, ..))| (a - b).abs() < 1e-6), "{got:?} {plain:?}");
        Ok(())
    }
}
