//! The loops of the Barlow Twins loss, in the cheaper of two equal forms: [`super::direct`] makes the D x D matrix C,
//! [`super::dual`] two N x N matrices in its place.
//!
//! With the symmetry of the N x N products used, both forms take 6 N D min(N, D) flops, so D and N alone decide. The
//! off-diagonal sum of the N x N form is a difference, all of C less its diagonal, with sums in f64: C has a rank below N, so
//! that the whole is at least N / (N - 1) of the diagonal's part, and near that only where views are decorrelated at D
//! near N. Tasks and sums follow the shape: the result is the same for any thread count.

use super::standardize::Moments;
use super::{direct, dual};

/// A view and its columns' moments.
pub(super) struct View<'a> {
    /// `[N, D]`.
    pub(super) z: &'a [f32],
    pub(super) d: usize,
    pub(super) moments: &'a Moments,
}

impl View<'_> {
    /// N.
    pub(super) fn rows(&self) -> usize {
        self.z.len() / self.d
    }
}

/// What the backward pass needs beside the views.
pub(super) struct Saved {
    moments: [Moments; 2],
    form: Form,
    d: usize,
    /// `sum_i (C_ii - 1)^2`.
    pub(super) invariance: f64,
    /// `sum_{i != j} C_ij^2`.
    pub(super) redundancy: f64,
}

enum Form {
    Direct(direct::Saved),
    Dual(dual::Saved),
}

/// Both terms of `z1`, `z2` (`[N, D]` row-major), and what their gradient needs.
pub(super) fn forward(z1: &[f32], z2: &[f32], d: usize, eps: f64) -> Saved {
    if d < z1.len() / d {
        let moments = [z1, z2].map(|z| Moments::of(z, d, eps));
        let [a, b] = views([z1, z2], d, &moments);
        let (saved, redundancy) = direct::forward(&a, &b);
        let invariance = invariance(&saved.diagonal);
        Saved { moments, d, form: Form::Direct(saved), invariance, redundancy }
    } else {
        let (saved, all, moments) = dual::forward([z1, z2], d, eps);
        let off = all - saved.diagonal.iter().map(|c| c * c).sum::<f64>();
        // Rounding may leave a little less than zero; f64::max would also drop a NaN.
        let redundancy = if off < 0.0 { 0.0 } else { off };
        let invariance = invariance(&saved.diagonal);
        Saved { moments, d, form: Form::Dual(saved), invariance, redundancy }
    }
}

/// The gradients for both views, `[N, D]`, of `upstream` times (invariance + lambda redundancy).
pub(super) fn backward(saved: &Saved, z1: &[f32], z2: &[f32], lambda: f64, upstream: f64) -> [Vec<f32>; 2] {
    let [a, b] = views([z1, z2], saved.d, &saved.moments);
    match &saved.form {
        Form::Direct(saved) => direct::backward(saved, &a, &b, lambda, upstream),
        Form::Dual(saved) => dual::backward(saved, &a, &b, lambda, upstream),
    }
}

fn views<'a>(z: [&'a [f32]; 2], d: usize, moments: &'a [Moments; 2]) -> [View<'a>; 2] {
    [0, 1].map(|i| View { z: z[i], d, moments: &moments[i] })
}

fn invariance(diagonal: &[f64]) -> f64 {
    diagonal.iter().map(|c| (c - 1.0) * (c - 1.0)).sum()
}
