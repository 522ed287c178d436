//! The loops of the Barlow Twins loss.
//!
//! Both views are normalized per column (two passes, sums in f64); then one of two equal forms:
//!
//! * D x D, when D < 2 N: C = A^T B / N is made and kept; backward two products with dC.
//!   2 N D^2 flops forward, 4 N D^2 backward.
//! * N x N, when D >= 2 N: the sum of all C_ij^2 is `<A A^T, B B^T> / N^2`, its gradient for A is
//!   `2 (B B^T) A / N^2`, and the diagonal costs O(N D): 4 N^2 D flops forward, 4 N^2 D backward, and no D x D matrix.
//!   Its off-diagonal sum is a difference, which is harmless: C has rank < N, so the whole is at least twice the diagonal
//!   part when the diagonal is near 1.
//!
//! Sums run in a fixed order: the result is the same for any thread count.

use rayon::prelude::*;

use crate::matmul::{View, matmul_shared};

/// Columns that one task sums.
const BLOCK: usize = 256;

/// What the backward pass needs.
pub(super) struct Saved {
    a: Normalized,
    b: Normalized,
    n: usize,
    d: usize,
    form: Form,
    /// `sum_i (C_ii - 1)^2`.
    pub(super) invariance: f64,
    /// `sum_{i != j} C_ij^2`.
    pub(super) redundancy: f64,
}

enum Form {
    /// C, `[D, D]`.
    Columns(Vec<f32>),
    /// A A^T and B B^T, both `[N, N]`, and the diagonal of C, `[D]`.
    Rows { aa: Vec<f32>, bb: Vec<f32>, diagonal: Vec<f64> },
}

/// One view after batch normalization.
struct Normalized {
    /// `[N, D]`.
    z: Vec<f32>,
    /// `[D]`: 1 / sqrt(variance + eps).
    inverse_std: Vec<f64>,
}

/// Both terms of `z1`, `z2` (`[N, D]` row-major), and what their gradient needs.
pub(super) fn forward(z1: &[f32], z2: &[f32], d: usize, eps: f64) -> Saved {
    let n = z1.len() / d;
    let (a, b) = (normalize(z1, d, eps), normalize(z2, d, eps));
    if d >= 2 * n { rows_form(a, b, n, d) } else { columns_form(a, b, n, d) }
}

fn columns_form(a: Normalized, b: Normalized, n: usize, d: usize) -> Saved {
    let mut c = vec![0f32; d * d];
    let rows = View::rows(&a.z, d).t();
    matmul_shared(&mut c, 1.0 / n as f32, rows, View::rows(&b.z, d), [d, d, n]);
    let terms = |(i, row): (usize, &[f32])| {
        let diagonal = f64::from(row[i]) - 1.0;
        let (before, after) = (&row[..i], &row[i + 1..]);
        (diagonal * diagonal, sum_of_products(before, before) + sum_of_products(after, after))
    };
    let sums: Vec<(f64, f64)> = c.par_chunks(d).enumerate().map(terms).collect();
    let (invariance, redundancy) = sums.iter().fold((0.0, 0.0), |(on, off), s| (on + s.0, off + s.1));
    Saved { a, b, n, d, form: Form::Columns(c), invariance, redundancy }
}

fn rows_form(a: Normalized, b: Normalized, n: usize, d: usize) -> Saved {
    let (aa, bb) = (gram(&a.z, n, d), gram(&b.z, n, d));
    let mut diagonal = column_sums(n, d, |row, j| f64::from(a.z[row * d + j]) * f64::from(b.z[row * d + j]));
    diagonal.iter_mut().for_each(|v| *v /= n as f64);
    let all: Vec<f64> = aa.par_chunks(n).zip(bb.par_chunks(n)).map(|(a, b)| sum_of_products(a, b)).collect();
    let all = all.iter().sum::<f64>() / (n * n) as f64;
    let invariance = diagonal.iter().map(|c| (c - 1.0) * (c - 1.0)).sum();
    // Rounding may leave a little less than zero; f64::max would also drop a NaN.
    let off = all - diagonal.iter().map(|c| c * c).sum::<f64>();
    let redundancy = if off < 0.0 { 0.0 } else { off };
    Saved { a, b, n, d, form: Form::Rows { aa, bb, diagonal }, invariance, redundancy }
}

