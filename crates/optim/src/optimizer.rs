//! What every optimizer does, and the momentum buffers that it keeps.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use diptych_kernels::optimizer::{Item, first_non_finite as first_bad};
use diptych_nn::{Group, Param, ParamStore, Role};

use crate::groups::{Rules, Treatment};

/// Changes parameters by their gradients.
pub trait Optimizer: Send {
    /// One step at learning rate `lr`; returns the name of the first parameter, in name order, whose gradient holds a NaN
    /// or an infinity, in which case no parameter has been changed.
    ///
    /// On a GPU nothing waits for the answer: SGD and LARS return `None`, change nothing from a bad step on, and [`crate::fault`] gives the name.
    ///
    /// Buffers and frozen parameters are not touched; a parameter without a gradient is passed over, as in PyTorch, and
    /// its momentum stays.
    ///
    /// # Errors
    /// If a gradient or a restored buffer has another shape or type than its parameter; the message names it.
    fn step(&mut self, params: &ParamStore, grads: &GradStore, lr: f64) -> Result<Option<String>>;

    /// The momentum buffers under their parameters' names; those of parameters that never had a gradient are missing.
    fn state(&self) -> &ParamStore;

    /// Takes over the buffers of an earlier [`Optimizer::state`], in place of all there are.
    ///
    /// # Errors
    /// If the device cannot copy.
    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()>;
}

/// The name of the first trainable parameter, in name order, whose gradient holds a NaN or an infinity.
///
/// # Errors
/// If a gradient cannot be read.
pub fn first_non_finite(params: &ParamStore, grads: &GradStore) -> Result<Option<String>> {
    let with_grad = params.trainable().filter_map(|(name, param)| Some((name, grads.get(&param.var)?)));
    let (names, grads): (Vec<_>, Vec<_>) = with_grad.unzip();
    Ok(first_bad(&grads)?.map(|i| names[i].to_string()))
}

/// Makes one call of `steps` over all parameters that `rules` do not pass over, in name order.
pub(crate) fn step_all<S>(
    (params, grads): (&ParamStore, &GradStore),
    rules: &Rules,
    momentum: Option<&mut Buffers>,
    settings: impl Fn(Treatment) -> S,
    steps: impl Fn(&[Item<S>]) -> Result<Option<usize>>,
) -> Result<Option<String>> {
    let trained =
        || params.iter().filter_map(|(name, param)| Some((name, param, rules.of(param)?, grads.get(&param.var)?)));
    let buffers = match momentum {
        None => Vec::new(),
        Some(buffers) => trained().map(|(name, param, ..)| buffers.get(name, param)).collect::<Result<_>>()?,
    };
    let items: Vec<_> = trained()
        .enumerate()
        .map(|(i, (name, param, treatment, gradient))| Item {
            name,
            weight: &param.var,
            gradient,
            buffer: buffers.get(i),
            step: settings(treatment),
        })
        .collect();
    Ok(steps(&items)?.map(|i| items[i].name.to_string()))
}

/// The momentum buffers, made when a parameter first has a gradient.
pub(crate) struct Buffers {
    store: ParamStore,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { store: ParamStore::new(0, &Device::Cpu) }
    }

    /// The buffer of a parameter: zeros if it has none yet.
    pub(crate) fn get(&mut self, name: &str, param: &Param) -> Result<Var> {
        if let Some(buffer) = self.store.get(name) {
            if buffer.var.device().same_device(param.var.device()) {
                return Ok(buffer.var.clone());
            }
            // A restored buffer lies where its file was read.
            let var = Var::from_tensor(&buffer.var.to_device(param.var.device())?)?;
            self.replace(name, &var)?;
            return Ok(var);
        }
        let var = Var::zeros(param.var.shape(), param.var.dtype(), param.var.device())?;
        self.insert(name, var.clone())?;
        Ok(var)
    }

    fn replace(&mut self, name: &str, var: &Var) -> Result<()> {
        let before = std::mem::replace(self, Self::new());
        for (other, buffer) in before.store.iter() {
            self.insert(other, if other == name { var.clone() } else { buffer.var.clone() })?;
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> &ParamStore {
        &self.store
    }

    pub(crate) fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        *self = Self::new();
        for (name, tensor) in tensors {
            // A copy: the buffer is written in place, the given tensor must not be.
            self.insert(name, Var::from_tensor(&tensor.copy()?)?)?;
        }
        Ok(())
    }

    fn insert(&mut self, name: &str, var: Var) -> Result<()> {
        self.store.insert(name, Param { role: Role::Buffer, group: Group::Frozen, var })
    }
}
