//! Convolution on slices, channels last, without an image-to-column copy.
//!
//! Forward pass and input gradient are one routine, `direct::gather`: an output pixel is a sum over taps of a row of `src`
//! (the input, or the output's gradient) times a matrix of weights. A `Phase` says which source row belongs to which
//! output pixel and tap; a stride s splits the input gradient into s x s phases, each with its own taps, so nothing
//! is multiplied by the zeros that a strided convolution leaves between its taps.
//! The weight gradient, `weight_grad`, adds the outer products of source rows and gradient rows.
//!
//! Pixels of the whole batch are one list, cut into fixed tiles: tasks, and the order of every sum, depend on shapes
//! alone, so the result is the same on any number of threads. The inner loops are chosen once per call, by [`Isa`].

use super::geometry::Geometry;
use super::winograd;
use super::{direct, direct_grad};
use crate::isa::Isa;

/// `y` `[n, oh, ow, o]` of `x` and `w`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn forward(isa: Isa, g: &Geometry, x: &[f32], w: &[f32]) -> Vec<f32> {
    assert!(x.len() == g.n * g.h * g.w * g.c && w.len() == g.o * g.kh * g.kw * g.c, "conv2d: lengths");
    match winograd::suits(g) {
        true => winograd::forward(isa, g, x, w),
        false => direct::forward(isa, g, x, w),
    }
}

/// The gradient for `x`, `[n, h, w, c]`, of the output's gradient `dy`; plus `add`, which has that shape.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn input_grad(isa: Isa, g: &Geometry, w: &[f32], dy: &[f32], add: Option<&[f32]>) -> Vec<f32> {
    assert!(dy.len() == g.n * g.oh * g.ow * g.o && w.len() == g.o * g.kh * g.kw * g.c, "conv2d: lengths");
    assert!(add.is_none_or(|add| add.len() == g.n * g.h * g.w * g.c), "conv2d: lengths");
    match winograd::suits(g) {
        true => winograd::input_grad(isa, g, w, dy, add),
        false => direct::input_grad(isa, g, w, dy, add),
    }
}

/// The gradient for `w`, `[o, kh, kw, c]`, of the output's gradient `dy`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn weight_grad(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    assert!(x.len() == g.n * g.h * g.w * g.c && dy.len() == g.n * g.oh * g.ow * g.o, "conv2d: lengths");
    match winograd::suits_weight_grad(g) {
        true => winograd::weight_grad(isa, g, x, dy),
        false => direct_grad::weight_grad(isa, g, x, dy),
    }
}
