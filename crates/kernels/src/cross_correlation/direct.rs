//! The D x D form, for D < N: `C = A^T B / N` is made over chunks of rows, each standardized when it is needed.
//!
//! 2 N D^2 flops forward, 4 N D^2 backward. Memory: C, which is smaller than a view, and three chunks of rows. The sums that
//! the way back through the standardization needs come from C alone: the columns of `B dC^T` have mean 0 since those of B
//! do, and their mean product with A is `sum_k dC_jk C_jk`.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu::View as Input;
use super::standardize::{Back, Moments, back, column_products, dot};
use crate::matmul::{View, add_matmul_shared, matmul_shared};

/// Values of a chunk of rows, 8 MiB: few enough to stay in the last cache, enough rows to make packing C worth it.
/// Small in tests, so that they see several chunks.
const CHUNK: usize = if cfg!(test) { 1 << 13 } else { 1 << 21 };
/// Rows of a chunk that one task standardizes.
const ROWS: usize = 16;

/// What the backward pass needs.
pub(super) struct Saved {
    /// `[D, D]`.
    c: Vec<f32>,
    pub(super) diagonal: Vec<f64>,
    /// Sums of squares of C's rows and of its columns.
    rows: Vec<f64>,
    columns: Vec<f64>,
}

/// C and its sums of squares; also `sum_{i != j} C_ij^2`.
pub(super) fn forward(a: &Input, b: &Input) -> (Saved, f64) {
    let (n, d) = (a.rows(), a.d);
    let mut c = vec![0f32; d * d];
    for start in (0..n).step_by(height(n, d)) {
        let rows = start..n.min(start + height(n, d));
        let (a, b) = (standardized(a, rows.clone()), standardized(b, rows.clone()));
        let (a, b) = (View::rows(&a, d).t(), View::rows(&b, d));
        add_matmul_shared(&mut c, 1.0 / n as f32, a, b, [d, d, rows.len()]);
    }
    let diagonal: Vec<f64> = (0..d).map(|i| f64::from(c[i * d + i])).collect();
    let rows: Vec<f64> = c.par_chunks(d).map(|row| dot(row, row)).collect();
    let off = |(i, row): (usize, &[f32])| dot(&row[..i], &row[..i]) + dot(&row[i + 1..], &row[i + 1..]);
    let off: Vec<f64> = c.par_chunks(d).enumerate().map(off).collect();
    let columns = column_products(&c, &c, d);
    (Saved { c, diagonal, rows, columns }, off.iter().sum())
}

/// Both gradients of `upstream` times the loss.
pub(super) fn backward(saved: &Saved, a: &Input, b: &Input, lambda: f64, upstream: f64) -> [Vec<f32>; 2] {
    let (n, d) = (a.rows(), a.d);
    let c = View::rows(&saved.c, d);
    let diagonal: Vec<f64> = saved.diagonal.iter().map(|c| 2.0 * ((c - 1.0) - lambda * c)).collect();
    let finish = |moments: &Moments, squares: &[f64]| -> [Vec<f64>; 2] {
        let along = |((squares, diagonal), c): ((&f64, &f64), &f64)| 2.0 * lambda * squares + diagonal * c;
        let along = squares.iter().zip(&diagonal).zip(&saved.diagonal).map(along).collect();
        [along, moments.inverse_std.iter().map(|inverse| inverse * upstream / n as f64).collect()]
    };
    let [along_a, scale_a] = finish(a.moments, &saved.rows);
    let [along_b, scale_b] = finish(b.moments, &saved.columns);
    let zeros = vec![0f64; d];
    let (mut da, mut db) = (vec![0f32; n * d], vec![0f32; n * d]);
    let mut g = vec![0f32; height(n, d) * d];
    for start in (0..n).step_by(height(n, d)) {
        let rows = start..n.min(start + height(n, d));
        let (a, b) = (standardized(a, rows.clone()), standardized(b, rows.clone()));
        let g = &mut g[..rows.len() * d];
        let mut one = |out: &mut [f32], own: &[f32], other: &[f32], c: View, along: &[f64], scale: &[f64]| {
            matmul_shared(g, (2.0 * lambda) as f32, View::rows(other, d), c, [rows.len(), d, d]);
            let out = out[start * d..rows.end * d].par_chunks_mut(d).zip(g.par_chunks(d));
            out.zip(own.par_chunks(d).zip(other.par_chunks(d))).with_min_len(ROWS).for_each(
                |((out, g), (own, other))| {
                    back(out, &Back { g, own, other, diagonal: &diagonal }, &zeros, along, scale);
                },
            );
        };
        one(&mut da, &a, &b, c.t(), &along_a, &scale_a);
        one(&mut db, &b, &a, c, &along_b, &scale_b);
    }
    [da, db]
}

/// Rows of a chunk.
fn height(n: usize, d: usize) -> usize {
    (CHUNK / d).clamp(1, n)
}

/// Some rows of a view, standardized.
fn standardized(view: &Input, rows: Range<usize>) -> Vec<f32> {
    let d = view.d;
    let mut out = vec![0f32; rows.len() * d];
    let z = &view.z[rows.start * d..rows.end * d];
    out.par_chunks_mut(ROWS * d).zip(z.par_chunks(ROWS * d)).for_each(|(out, z)| {
        view.moments.standardize(z, d, 0, d, out);
    });
    out
}
