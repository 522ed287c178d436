//! What every optimizer does, and the momentum buffers that it keeps.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var, bail};
use diptych_kernels::optimizer::is_finite;
use diptych_nn::{Group, Param, ParamStore, Role};

/// Changes parameters by their gradients.
pub trait Optimizer: Send {
    /// One step at learning rate `lr`, parameters in name order.
    ///
    /// Buffers and frozen parameters are not touched; a parameter without a gradient is passed over, as in PyTorch, and
    /// its momentum stays.
    ///
    /// # Errors
    /// If a gradient or a restored buffer has another shape or type than its parameter; the message names it.
    fn step(&mut self, params: &ParamStore, grads: &GradStore, lr: f64) -> Result<()>;

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
    for (name, param) in params.trainable() {
        if let Some(grad) = grads.get(&param.var)
            && !is_finite(grad)?
        {
            return Ok(Some(name.to_string()));
        }
    }
    Ok(None)
}

/// The momentum buffers, made when a parameter first has a gradient.
pub(crate) struct Buffers {
    store: ParamStore,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { store: ParamStore::new(0, &candle_core::Device::Cpu) }
    }

    /// The buffer of a parameter: zeros if it has none yet.
    pub(crate) fn get(&mut self, name: &str, param: &Param) -> Result<Var> {
        if let Some(buffer) = self.store.get(name) {
            return Ok(buffer.var.clone());
        }
        let var = Var::zeros(param.var.shape(), param.var.dtype(), param.var.device())?;
        self.insert(name, var.clone())?;
        Ok(var)
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

/// Names the parameter in an error about its step.
pub(crate) fn named<T>(name: &str, result: Result<T>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => bail!("{name}: {error}"),
    }
}
