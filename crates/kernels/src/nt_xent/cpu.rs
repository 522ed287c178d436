//! The loops of NT-Xent: tiles of logits are made, used and forgotten.
//!
//! The matrix of logits is symmetric, so a tile of it serves its rows and its columns, and only half of the tiles are made.
//! Forward: each tile's exponentials go into a sum for each row and each column. Backward: the tiles again, turned into
//! weights `p_ik + p_ki - 2 [k is i's positive]`, which are symmetric too: times the embeddings of the columns they go to the
//! gradient of the rows, and transposed the other way. (2N)^2 D flops forward, three times that backward; memory O(N D),
//! where the plain way keeps several (2N)^2 matrices.
//!
//! Tiles are made in rounds in which no two share a row or a column ([`for_each_pair`]), so every sum is added to by one
//! thread at a time and in one order: the result is the same for any thread count.

use rayon::prelude::*;

use super::pairs::for_each_pair;
use crate::matmul::{View, matmul};
use crate::softmax::{accumulate, accumulate_both, softmax_pairs};

/// Rows and columns of a tile: 256 KiB, which stays in the second-level cache.
const EDGE: usize = 256;
/// Up to this 1 / temperature all logits are within the range of exp below the highest that there can be, which then serves
/// all rows in place of a maximum of their own.
const SHARED_MAXIMUM: f64 = 39.0;

/// What the backward pass needs.
pub(super) struct Saved {
    /// `[2N, D]`: the rows of both views at length 1 (or 0).
    z: Vec<f32>,
    /// `[2N]`: 1 / length of each row, 0 for a zero row.
    inverse_norm: Vec<f64>,
    /// `[2N]`: log of the sum of exponentials of each row's logits.
    lse: Vec<f32>,
    d: usize,
    temperature: f64,
}

/// Rows of z and what is gathered for them.
struct Block<'a, T> {
    first: usize,
    z: &'a [f32],
    gathered: T,
}

/// Running maximum and sum of exponentials of each row, and the logit of its positive.
struct Sums {
    maxima: Vec<f32>,
    sums: Vec<f64>,
    positives: Vec<f64>,
}

/// The logits of some rows against others.
struct Tiles {
    d: usize,
    scale: f32,
}

/// The loss of `z1`, `z2` (`[N, D]` row-major), and what its gradient needs.
pub(super) fn forward(z1: &[f32], z2: &[f32], d: usize, temperature: f64) -> (f32, Saved) {
    let mut z = Vec::with_capacity(z1.len() * 2);
    z.extend_from_slice(z1);
    z.extend_from_slice(z2);
    let m = z.len() / d;
    let mut inverse_norm = vec![0f64; m];
    z.par_chunks_mut(EDGE * d).zip(inverse_norm.par_chunks_mut(EDGE)).for_each(|(z, inverse)| {
        z.chunks_mut(d).zip(inverse).for_each(|(row, inverse)| *inverse = normalize(row));
    });

    let shared = 1.0 / temperature <= SHARED_MAXIMUM;
    let start = if shared { (1.0 / temperature) as f32 } else { f32::NEG_INFINITY };
    let gathered = z.chunks(EDGE * d).map(|z| {
        let rows = z.len() / d;
        Sums { maxima: vec![start; rows], sums: vec![0.0; rows], positives: vec![0.0; rows] }
    });
    let mut blocks = blocks(&z, d, gathered);
    let tiles = Tiles { d, scale: (1.0 / temperature) as f32 };
    blocks.par_iter_mut().flatten_iter().for_each(|a| {
        let mut tile = tiles.of(a.z, a.z);
        let width = a.rows(d);
        (0..width).for_each(|i| tile[i * width + i] = f32::NEG_INFINITY);
        a.find_positives(&tile, a.first, m);
        if shared {
            accumulate_both(&tile, start, &mut a.gathered.sums, &mut vec![0.0; width]);
        } else {
            accumulate(&tile, width, &mut a.gathered.maxima, &mut a.gathered.sums);
        }
    });
    for_each_pair(&mut blocks, |a, b| {
        let tile = tiles.of(a.z, b.z);
        let width = b.rows(d);
        a.find_positives(&tile, b.first, m);
        if shared {
            accumulate_both(&tile, start, &mut a.gathered.sums, &mut b.gathered.sums);
            b.take_positives(a, m);
        } else {
            accumulate(&tile, width, &mut a.gathered.maxima, &mut a.gathered.sums);
            let tile = tiles.of(b.z, a.z);
            b.find_positives(&tile, a.first, m);
            accumulate(&tile, a.rows(d), &mut b.gathered.maxima, &mut b.gathered.sums);
        }
    });

    let mut lse = Vec::with_capacity(m);
    let mut loss = 0.0;
    for Block { gathered: Sums { maxima, sums, positives }, .. } in blocks.iter().flatten() {
        for ((&maximum, sum), positive) in maxima.iter().zip(sums).zip(positives) {
            let of_row = f64::from(maximum) + sum.ln();
            loss += of_row - positive;
            lse.push(of_row as f32);
        }
    }
    drop(blocks);
    ((loss / m as f64) as f32, Saved { z, inverse_norm, lse, d, temperature })
}