/// The gradients for both views, `[N, D]`, of `upstream` times (invariance + lambda redundancy).
pub(super) fn backward(saved: &Saved, lambda: f64, upstream: f64) -> (Vec<f32>, Vec<f32>) {
    let Saved { a, b, n, d, form, .. } = saved;
    let (n, d) = (*n, *d);
    let (mut da, mut db) = (vec![0f32; n * d], vec![0f32; n * d]);
    match form {
        Form::Columns(c) => {
            // dL/dC = 2 lambda C off the diagonal and 2 (C_ii - 1) on it.
            let mut dc = c.clone();
            dc.par_chunks_mut(d).enumerate().for_each(|(i, row)| {
                let diagonal = 2.0 * (row[i] - 1.0);
                row.iter_mut().for_each(|v| *v *= (2.0 * lambda) as f32);
                row[i] = diagonal;
            });
            let dc = View::rows(&dc, d);
            matmul_shared(&mut da, 1.0, View::rows(&b.z, d), dc.t(), [n, d, d]);
            matmul_shared(&mut db, 1.0, View::rows(&a.z, d), dc, [n, d, d]);
        }
        Form::Rows { aa, bb, diagonal } => {
            let from = |out: &mut [f32], gram: &[f32], own: &Normalized, other: &Normalized| {
                let factor = (2.0 * lambda / n as f64) as f32;
                let (rows, own) = (View::rows(gram, n), View::rows(&own.z, d));
                matmul_shared(out, factor, rows, own, [n, d, n]);
                // What the diagonal adds beyond lambda C_ii^2, which the product counted.
                out.par_chunks_mut(d).zip(other.z.par_chunks(d)).for_each(|(out, other)| {
                    for ((out, &other), c) in out.iter_mut().zip(other).zip(diagonal) {
                        *out += (2.0 * ((c - 1.0) - lambda * c)) as f32 * other;
                    }
                });
            };
            from(&mut da, bb, a, b);
            from(&mut db, aa, b, a);
        }
    }
    let scale = upstream / n as f64;
    normalize_backward(&mut da, a, n, d, scale);
    normalize_backward(&mut db, b, n, d, scale);
    (da, db)
}

/// `z z^T`, `[N, N]`.
fn gram(z: &[f32], n: usize, d: usize) -> Vec<f32> {
    let mut out = vec![0f32; n * n];
    let rows = View::rows(z, d);
    matmul_shared(&mut out, 1.0, rows, rows.t(), [n, n, d]);
    out
}

fn normalize(z: &[f32], d: usize, eps: f64) -> Normalized {
    let n = z.len() / d;
    let mut mean = column_sums(n, d, |row, j| f64::from(z[row * d + j]));
    mean.iter_mut().for_each(|v| *v /= n as f64);
    let mut inverse_std = column_sums(n, d, |row, j| (f64::from(z[row * d + j]) - mean[j]).powi(2));
    inverse_std.iter_mut().for_each(|v| *v = 1.0 / (*v / n as f64 + eps).sqrt());
    let mut out = z.to_vec();
    out.par_chunks_mut(d).for_each(|row| {
        for ((v, mean), inverse) in row.iter_mut().zip(&mean).zip(&inverse_std) {
            *v = ((f64::from(*v) - mean) * inverse) as f32;
        }
    });
    Normalized { z: out, inverse_std }
}

/// `g` becomes `scale (g - mean(g) - z mean(g z)) / std`: the gradient through the normalization to `z`.
fn normalize_backward(g: &mut [f32], of: &Normalized, n: usize, d: usize, scale: f64) {
    let z = &of.z;
    let mean = column_sums(n, d, |row, j| f64::from(g[row * d + j]));
    let along = column_sums(n, d, |row, j| f64::from(g[row * d + j]) * f64::from(z[row * d + j]));
    let count = n as f64;
    g.par_chunks_mut(d).zip(z.par_chunks(d)).for_each(|(g, z)| {
        for (j, (g, &z)) in g.iter_mut().zip(z).enumerate() {
            let centered = f64::from(*g) - mean[j] / count - f64::from(z) * along[j] / count;
            *g = (centered * of.inverse_std[j] * scale) as f32;
        }
    });
}

/// For each column j the sum of `value(row, j)` over the rows, in row order.
fn column_sums(n: usize, d: usize, value: impl Fn(usize, usize) -> f64 + Sync) -> Vec<f64> {
    let mut sums = vec![0f64; d];
    sums.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sums)| {
        for row in 0..n {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += value(row, block * BLOCK + j);
            }
        }
    });
    sums
}

/// `sum_i a_i b_i` in eight f64 lanes.
fn sum_of_products(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(a) * f64::from(b);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    lanes.iter().sum::<f64>() + rest
}
