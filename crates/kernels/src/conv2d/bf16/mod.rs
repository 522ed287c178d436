//! Convolution of bf16 activations: the plan, and the way for machines without kernels of their own for it.
//!
//! Products of bf16 values (weights are rounded to bf16 while they are packed) are added in f32, results rounded once.

use half::bf16;

use super::cpu;
use super::geometry::Geometry;
use crate::dense::{narrow, round, widen};
use crate::isa::Isa;

/// `y` `[n, oh, ow, o]` of `x` and `w`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn forward(isa: Isa, g: &Geometry, x: &[bf16], w: &[f32]) -> Vec<bf16> {
    narrow(&cpu::forward(isa, g, &widen(x), &round(w)))
}

/// The gradient for `x`, `[n, h, w, c]`, of the output's gradient `dy`; plus `add`, which has that shape.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn input_grad(isa: Isa, g: &Geometry, w: &[f32], dy: &[bf16], add: Option<&[bf16]>) -> Vec<bf16> {
    let add = add.map(widen);
    narrow(&cpu::input_grad(isa, g, &round(w), &widen(dy), add.as_deref()))
}

/// The gradient for `w`, `[o, kh, kw, c]`, of the output's gradient `dy`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn weight_grad(isa: Isa, g: &Geometry, x: &[bf16], dy: &[bf16]) -> Vec<f32> {
    cpu::weight_grad(isa, g, &widen(x), &widen(dy))
}

#[cfg(test)]
mod tests;
