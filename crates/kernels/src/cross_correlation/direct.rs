//! The D x D form, for D < N: `C = A^T B / N` is made over chunks of rows, each standardized when it is needed.
//!
//! 2 N D^2 flops forward, 4 N D^2 backward. Memory: C, which is smaller than a view, and two chunks of rows. The sums that
//! the way back through the standardization needs come from C alone: the columns of `B dC^T` have mean 0 since those of B
//! do, and their mean product with A is `sum_k dC_jk C_jk`.

use rayon::prelude::*;

use super::cpu::View as Input;
use super::standardize::{Back, Moments, back, column_products, dot};
use crate::matmul::{View, matmul};

/// Values of a chunk of rows: with two views 16 MiB.
const CHUNK: usize = 1 << 21;

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
    let height = (CHUNK / d).clamp(1, n);
    let mut scratch = [vec![0f32; height * d], vec![0f32; height * d]];
    for start in (0..n).step_by(height) {
        let count = height.min(n - start);
        for (view, out) in [a, b].into_iter().zip(&mut scratch) {
            let out = &mut out[..count * d];
            out.par_chunks_mut(16 * d).zip(view.z[start * d..].par_chunks(16 * d)).for_each(|(out, z)| {
                view.moments.standardize(z, d, 0, d, out);
            });
        }
        let band = band(d, 256);
        c.par_chunks_mut(band * d).enumerate().for_each(|(i, out)| {
            let own = View::rows(&scratch[0][i * band..], d).t();
            let other = View::rows(&scratch[1], d);
            matmul(out, d, start > 0, 1.0 / n as f32, own, other, [out.len() / d, d, count]);
        });
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
    let band = band(n, 512);
    da.par_chunks_mut(band * d).zip(db.par_chunks_mut(band * d)).enumerate().for_each(|(i, (da, db))| {
        let count = da.len() / d;
        let standardized = |view: &Input| {
            let mut rows = vec![0f32; count * d];
            view.moments.standardize(&view.z[i * band * d..][..count * d], d, 0, d, &mut rows);
            rows
        };
        let (a, b) = (standardized(a), standardized(b));
        let mut g = vec![0f32; count * d];
        let mut one = |out: &mut [f32], own: &[f32], other: &[f32], c: View, along: &[f64], scale: &[f64]| {
            matmul(&mut g, d, false, (2.0 * lambda) as f32, View::rows(other, d), c, [count, d, d]);
            let rows = out.chunks_mut(d).zip(g.chunks(d)).zip(own.chunks(d).zip(other.chunks(d)));
            for ((out, g), (own, other)) in rows {
                back(out, &Back { g, own, other, diagonal: &diagonal }, &zeros, along, scale);
            }
        };
        one(da, &a, &b, c.t(), &along_a, &scale_a);
        one(db, &b, &a, c, &along_b, &scale_b);
    });
    [da, db]
}

/// Rows of a task of `rows` in all: `most`, or less so that there are about eight tasks, but not much fewer than 32.
fn band(rows: usize, most: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(16).clamp(32, most)
}
