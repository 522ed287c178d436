//! Batch norm over the last dimension, fused with a residual add and ReLU: one node of the graph instead of a dozen.
//!
//! `y = relu?(gamma (x - mean) / sqrt(var + eps) + beta + residual)`, Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithm 1.
//! ReLU's derivative at 0 is 0, so with a gamma of zeros and no residual nothing flows, as in PyTorch.
//!
//! [`batch_norm_train`] and [`batch_norm_eval`] are nodes of Candle's graph; [`forward`] and [`backward`] are the same passes for an engine that
//! owns its buffers. x, y, the residual and their gradients are f32 or bf16; gamma, beta, their gradients and all statistics are f32
//! (f64 while they are summed).

use std::fmt;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

mod autograd;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod cut;
mod explicit;
mod inputs;
mod ranks;
#[cfg(test)]
mod reference;
mod running;
mod saved;
mod statistics;
#[cfg(test)]
mod tests;

pub use autograd::{BatchNorm, batch_norm_eval, batch_norm_train, batch_norm_train_with};
pub use cpu::Sums;
pub use explicit::{Backward, Forward, backward, backward_apply, backward_sums, forward, forward_with, moments};
pub use ranks::Ranks;
pub use running::update_running;
pub use saved::Saved;
pub use statistics::Moments;

const NAME: &str = "batch_norm";

/// What a batch norm does beside normalizing.
#[derive(Clone)]
pub struct Options {
    /// Added to the variance.
    pub eps: f64,
    /// A ReLU at the end, after the residual.
    pub relu: bool,
    /// x `[N, .., C]` is cut into this many consecutive parts of N / groups images, each with statistics of its own (the split batch norm of
    /// MoCo on one device).
    pub groups: usize,
    /// The ranks whose rows count as one batch, group by group; None: this one alone.
    pub ranks: Option<Arc<dyn Ranks>>,
}

impl Default for Options {
    /// eps 1e-5, no ReLU, one group, one rank.
    fn default() -> Self {
        Self { eps: 1e-5, relu: false, groups: 1, ranks: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { eps, relu, groups, ranks } = self;
        write!(f, "Options {{ eps: {eps}, relu: {relu}, groups: {groups}, ranks: {} }}", ranks.is_some())
    }
}

/// The channels of x, when x, the residual and the groups fit each other.
fn check(x: &Tensor, residual: Option<&Tensor>, groups: usize) -> Result<usize> {
    let &[rows, .., channels] = x.dims() else {
        bail!("{NAME}: x has shape {:?}; expected [N, .., C] of rank 2 or more", x.dims())
    };
    if x.elem_count() == 0 {
        bail!("{NAME}: x has shape {:?}; expected [N, .., C] with at least one row", x.dims())
    }
    if let Some(r) = residual
        && (r.dims() != x.dims() || r.dtype() != x.dtype())
    {
        bail!(
            "{NAME}: the residual has shape {:?} and type {:?}, x {:?} and {:?}",
            r.dims(),
            r.dtype(),
            x.dims(),
            x.dtype()
        )
    }
    if groups == 0 || !rows.is_multiple_of(groups) {
        bail!(
            "{NAME}: x of shape {:?} does not divide into {groups} groups: {rows} images are no multiple of that",
            x.dims()
        )
    }
    Ok(channels)
}

fn per_channel(name: &str, t: &Tensor, channels: usize) -> Result<()> {
    if t.dims() != [channels] {
        bail!("{NAME}: {name} has shape {:?}; x has {channels} channels", t.dims())
    }
    Ok(())
}
