//! A chain of layers as one node of Candle's graph, with a backward pass of its own.
//!
//! Candle keeps every tensor of a graph until its backward pass returns, and fills each gradient with zeros before it adds to it. A
//! network of a hundred layers pays for both. A [`segment`] runs its layers outside the graph, remembers what their backward passes need on
//! a [`Tape`], and shows Candle a single node. Going backward, the tape frees each activation as soon as it has been used, adds the
//! gradients of a residual sum inside the convolution that makes the second one, and lets layers write over memory nobody needs anymore.

mod backward;
mod modes;
mod segment;
#[cfg(test)]
mod tests;

pub use backward::backward;
pub(crate) use modes::statistics_held;
pub use modes::{hold_statistics, no_grad};
pub use segment::segment;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Result, Tensor, TensorId, Var};

thread_local! {
    /// Bytes that this thread's tapes hold on to, since [`activation_bytes`] began to count.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// What `forward` gives, and the bytes of the activations that its segments on this thread keep for a backward pass.
pub fn activation_bytes<R>(forward: impl FnOnce() -> R) -> (R, usize) {
    let outer = BYTES.replace(0);
    let result = forward();
    (result, BYTES.replace(outer))
}

/// The result of a layer on a [`Tape`].
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    node: Option<usize>,
    /// Shared by all clones of a value that a layer made; `None` for one that came from outside.
    owners: Option<Arc<()>>,
}

impl Value {
    /// The numbers, outside of any graph.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Its place on the tape; `None` where no gradient is asked for.
    pub(crate) fn node(&self) -> Option<usize> {
        self.node
    }

    /// The numbers in memory that may be written over: their own if this is the last clone of the value, else a copy.
    pub(crate) fn into_owned(self) -> Result<Tensor> {
        match self.owners {
            Some(owners) if Arc::strong_count(&owners) == 1 => Ok(self.tensor),
            _ => self.tensor.copy(),
        }
    }
}

/// A layer's backward pass: takes the gradient of its output, leaves those of its inputs and parameters.
type Backward = Box<dyn FnOnce(Tensor, &mut Gradients) -> Result<()> + Send>;

struct Step {
    output: usize,
    backward: Backward,
}

/// What layers leave behind on their way forward, for the way back.
pub struct Tape {
    train: bool,
    /// Whether there will be a way back.
    graph: bool,
    nodes: usize,
    steps: Vec<Step>,
    params: Vec<Var>,
}

impl Tape {
    fn new(train: bool) -> Self {
        Self { train, graph: train && modes::grad(), nodes: 0, steps: Vec::new(), params: Vec::new() }
    }

    /// Whether layers are training: batch statistics, and a way back unless [`no_grad`] says otherwise.
    pub fn train(&self) -> bool {
        self.train
    }

    fn input(&mut self, tensor: Tensor, tracked: bool) -> Value {
        let node = (self.graph && tracked).then(|| self.node());
        Value { tensor, node, owners: None }
    }

    fn node(&mut self) -> usize {
        self.nodes += 1;
        self.nodes - 1
    }

    /// A layer's output, in memory of its own, with its backward pass, made only if there will be one.
    ///
    /// `params` are those that `backward` gives gradients to. What it needs of other values it keeps as a [`Value`], so that
    /// everybody can tell whether a value's memory is still in use.
    pub(crate) fn push<F>(&mut self, tensor: Tensor, params: &[&Var], backward: impl FnOnce(&Value) -> F) -> Value
    where
        F: FnOnce(Tensor, &mut Gradients) -> Result<()> + Send + 'static,
    {
        if !self.graph {
            return Value { tensor, node: None, owners: None };
        }
        self.params.extend(params.iter().map(|&var| var.clone()));
        let output = self.node();
        BYTES.set(BYTES.get() + tensor.elem_count() * tensor.dtype().size_in_bytes());
        let value = Value { tensor, node: Some(output), owners: Some(Arc::new(())) };
        self.steps.push(Step { output, backward: Box::new(backward(&value)) });
        value
    }
}

/// Gradients on their way back: of values, until their layer takes them, and of parameters.
#[derive(Default)]
pub(crate) struct Gradients {
    values: HashMap<usize, Tensor>,
    params: Vec<(Var, Tensor)>,
}

impl Gradients {
    /// Adds to a value's gradient; nothing where none is asked for.
    pub(crate) fn add(&mut self, node: Option<usize>, gradient: Tensor) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let sum = match self.values.remove(&node) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.values.insert(node, sum);
        Ok(())
    }

    /// What a value's gradient is so far, for a layer that adds its own share while computing it and [`Self::add`]s the sum.
    pub(crate) fn take(&mut self, node: usize) -> Option<Tensor> {
        self.values.remove(&node)
    }

    /// A parameter's gradient.
    pub(crate) fn param(&mut self, var: &Var, gradient: Tensor) {
        self.params.push((var.clone(), gradient));
    }

    /// Parameters' gradients, summed in the order in which they came where a parameter was used more than once.
    fn into_params(self) -> Result<HashMap<TensorId, Tensor>> {
        let mut sums: HashMap<TensorId, Tensor> = HashMap::new();
        for (var, gradient) in self.params {
            let sum = match sums.remove(&var.id()) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            sums.insert(var.id(), sum);
        }
        Ok(sums)
    }
}
