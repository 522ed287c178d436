//! Bringing columns to mean 0 and variance 1, and the gradient through that; sums in f64, in the order of the rows.

use rayon::prelude::*;

use crate::isa::multiversion;

/// Columns that one task sums.
const BLOCK: usize = 256;

/// Mean and 1 / sqrt(variance + eps) of each column, the variance biased.
#[derive(Clone, Default)]
pub(super) struct Moments {
    pub(super) mean: Vec<f64>,
    pub(super) inverse_std: Vec<f64>,
}

impl Moments {
    /// Those of `width` columns from `first` on; `z` has rows of `d`.
    pub(super) fn of_columns(z: &[f32], d: usize, first: usize, width: usize, eps: f64) -> Self {
        let n = (z.len() / d) as f64;
        let mut mean = vec![0f64; width];
        add_rows(&z[first..], d, &mut mean);
        mean.iter_mut().for_each(|v| *v /= n);
        let mut inverse_std = vec![0f64; width];
        add_squares(&z[first..], d, &mean, &mut inverse_std);
        inverse_std.iter_mut().for_each(|v| *v = 1.0 / (*v / n + eps).sqrt());
        Self { mean, inverse_std }
    }

    /// Those of all columns of `z`.
    pub(super) fn of(z: &[f32], d: usize, eps: f64) -> Self {
        let starts: Vec<usize> = (0..d).step_by(BLOCK).collect();
        let parts: Vec<Self> =
            starts.par_iter().map(|&first| Self::of_columns(z, d, first, BLOCK.min(d - first), eps)).collect();
        let mut all = Self::default();
        parts.into_iter().for_each(|part| all.extend(part));
        all
    }

    /// Appends the next columns.
    pub(super) fn extend(&mut self, next: Self) {
        self.mean.extend(next.mean);
        self.inverse_std.extend(next.inverse_std);
    }

    /// `out` becomes the columns of `z` (rows `d` long) from `first` on that these moments are of, standardized.
    pub(super) fn standardize_block(&self, z: &[f32], d: usize, first: usize, out: &mut [f32]) {
        standardize(&z[first..], d, &self.mean, &self.inverse_std, out);
    }

    /// `out` becomes the rows of `z` (`d` long), columns `first..first + width`, standardized.
    pub(super) fn standardize(&self, z: &[f32], d: usize, first: usize, width: usize, out: &mut [f32]) {
        let range = first..first + width;
        standardize(&z[first..], d, &self.mean[range.clone()], &self.inverse_std[range], out);
    }
}

/// For each column of a dense `[rows, sums.len()]` matrix, the sum of products of two, in parallel over columns.
pub(super) fn column_products(a: &[f32], b: &[f32], d: usize) -> Vec<f64> {
    let mut sums = vec![0f64; d];
    sums.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sums)| {
        add_products(&a[block * BLOCK..], &b[block * BLOCK..], d, sums);
    });
    sums
}

/// `sum_i a_i b_i` in f64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sum = 0.0;
    add_dot(a, b, &mut sum);
    sum
}

/// One row or column range of a gradient on its way back through the standardization.
pub(super) struct Back<'a> {
    /// The gradient for the standardized view, but for what the diagonal adds.
    pub(super) g: &'a [f32],
    /// The standardized view, and the other one.
    pub(super) own: &'a [f32],
    pub(super) other: &'a [f32],
    /// By which `other` enters.
    pub(super) diagonal: &'a [f64],
}

multiversion! {
    /// Adds the rows, `stride` apart, to the sums of the first `sums.len()` columns.
    fn add_rows(z: &[f32], stride: usize, sums: &mut [f64]) {
        for row in z.chunks(stride) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += f64::from(v);
            }
        }
    }

    fn add_squares(z: &[f32], stride: usize, mean: &[f64], sums: &mut [f64]) {
        for row in z.chunks(stride) {
            for ((sum, &v), mean) in sums.iter_mut().zip(row).zip(mean) {
                let v = f64::from(v) - mean;
                *sum += v * v;
            }
        }
    }

    /// Adds `a b` to the sums of the first `sums.len()` columns.
    pub(super) fn add_products(a: &[f32], b: &[f32], stride: usize, sums: &mut [f64]) {
        for (a, b) in a.chunks(stride).zip(b.chunks(stride)) {
            for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                *sum += f64::from(a) * f64::from(b);
            }
        }
    }

    fn standardize(z: &[f32], stride: usize, mean: &[f64], inverse: &[f64], out: &mut [f32]) {
        for (out, row) in out.chunks_mut(mean.len()).zip(z.chunks(stride)) {
            for (((out, &v), mean), inverse) in out.iter_mut().zip(row).zip(mean).zip(inverse) {
                *out = ((f64::from(v) - mean) * inverse) as f32;
            }
        }
    }

    /// Adds `sum_i a_i b_i` in 16 lanes.
    fn add_dot(a: &[f32], b: &[f32], sum: &mut f64) {
        let mut lanes = [0f64; 16];
        let (a_chunks, a_rest) = a.as_chunks::<16>();
        let (b_chunks, b_rest) = b.as_chunks::<16>();
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += f64::from(a) * f64::from(b);
            }
        }
        for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += f64::from(a) * f64::from(b);
        }
        *sum += lanes.iter().sum::<f64>();
    }

    /// `g += diagonal other` over dense rows; adds the columns' sums of g and of g times the own view.
    pub(super) fn add_diagonal(g: &mut [f32], own: &[f32], other: &[f32], diagonal: &[f64], sums: &mut [[f64; 2]]) {
        let width = diagonal.len();
        for ((g, own), other) in g.chunks_mut(width).zip(own.chunks(width)).zip(other.chunks(width)) {
            for ((((g, &own), &other), diagonal), sums) in g.iter_mut().zip(own).zip(other).zip(diagonal).zip(&mut *sums) {
                let v = f64::from(*g) + diagonal * f64::from(other);
                *g = v as f32;
                sums[0] += v;
                sums[1] += v * f64::from(own);
            }
        }
    }

    /// `out = (g + diagonal other - mean - own along) scale` over one row.
    pub(super) fn back(out: &mut [f32], row: &Back, mean: &[f64], along: &[f64], scale: &[f64]) {
        let Back { g, own, other, diagonal } = row;
        let inputs = g.iter().zip(*own).zip(*other).zip(*diagonal);
        for ((((out, (((&g, &own), &other), diagonal)), mean), along), scale) in
            out.iter_mut().zip(inputs).zip(mean).zip(along).zip(scale)
        {
            let g = f64::from(g) + diagonal * f64::from(other);
            *out = ((g - mean - f64::from(own) * along) * scale) as f32;
        }
    }
}
