//! L2 normalization of rows on slices; norms and dot products in f64, so that no row over- or underflows.

use rayon::prelude::*;

use crate::dense::Element;
use crate::isa::multiversion;

/// Sums that run side by side: their order is fixed, and it is that of vector code.
const LANES: usize = 16;
/// Least number of values of a task.
const TASK: usize = 1 << 13;

/// 1 / norm of a row from the sum of its squares, or 0 for a row of (all but) zeros: norms below f32's smallest normal number.
#[inline(always)]
fn inverse_norm(squares: f64) -> f64 {
    let norm = squares.sqrt();
    if norm < f64::from(f32::MIN_POSITIVE) { 0.0 } else { 1.0 / norm }
}

#[inline(always)]
fn dot<T: Element>(a: &[T], b: &[T]) -> f64 {
    let (mut lanes, mut rest) = ([0f64; LANES], 0f64);
    let (mut a, mut b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut a).zip(&mut b) {
        for i in 0..LANES {
            lanes[i] += f64::from(a[i].widen()) * f64::from(b[i].widen());
        }
    }
    for (a, b) in a.remainder().iter().zip(b.remainder()) {
        rest += f64::from(a.widen()) * f64::from(b.widen());
    }
    lanes.iter().sum::<f64>() + rest
}

/// Each row of `x` `[N, D]` over its norm.
pub(super) fn normalize<T: Element>(x: &[T], dim: usize) -> Vec<T> {
    let mut y = vec![T::narrow(0.0); x.len()];
    let task = dim * TASK.div_ceil(dim);
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| normalize_rows::<T>(x, dim, y));
    y
}

/// `dx = (dy - y (y . dy)) / |x|` with `y = x / |x|`, taken from x again: it was rounded.
pub(super) fn backward<T: Element>(dy: &[T], x: &[T], dim: usize) -> Vec<T> {
    let mut dx = vec![T::narrow(0.0); x.len()];
    let task = dim * TASK.div_ceil(dim);
    dx.par_chunks_mut(task).enumerate().for_each(|(i, dx)| {
        let range = i * task..i * task + dx.len();
        backward_rows::<T>(&dy[range.clone()], &x[range], dim, dx);
    });
    dx
}

multiversion! {
    fn normalize_rows<type T: Element>(x: &[T], dim: usize, y: &mut [T]) {
        for (y, x) in y.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
            let inverse = inverse_norm(dot(x, x));
            // Not y = 0 x: infinities and NaNs must show.
            for (y, x) in y.iter_mut().zip(x) {
                *y = T::narrow((f64::from(x.widen()) * inverse) as f32);
            }
        }
    }

    fn backward_rows<type T: Element>(dy: &[T], x: &[T], dim: usize, dx: &mut [T]) {
        for ((dx, x), dy) in dx.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(dy.chunks_exact(dim)) {
            let inverse = inverse_norm(dot(x, x));
            let along = dot(x, dy) * inverse * inverse;
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                let d = f64::from(dy.widen()) - f64::from(x.widen()) * along;
                *dx = T::narrow((d * inverse) as f32);
            }
        }
    }
}
