//! What a loss returns.

use candle_core::Tensor;

/// A loss and the numbers it is made of.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What to minimize: `[]` f32, carries the gradient.
    pub total: Tensor,
    /// Terms and measures for plots, by name: `[]` f32 each, detached from the graph.
    pub parts: Vec<(&'static str, Tensor)>,
}
