//! A linear layer, `y = x W^T + b`.

use candle_core::{Result, Tensor, Var};

use super::value;
use crate::{Init, Role, Scope};

/// `[N, I]` to `[N, O]`; the weight is `[O, I]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Var,
    bias: Option<Var>,
}

impl Linear {
    /// Asks `scope` for a weight and, if wanted, a bias, both drawn as PyTorch does by default.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        let weight = scope.get("weight", &[outputs, inputs], Role::Weight, Init::UniformFanIn)?;
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        let bias = if bias { Some(scope.get("bias", &[outputs], Role::Bias, Init::Uniform(bound))?) } else { None };
        Ok(Self { weight, bias })
    }

    /// Maps `x` `[N, I]`.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| value(bias, train));
        diptych_kernels::linear(x, &value(&self.weight, train), bias.as_ref())
    }
}
