//! The N x N form, for D >= N: `sum_ij C_ij^2 = <A A^T, B B^T> / N^2`, so that C is never made.
//!
//! The gradient for A is `2 lambda (B B^T) A / N^2` and what the diagonal adds. 2 N^2 D flops forward, since the products
//! are symmetric, 4 N^2 D backward. Views are standardized in blocks of whole columns, in which the way back through the
//! standardization is local too: z1 and z2 are read once forward and once backward, and beside the gradients only the two
//! Gram matrices are kept, which are smaller than a view.

use rayon::prelude::*;

use super::cpu::View as Input;
use super::standardize::{Back, Moments, add_diagonal, add_products, back, dot};
use crate::disjoint::ColumnRanges;
use crate::matmul::{View, matmul};

/// Column blocks that are standardized at a time.
const GROUP: usize = 8;

/// What the backward pass needs.
pub(super) struct Saved {
    /// A A^T and B B^T, `[N, N]`.
    grams: [Vec<f32>; 2],
    /// Of C.
    pub(super) diagonal: Vec<f64>,
}

/// A block of columns of both views, standardized.
#[derive(Default)]
struct Block {
    z: [Vec<f32>; 2],
    moments: [Moments; 2],
    diagonal: Vec<f64>,
}

/// Rows i.. against rows j.. of a Gram matrix, j <= i.
struct Tile {
    view: usize,
    at: [usize; 2],
    extent: [usize; 2],
    values: Vec<f32>,
}

/// The Gram matrices and the diagonal of C; also `sum_ij C_ij^2` and the moments of both views.
pub(super) fn forward(z: [&[f32]; 2], d: usize, eps: f64) -> (Saved, f64, [Moments; 2]) {
    let n = z[0].len() / d;
    let width = width(n).min(d);
    let mut tiles = tiles(n);
    let mut blocks: Vec<Block> = Vec::new();
    blocks.resize_with(GROUP.min(d.div_ceil(width)), Block::default);
    let mut moments = [Moments::default(), Moments::default()];
    let mut diagonal = Vec::with_capacity(d);
    for group in (0..d).step_by(width * GROUP) {
        let starts: Vec<usize> = (group..d.min(group + width * GROUP)).step_by(width).collect();
        blocks
            .par_iter_mut()
            .zip(&starts)
            .for_each(|(block, &first)| block.fill(z, d, first, width.min(d - first), eps));
        for block in blocks.iter_mut().take(starts.len()) {
            let own = std::mem::take(&mut block.moments);
            moments.iter_mut().zip(own).for_each(|(all, own)| all.extend(own));
            diagonal.append(&mut block.diagonal);
        }
        tiles.par_iter_mut().for_each(|tile| {
            let ([i, j], [rows, cols]) = (tile.at, tile.extent);
            for (block, &first) in blocks.iter().zip(&starts) {
                let width = width.min(d - first);
                let z = &block.z[tile.view];
                let (own, other) = (View::rows(&z[i * width..], width), View::rows(&z[j * width..], width).t());
                matmul(&mut tile.values, cols, true, 1.0, own, other, [rows, cols, width]);
            }
        });
    }
    drop(blocks);
    // The tiles of A A^T come first, then those of B B^T in the same order.
    let (of_a, of_b) = tiles.split_at(tiles.len() / 2);
    let both = |(a, b): (&Tile, &Tile)| dot(&a.values, &b.values) * if a.at[0] == a.at[1] { 1.0 } else { 2.0 };
    let all: Vec<f64> = of_a.par_iter().zip(of_b).map(both).collect();
    let all = all.iter().sum::<f64>() / (n * n) as f64;
    let grams = [assemble(of_a, n), assemble(of_b, n)];
    (Saved { grams, diagonal }, all, moments)
}

