#![doc = include_str!("../README.md")]
//!
//! # What every rank must do
//!
//! All ranks call the same collectives in the same order, with tensors of the same type and shape. [`threads`] checks this
//! and ends all ranks with a sentence that names the difference; a wrong result is never returned.

mod autograd;
mod local;
pub mod threads;

pub use autograd::{all_gather, all_reduce};
pub use local::Local;

use std::fmt::Debug;

use candle_core::{Result, Tensor};

/// How the ranks of one run speak to each other.
///
/// Results are values: they carry no graph, whatever the argument carries. For gradients through them see
/// [`all_reduce`] and [`all_gather`]. Tensors stay on their device, so an implementation may hand device buffers to a
/// library of its own.
pub trait Collective: Debug + Send + Sync {
    /// Which rank this is, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// The sum of `x` over all ranks, added in the order of the ranks; any shape, the same on every rank.
    ///
    /// # Errors
    /// If the ranks disagree on what is called, or one of them has failed.
    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor>;

    /// All ranks' `x`, `[N, ..]` each, below each other in the order of the ranks: `[size * N, ..]`.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum), or if `x` has no dimension.
    fn all_gather(&self, x: &Tensor) -> Result<Tensor>;

    /// The `x` of rank `root`. The others' `x` gives type and shape only.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum), or if there is no rank `root`.
    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor>;

    /// Returns once every rank has come here.
    ///
    /// # Errors
    /// As [`all_reduce_sum`](Self::all_reduce_sum).
    fn barrier(&self) -> Result<()>;
}
