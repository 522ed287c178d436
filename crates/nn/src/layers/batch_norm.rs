//! Batch norm with what usually follows it: a residual sum and a ReLU.

use candle_core::{Result, Tensor, Var, bail};
use diptych_kernels::batch_norm::{self, Forward, Options, update_running};
use diptych_kernels::batch_norm_eval;

use crate::tape::statistics_held;
use crate::{Init, NormGroups, Role, Scope, Tape, Value, segment};

/// Batch norm over all but the last dimension, with PyTorch's names and constants (momentum 0.1, eps 1e-5).
#[derive(Clone, Debug)]
pub struct BatchNorm {
    gamma: Option<Var>,
    beta: Option<Var>,
    running_mean: Var,
    running_var: Var,
    momentum: f64,
    eps: f64,
    groups: NormGroups,
}

impl BatchNorm {
    /// Scale and shift, scale starting at `gamma` (1, or 0 for the last norm of a residual block).
    ///
    /// # Errors
    /// If a name is taken.
    pub fn new(scope: &mut Scope, channels: usize, gamma: f64) -> Result<Self> {
        Self::with_affine(scope, channels, Some(gamma), true)
    }

    /// With or without scale (`gamma` is its initial value) and shift.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn with_affine(scope: &mut Scope, channels: usize, gamma: Option<f64>, shift: bool) -> Result<Self> {
        let gamma = match gamma {
            Some(initial) => Some(scope.get("weight", &[channels], Role::Norm, Init::Constant(initial))?),
            None => None,
        };
        let beta = match shift {
            true => Some(scope.get("bias", &[channels], Role::Norm, Init::Constant(0.0))?),
            false => None,
        };
        let running_mean = scope.get("running_mean", &[channels], Role::Buffer, Init::Constant(0.0))?;
        let running_var = scope.get("running_var", &[channels], Role::Buffer, Init::Constant(1.0))?;
        let groups = scope.norm_groups().clone();
        Ok(Self { gamma, beta, running_mean, running_var, momentum: 0.1, eps: 1e-5, groups })
    }

    /// Normalizes `x` `[.., C]`, as a segment of its own.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        segment(x, train, |tape, x| self.record(tape, x, None, false))
    }

    /// Normalizes `x` `[.., C]` on a tape, adds `residual` (of `x`'s shape), and applies ReLU if `relu`, in one op.
    ///
    /// In training the batch's statistics are used and the running ones move towards them, the variance by its
    /// unbiased estimate, as PyTorch does. `x` is given away: its memory becomes its gradient's.
    ///
    /// # Errors
    /// If the channels differ, the images do not divide into the groups, or a training batch holds a single value per channel.
    pub fn record(&self, tape: &mut Tape, x: Value, residual: Option<&Value>, relu: bool) -> Result<Value> {
        let channels = x.tensor().dims().last().copied().unwrap_or(1).max(1);
        let constant = |var: &Option<Var>, value: f64| match var {
            Some(var) => Ok(var.as_detached_tensor()),
            None => Tensor::full(value as f32, channels, x.tensor().device()),
        };
        let (gamma, beta) = (constant(&self.gamma, 1.0)?, constant(&self.beta, 0.0)?);
        let residual_values = residual.map(Value::tensor);
        if !tape.train() {
            let mean = self.running_mean.as_detached_tensor();
            let var = self.running_var.as_detached_tensor();
            let (gamma, beta) = (Some(&gamma), Some(&beta));
            let y = batch_norm_eval(x.tensor(), gamma, beta, &mean, &var, residual_values, relu, self.eps)?;
            return Ok(tape.push(y, &[], |_| |_, _: &mut _| Ok(())));
        }
        let (groups, ranks) = (self.groups.on_this_rank(), self.groups.sharing());
        let count = x.tensor().elem_count() / channels / groups;
        if count < 2 && ranks.is_none() {
            bail!(
                "batch norm in training needs more than one value per channel, x has shape {:?} and {groups} groups",
                x.tensor().dims()
            )
        }
        let options = Options { eps: self.eps, relu, groups, ranks };
        let Forward { y, saved, mean, var, rows } =
            batch_norm::forward(x.tensor(), &gamma, &beta, residual_values, &options)?;
        if !statistics_held() {
            let (mean, var) = (self.groups.all(&mean)?, self.groups.all(&var)?);
            update_running(&self.running_mean, &self.running_var, &mean, &var, rows, self.momentum)?;
        }
        let params: Vec<&Var> = self.gamma.iter().chain(&self.beta).collect();
        Ok(tape.push(y, &params, |y| {
            let (gamma_var, beta_var, y) = (self.gamma.clone(), self.beta.clone(), y.clone());
            let residual = residual.map(Value::node);
            move |dy, gradients| {
                let node = x.node();
                let back = batch_norm::backward(&saved, x.into_owned()?, y.tensor(), dy, &gamma, residual.is_some())?;
                if let Some(var) = gamma_var {
                    gradients.param(&var, back.dgamma);
                }
                if let Some(var) = beta_var {
                    gradients.param(&var, back.dbeta);
                }
                if let (Some(node), Some(gradient)) = (residual, back.dresidual) {
                    gradients.add(node, gradient)?;
                }
                gradients.add(node, back.dx)
            }
        }))
    }
}