/// Both gradients of `upstream` times the loss.
pub(super) fn backward(saved: &Saved, a: &Input, b: &Input, lambda: f64, upstream: f64) -> [Vec<f32>; 2] {
    let (n, d) = (a.rows(), a.d);
    let width = width(n).min(d);
    let (mut da, mut db) = (vec![0f32; n * d], vec![0f32; n * d]);
    let outputs = [ColumnRanges::new(&mut da, d), ColumnRanges::new(&mut db, d)];
    let starts: Vec<usize> = (0..d).step_by(width).collect();
    starts.par_iter().for_each(|&first| {
        let width = width.min(d - first);
        let standardized = |view: &Input| {
            let mut block = vec![0f32; n * width];
            view.moments.standardize(view.z, d, first, width, &mut block);
            block
        };
        let z = [standardized(a), standardized(b)];
        let diagonal: Vec<f64> =
            saved.diagonal[first..first + width].iter().map(|c| 2.0 * ((c - 1.0) - lambda * c)).collect();
        let mut g = vec![0f32; n * width];
        for (i, view) in [a, b].into_iter().enumerate() {
            let (own, other) = (&z[i], &z[1 - i]);
            let gram = View::rows(&saved.grams[1 - i], n);
            let factor = (2.0 * lambda / n as f64) as f32;
            matmul(&mut g, width, false, factor, gram, View::rows(own, width), [n, width, n]);
            let mut sums = vec![[0f64; 2]; width];
            add_diagonal(&mut g, own, other, &diagonal, &mut sums);
            let [mean, along] = [0, 1].map(|k| sums.iter().map(|sums| sums[k] / n as f64).collect::<Vec<f64>>());
            let inverse = &view.moments.inverse_std[first..first + width];
            let scale: Vec<f64> = inverse.iter().map(|inverse| inverse * upstream / n as f64).collect();
            let zeros = vec![0f64; width];
            for (row, (g, own)) in g.chunks(width).zip(own.chunks(width)).enumerate() {
                // SAFETY: this task alone writes these columns of this output, and one row at a time.
                let out = unsafe { outputs[i].row(row, first, width) };
                back(out, &Back { g, own, other: own, diagonal: &zeros }, &mean, &along, &scale);
            }
        }
    });
    [da, db]
}

impl Block {
    /// Standardizes columns `first..first + width`.
    fn fill(&mut self, z: [&[f32]; 2], d: usize, first: usize, width: usize, eps: f64) {
        let n = z[0].len() / d;
        for ((z, own), moments) in z.into_iter().zip(&mut self.z).zip(&mut self.moments) {
            *moments = Moments::of_columns(z, d, first, width, eps);
            own.resize(n * width, 0.0);
            moments.standardize_block(z, d, first, own);
        }
        self.diagonal = vec![0.0; width];
        add_products(&self.z[0], &self.z[1], width, &mut self.diagonal);
        self.diagonal.iter_mut().for_each(|v| *v /= n as f64);
    }
}

/// Columns of a block: it stays in the second-level cache for small N, and shares out the packing of a Gram matrix for large N.
fn width(n: usize) -> usize {
    if n <= 512 { 256 } else { 512 }
}

/// The lower triangles of both Gram matrices, as zeros.
fn tiles(n: usize) -> Vec<Tile> {
    let edge = if n <= 512 { 128 } else { 256 };
    let mut tiles = Vec::new();
    for view in 0..2 {
        for i in (0..n).step_by(edge) {
            for j in (0..=i).step_by(edge) {
                let extent = [edge.min(n - i), edge.min(n - j)];
                tiles.push(Tile { view, at: [i, j], extent, values: vec![0.0; extent[0] * extent[1]] });
            }
        }
    }
    tiles
}

/// The whole symmetric matrix from its lower triangle.
fn assemble(tiles: &[Tile], n: usize) -> Vec<f32> {
    let mut out = vec![0f32; n * n];
    for Tile { at: [i, j], extent: [_, cols], values, .. } in tiles {
        for (row, values) in values.chunks(*cols).enumerate() {
            out[(i + row) * n + j..][..*cols].copy_from_slice(values);
            if i != j {
                values.iter().enumerate().for_each(|(col, &v)| out[(j + col) * n + i + row] = v);
            }
        }
    }
    out
}
