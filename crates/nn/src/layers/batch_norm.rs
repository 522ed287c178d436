//! Batch norm with what usually follows it: a residual sum and a ReLU.

use candle_core::{Result, Tensor, Var, bail};
use diptych_kernels::batch_norm::{Options, batch_norm_train_with, update_running};

use super::value;
use crate::{Init, Role, Scope};

/// Batch norm over all but the last dimension, with PyTorch's names and constants (momentum 0.1, eps 1e-5).
#[derive(Clone, Debug)]
pub struct BatchNorm {
    gamma: Option<Var>,
    beta: Option<Var>,
    running_mean: Var,
    running_var: Var,
    momentum: f64,
    eps: f64,
    groups: usize,
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
        Ok(Self { gamma, beta, running_mean, running_var, momentum: 0.1, eps: 1e-5, groups: 1 })
    }

    /// With statistics for each of `groups` consecutive parts of the batch (the split batch norm of MoCo).
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Normalizes `x` `[.., C]`.
    ///
    /// # Errors
    /// If the channels differ, the images do not divide into the groups, or a training batch holds a single value per channel.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_with(x, None, false, train)
    }

    /// Normalizes, adds `residual` (of `x`'s shape), and applies ReLU if `relu`, in one op.
    ///
    /// In training the batch's statistics are used and the running ones move towards them, the variance by its
    /// unbiased estimate, as PyTorch does.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool, train: bool) -> Result<Tensor> {
        let gamma = self.gamma.as_ref().map(|v| value(v, train));
        let beta = self.beta.as_ref().map(|v| value(v, train));
        let (gamma, beta) = (gamma.as_ref(), beta.as_ref());
        if !train {
            let mean = self.running_mean.as_detached_tensor();
            let var = self.running_var.as_detached_tensor();
            return diptych_kernels::batch_norm_eval(x, gamma, beta, &mean, &var, residual, relu, self.eps);
        }
        let count = x.elem_count() / x.dims().last().copied().unwrap_or(1).max(1) / self.groups.max(1);
        if count < 2 {
            bail!(
                "batch norm in training needs more than one value per channel, x has shape {:?} and {} groups",
                x.dims(),
                self.groups
            )
        }
        let options = Options { eps: self.eps, relu, groups: self.groups, ..Options::default() };
        let out = batch_norm_train_with(x, gamma, beta, residual, &options)?;
        update_running(&self.running_mean, &self.running_var, &out.mean, &out.var, out.rows, self.momentum)?;
        Ok(out.y)
    }
}
