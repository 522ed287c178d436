//! L2 normalization of rows on slices; norms and dot products in f64, so that no row over- or underflows.

use rayon::prelude::*;

/// 1 / norm of a row, or 0 for a row of (all but) zeros: norms below f32's smallest normal number.
fn inverse_norm(row: &[f32]) -> f64 {
    let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    if norm < f64::from(f32::MIN_POSITIVE) { 0.0 } else { 1.0 / norm }
}

/// Each row of `x` `[N, D]` over its norm.
pub fn normalize(x: &[f32], dim: usize) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(dim).zip(x.par_chunks(dim)).for_each(|(y, x)| {
        let inverse = inverse_norm(x);
        // Not y = 0 x: infinities and NaNs must show.
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (f64::from(x) * inverse) as f32;
        }
    });
    y
}

/// `dx = (dy - y (y . dy)) / |x|`.
pub fn backward(dy: &[f32], y: &[f32], x: &[f32], dim: usize) -> Vec<f32> {
    let mut dx = vec![0f32; x.len()];
    dx.par_chunks_mut(dim).enumerate().for_each(|(i, dx)| {
        let row = i * dim..(i + 1) * dim;
        let (dy, y, x) = (&dy[row.clone()], &y[row.clone()], &x[row]);
        let inverse = inverse_norm(x);
        let dot: f64 = y.iter().zip(dy).map(|(&y, &dy)| f64::from(y) * f64::from(dy)).sum();
        for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = ((f64::from(dy) - f64::from(y) * dot) * inverse) as f32;
        }
    });
    dx
}
