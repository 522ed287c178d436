//! Layers: parameters from a scope, computation from `diptych-kernels`.
//!
//! In training mode a layer's parameters take part in the graph; in evaluation mode they are detached, so that nothing
//! is kept for a backward pass.

mod batch_norm;
mod conv2d;
mod linear;

pub use batch_norm::BatchNorm;
pub use conv2d::Conv2d;
pub use linear::Linear;

use candle_core::{Tensor, Var};

/// The value of `var` as `train` wants it: part of the graph, or not.
fn value(var: &Var, train: bool) -> Tensor {
    if train { var.as_tensor().clone() } else { var.as_detached_tensor() }
}
