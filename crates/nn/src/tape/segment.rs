//! The node that Candle sees.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, TensorId, Var, bail};

use super::backward::deliver;
use super::{Gradients, Step, Tape, Value};

/// Runs `layers` on `x` as one node of the graph.
///
/// With `train`, gradients reach `x`, if anything leads to it, and every parameter that the layers name. The node can be walked back once: its
/// activations are freed on the way. Without, nothing is remembered and the result is no part of a graph.
///
/// # Errors
/// If a layer fails.
pub fn segment(x: &Tensor, train: bool, layers: impl FnOnce(&mut Tape, Value) -> Result<Value>) -> Result<Tensor> {
    let mut tape = Tape::new(train);
    let input = tape.input(x.detach(), x.track_op());
    let first = input.node;
    let Value { tensor: output, node, .. } = layers(&mut tape, input)?;
    let Some(node) = node else { return Ok(output) };
    let state = Arc::new(State {
        steps: Mutex::new(Some(tape.steps)),
        params: Mutex::new(HashMap::new()),
        input: first,
        output: node,
    });
    let token = tie(&tape.params, x.device(), &state)?;
    // The node copies its output's whole storage, so there must be nothing else in it.
    let output = if output.layout().start_offset() == 0 { output.contiguous()? } else { output.copy()? };
    output.apply_op3(x, &token, Node(state))
}

/// What the nodes of one segment share.
struct State {
    /// The way back, until it has been walked.
    steps: Mutex<Option<Vec<Step>>>,
    /// Gradients that wait for their [`Tie`].
    params: Mutex<HashMap<TensorId, Tensor>>,
    input: Option<usize>,
    output: usize,
}

impl State {
    /// Walks back; returns the input's gradient.
    fn walk(&self, dy: Tensor) -> Result<Option<Tensor>> {
        let Some(mut steps) = self.steps.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!(
                "a segment's backward pass ran twice; the first one freed its activations, so run the forward pass again"
            )
        };
        let mut gradients = Gradients::default();
        gradients.add(Some(self.output), dy)?;
        while let Some(step) = steps.pop() {
            // A value that nothing used has no gradient, and its layer nothing to do.
            if let Some(dy) = gradients.take(step.output) {
                (step.backward)(dy, &mut gradients)?;
            }
        }
        let dx = self.input.and_then(|node| gradients.take(node));
        if let Some(waiting) = deliver(gradients.into_params()?)? {
            *self.params.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
        }
        Ok(dx)
    }

    fn take(&self, param: &Tensor) -> Option<Tensor> {
        self.params.lock().unwrap_or_else(PoisonError::into_inner).remove(&param.id())
    }
}

/// The segment: arguments are its output, as the layers computed it, `x`, and a token that stands for the parameters.
struct Node(Arc<State>);

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        "segment"
    }

    fn cpu_fwd(
        &self,
        output: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((output.try_clone(layout)?, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        output: &CudaStorage,
        layout: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((output.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(
        &self,
        _output: &Tensor,
        x: &Tensor,
        token: &Tensor,
        _result: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dx = match self.0.walk(dy.contiguous()?)? {
            None if x.track_op() => Some(x.zeros_like()?),
            dx => dx,
        };
        Ok((None, dx, Some(token.zeros_like()?)))
    }
}

/// A scalar that depends on all `params`, two at a time: where the graph of Candle meets them.
fn tie(params: &[Var], device: &Device, state: &Arc<State>) -> Result<Tensor> {
    let mut token = Tensor::zeros((), DType::F32, device)?;
    for pair in params.chunks(2) {
        // A single one left over stands twice and is asked for its gradient once.
        let second = pair.get(1).unwrap_or(&pair[0]);
        token = token.apply_op3(pair[0].as_tensor(), second.as_tensor(), Tie(state.clone()))?;
    }
    Ok(token)
}

/// Brings the gradients of two parameters from the segment, where Candle's own backward pass runs alone.
struct Tie(Arc<State>);

impl CustomOp3 for Tie {
    fn name(&self) -> &'static str {
        "segment-parameters"
    }

    fn cpu_fwd(
        &self,
        token: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((token.try_clone(layout)?, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        token: &CudaStorage,
        layout: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((token.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(
        &self,
        token: &Tensor,
        first: &Tensor,
        second: &Tensor,
        _result: &Tensor,
        _dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((Some(token.zeros_like()?), self.0.take(first), self.0.take(second)))
    }
}
