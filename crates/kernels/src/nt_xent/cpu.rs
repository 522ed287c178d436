//! The loops of NT-Xent: tiles of logits are made, used and forgotten.
//!
//! Forward: one product of the [2N, D] embeddings with themselves, 128 rows against 512 at a time, and for each row a
//! running maximum and sum of exponentials. Kept: normalized rows, inverse norms, and one log-sum-exp per row.
//! Backward: the same tiles again, turned into weights `p_ik + p_ki - 2 [k is i's positive]`, times the embeddings.
//! 2 (2N)^2 D flops forward, twice that backward; memory O(N D), where the plain way keeps several (2N)^2 matrices.
//! Row blocks are the unit of parallel work and tiles go in order, so the result is the same for any thread count.

use rayon::prelude::*;

use super::exp::{accumulate, softmax_pairs};
use crate::matmul::{View, matmul};

/// Rows of a block. With [`COLS`] a tile of logits takes 256 KiB, which stays in the second-level cache.
const ROWS: usize = 128;
/// Columns of a tile.
const COLS: usize = 512;

/// What the backward pass needs.
pub(super) struct Saved {
    /// `[2N, D]`: the rows of both views at length 1 (or 0).
    z: Vec<f32>,
    /// `[D, 2N]`: the same transposed, which the products read without gathering.
    zt: Vec<f32>,
    /// `[2N]`: 1 / length of each row, 0 for a zero row.
    inverse_norm: Vec<f64>,
    /// `[2N]`: log of the sum of exponentials of each row's logits.
    lse: Vec<f32>,
    d: usize,
    temperature: f64,
}

/// The loss of `z1`, `z2` (`[N, D]` row-major), and what its gradient needs.
pub(super) fn forward(z1: &[f32], z2: &[f32], d: usize, temperature: f64) -> (f32, Saved) {
    let mut z = Vec::with_capacity(z1.len() * 2);
    z.extend_from_slice(z1);
    z.extend_from_slice(z2);
    let m = z.len() / d;
    let inverse_norm: Vec<f64> = z.par_chunks_mut(d).map(normalize).collect();
    let mut zt = vec![0f32; z.len()];
    zt.par_chunks_mut(m).enumerate().for_each(|(j, column)| {
        column.iter_mut().zip(z.iter().skip(j).step_by(d)).for_each(|(to, from)| *to = *from);
    });

    let mut stats: Vec<(f64, f64)> = vec![(0.0, 0.0); m];
    stats.par_chunks_mut(ROWS).enumerate().for_each(|(block, stats)| {
        let first = block * ROWS;
        let mut maxima = vec![f32::NEG_INFINITY; stats.len()];
        let mut sums = vec![0f64; stats.len()];
        let mut positives = vec![0f64; stats.len()];
        for_each_tile(&z, &zt, temperature, [first, stats.len(), d], |start, width, tile| {
            for (i, row) in tile.chunks_mut(width).enumerate() {
                if let Some(j) = column(first + i, start, width) {
                    row[j] = f32::NEG_INFINITY;
                }
                if let Some(j) = column(positive(first + i, m), start, width) {
                    positives[i] = f64::from(row[j]);
                }
            }
            accumulate(tile, width, &mut maxima, &mut sums);
        });
        for (i, stat) in stats.iter_mut().enumerate() {
            *stat = (f64::from(maxima[i]) + sums[i].ln(), positives[i]);
        }
    });
    let loss = stats.iter().map(|(lse, positive)| lse - positive).sum::<f64>() / m as f64;
    let lse = stats.iter().map(|(lse, _)| *lse as f32).collect();
    (loss as f32, Saved { z, zt, inverse_norm, lse, d, temperature })
}

/// The gradient for both views, `[2N, D]`, of `upstream` times the loss.
pub(super) fn backward(saved: &Saved, upstream: f64) -> Vec<f32> {
    let Saved { z, zt, inverse_norm, lse, d, temperature } = saved;
    let (d, m) = (*d, lse.len());
    let factor = upstream / (m as f64 * temperature);
    let mut gradient = vec![0f32; z.len()];
    gradient.par_chunks_mut(ROWS * d).enumerate().for_each(|(block, gradient)| {
        let first = block * ROWS;
        let count = gradient.len() / d;
        for_each_tile(z, zt, *temperature, [first, count, d], |start, width, tile| {
            softmax_pairs(tile, &lse[first..first + count], &lse[start..start + width]);
            for (i, row) in tile.chunks_mut(width).enumerate() {
                if let Some(j) = column(first + i, start, width) {
                    row[j] = 0.0;
                }
                if let Some(j) = column(positive(first + i, m), start, width) {
                    row[j] -= 2.0;
                }
            }
            let others = View::rows(&z[start * d..], d);
            matmul(gradient, d, true, 1.0, View::rows(tile, width), others, [count, d, width]);
        });
        for (i, g) in gradient.chunks_mut(d).enumerate() {
            let z = &z[(first + i) * d..][..d];
            normalize_backward(g, z, factor * inverse_norm[first + i]);
        }
    });
    gradient
}

/// Makes the logits of rows `first..first + count` tile by tile: `each(start, width, tile)` gets `[count, width]`.
fn for_each_tile(
    z: &[f32],
    zt: &[f32],
    temperature: f64,
    [first, count, d]: [usize; 3],
    mut each: impl FnMut(usize, usize, &mut [f32]),
) {
    let m = z.len() / d;
    let mut tile = vec![0f32; count * COLS.min(m)];
    let block = View::rows(&z[first * d..], d);
    for start in (0..m).step_by(COLS) {
        let width = COLS.min(m - start);
        let tile = &mut tile[..count * width];
        let others = View::rows(&zt[start..], m);
        matmul(tile, width, false, (1.0 / temperature) as f32, block, others, [count, width, d]);
        each(start, width, tile);
    }
}

/// The other view of row `i`'s image, of `m` rows in all.
fn positive(i: usize, m: usize) -> usize {
    (i + m / 2) % m
}

/// Where column `k` lies in the tile that begins at `start`, if it does.
fn column(k: usize, start: usize, width: usize) -> Option<usize> {
    k.checked_sub(start).filter(|&j| j < width)
}

/// Brings a row to length 1 and returns 1 / its length; a zero row stays and returns 0.
fn normalize(row: &mut [f32]) -> f64 {
    let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let inverse = if norm == 0.0 { 0.0 } else { 1.0 / norm };
    row.iter_mut().for_each(|v| *v = (f64::from(*v) * inverse) as f32);
    inverse
}

/// `g` becomes `scale (g - z <z, g>)`: the gradient through the normalization to `z`.
fn normalize_backward(g: &mut [f32], z: &[f32], scale: f64) {
    let along = g.iter().zip(z).map(|(&g, &z)| f64::from(g) * f64::from(z)).sum::<f64>();
    for (g, &z) in g.iter_mut().zip(z) {
        *g = ((f64::from(*g) - f64::from(z) * along) * scale) as f32;
    }
}
