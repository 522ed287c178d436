//! Layers: parameters from a scope, computation from `diptych-kernels`.
//!
//! A layer maps a [`Value`](crate::Value) to another and leaves its way back on the [`Tape`](crate::Tape), if that one is training.

mod batch_norm;
mod conv2d;
mod linear;
mod plain;

pub use batch_norm::BatchNorm;
pub use conv2d::Conv2d;
pub use linear::{Bias, Linear};
pub use plain::{global_avg_pool, max_pool2d, relu};