/// The gradient for both views, `[2N, D]`, of `upstream` times the loss.
pub(super) fn backward(saved: &Saved, upstream: f64) -> Vec<f32> {
    let Saved { z, inverse_norm, lse, d, temperature } = saved;
    let (d, m) = (*d, lse.len());
    let factor = upstream / (m as f64 * temperature);
    let mut gradient = vec![0f32; z.len()];
    let mut blocks = blocks(z, d, gradient.chunks_mut(EDGE * d));
    let tiles = Tiles { d, scale: (1.0 / temperature) as f32 };
    let lse_of = |first: usize, rows: usize| &lse[first..first + rows];
    blocks.par_iter_mut().flatten_iter().for_each(|a| {
        let rows = a.rows(d);
        let mut tile = tiles.of(a.z, a.z);
        softmax_pairs(&mut tile, lse_of(a.first, rows), lse_of(a.first, rows));
        (0..rows).for_each(|i| tile[i * rows + i] = 0.0);
        a.subtract_positives(&mut tile, a.first, rows, m);
        matmul(a.gathered, d, true, 1.0, View::rows(&tile, rows), View::rows(a.z, d), [rows, d, rows]);
    });
    for_each_pair(&mut blocks, |a, b| {
        let (rows, width) = (a.rows(d), b.rows(d));
        let mut tile = tiles.of(a.z, b.z);
        softmax_pairs(&mut tile, lse_of(a.first, rows), lse_of(b.first, width));
        a.subtract_positives(&mut tile, b.first, width, m);
        let weights = View::rows(&tile, width);
        matmul(a.gathered, d, true, 1.0, weights, View::rows(b.z, d), [rows, d, width]);
        matmul(b.gathered, d, true, 1.0, weights.t(), View::rows(a.z, d), [width, d, rows]);
    });
    drop(blocks);
    gradient.par_chunks_mut(EDGE * d).enumerate().for_each(|(block, gradient)| {
        for (i, g) in gradient.chunks_mut(d).enumerate() {
            let row = block * EDGE + i;
            normalize_backward(g, &z[row * d..][..d], factor * inverse_norm[row]);
        }
    });
    gradient
}

/// z cut into blocks of [`EDGE`] rows, each with what is gathered for it.
fn blocks<'a, T>(z: &'a [f32], d: usize, gathered: impl Iterator<Item = T>) -> Vec<Option<Block<'a, T>>> {
    let rows = z.chunks(EDGE * d).enumerate();
    rows.zip(gathered).map(|((i, z), gathered)| Some(Block { first: i * EDGE, z, gathered })).collect()
}

impl Tiles {
    /// `[a, b]`: the logits of the rows of a against those of b.
    fn of(&self, a: &[f32], b: &[f32]) -> Vec<f32> {
        let (rows, width) = (a.len() / self.d, b.len() / self.d);
        let mut tile = vec![0f32; rows * width];
        let (a, b) = (View::rows(a, self.d), View::rows(b, self.d).t());
        matmul(&mut tile, width, false, self.scale, a, b, [rows, width, self.d]);
        tile
    }
}

impl<T> Block<'_, T> {
    fn rows(&self, d: usize) -> usize {
        self.z.len() / d
    }

    /// Takes 2 from the weight of each row's positive in a tile that begins at column `start`.
    fn subtract_positives(&self, tile: &mut [f32], start: usize, width: usize, m: usize) {
        positives(self.first, start, [tile.len() / width, width], m).for_each(|(i, j)| tile[i * width + j] -= 2.0);
    }
}

impl Block<'_, Sums> {
    /// Keeps the logits of the positives that lie in a tile that begins at column `start`.
    fn find_positives(&mut self, tile: &[f32], start: usize, m: usize) {
        let rows = self.gathered.positives.len();
        let width = tile.len() / rows;
        for (i, j) in positives(self.first, start, [rows, width], m) {
            self.gathered.positives[i] = f64::from(tile[i * width + j]);
        }
    }

    /// Positives are mutual: takes those over that `other` has found among these rows.
    fn take_positives(&mut self, other: &Self, m: usize) {
        let extent = [other.gathered.positives.len(), self.gathered.positives.len()];
        for (i, j) in positives(other.first, self.first, extent, m) {
            self.gathered.positives[j] = other.gathered.positives[i];
        }
    }
}

/// Where in the tile of rows from `first` and columns from `start` a row meets its positive, of `m` views in all.
fn positives(first: usize, start: usize, [rows, width]: [usize; 2], m: usize) -> impl Iterator<Item = (usize, usize)> {
    let column = move |i: usize| ((first + i + m / 2) % m).checked_sub(start).filter(|&j| j < width);
    (0..rows).filter_map(move |i| Some((i, column(i)?)))
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
