//! What a backbone is to methods, evaluation and export.

use candle_core::{Device, Result, Tensor};

/// A network that turns images into representations `h`.
pub trait Backbone: Send {
    /// `x` `[N, H, W, C]` to `h` `[N, F]`.
    ///
    /// `train` chooses batch statistics (and moves the running ones) against running statistics; without it no graph is
    /// built, so nothing is kept for a backward pass.
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor>;

    /// The feature maps C2 to C5, `[N, H', W', C']` each, for detection and probes.
    fn stages(&self, x: &Tensor, train: bool) -> Result<Vec<Tensor>>;

    /// F, the width of a representation.
    fn out_dim(&self) -> usize;

    /// Where its parameters lie, and images have to.
    fn device(&self) -> Device {
        Device::Cpu
    }
}
