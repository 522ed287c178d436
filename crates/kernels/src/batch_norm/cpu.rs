//! Batch norm with residual add and ReLU on slices `[R, C]`, channels last, in f32 or bf16 with f32 arithmetic.
//!
//! Forward: two reads of x (statistics, apply), one of the residual, one write. Backward: two reads of dy and x (sums, apply),
//! one write, over x. Where there is no residual the ReLU's mask is computed again from x, by the forward pass's own
//! expression, so that y is not read at all. With a residual, y gives the mask once and the masked dy, which is the residual's
//! gradient, is written over dy. Nothing is kept between the passes but a few values per channel.

use std::mem::MaybeUninit;

use super::cut::{Cut, prefetch, strips};
use crate::dense::Element;
use crate::isa::multiversion;

/// What the forward pass leaves to the backward pass, per channel.
#[derive(Clone, Debug)]
pub(super) struct Normalizer {
    /// Mean rounded to f32; `low` is what rounding lost.
    pub(super) mean: Vec<f32>,
    low: Vec<f64>,
    invstd: Vec<f64>,
    /// gamma / std.
    scale: Vec<f32>,
    /// beta, less what the rounding of the mean amounts to.
    offset: Vec<f32>,
}

impl Normalizer {
    /// From mean and biased variance, gamma and beta, all `[C]`.
    pub(super) fn new(mean: &[f64], var: &[f64], gamma: &[f32], beta: &[f32], eps: f64) -> Self {
        let rounded: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
        let low: Vec<f64> = mean.iter().zip(&rounded).map(|(&m, &r)| m - f64::from(r)).collect();
        let invstd: Vec<f64> = var.iter().map(|&v| 1.0 / (v + eps).sqrt()).collect();
        let scale: Vec<f64> = gamma.iter().zip(&invstd).map(|(&g, &s)| f64::from(g) * s).collect();
        let offset = (0..beta.len()).map(|i| (f64::from(beta[i]) - low[i] * scale[i]) as f32).collect();
        Self { mean: rounded, low, invstd, scale: scale.iter().map(|&s| s as f32).collect(), offset }
    }

    fn cut(&self) -> Cut {
        Cut::new(self.mean.len())
    }
}

/// `y = gamma (x - mean) / std + beta (+ residual)`, then ReLU if asked. `x`, `residual`, `y`: `[R, C]`; writes all of `y`.
pub(super) fn apply<T: Element>(
    x: &[T],
    residual: Option<&[T]>,
    relu: bool,
    norm: &Normalizer,
    y: &mut [MaybeUninit<T>],
) {
    let cut = norm.cut();
    let (mean, scale, offset) = (cut.tile(&norm.mean), cut.tile(&norm.scale), cut.tile(&norm.offset));
    cut.each(y, |start, y| {
        let range = start..start + y.len();
        let x = &x[range.clone()];
        match (residual.map(|r| &r[range]), relu) {
            (None, false) => apply_chunk::<T, false, false>(x, x, &mean, &scale, &offset, y),
            (None, true) => apply_chunk::<T, false, true>(x, x, &mean, &scale, &offset, y),
            (Some(r), false) => apply_chunk::<T, true, false>(x, r, &mean, &scale, &offset, y),
            (Some(r), true) => apply_chunk::<T, true, true>(x, r, &mean, &scale, &offset, y),
        }
    });
}

/// The normalized value: one expression for the forward pass and for the mask of the backward pass.
#[inline(always)]
fn normalize(x: f32, mean: f32, scale: f32, offset: f32) -> f32 {
    (x - mean) * scale + offset
}

multiversion! {
    fn apply_chunk<type T: Element, const RESIDUAL: bool, const RELU: bool>(
        x: &[T], residual: &[T], mean: &[f32], scale: &[f32], offset: &[f32], out: &mut [MaybeUninit<T>],
    ) {
        let wide = mean.len();
        for ((x, residual), out) in x.chunks(wide).zip(residual.chunks(wide)).zip(out.chunks_mut(wide)) {
            for strip in strips(x.len()) {
                let (x, residual, out) = (&x[strip.clone()], &residual[strip.clone()], &mut out[strip.clone()]);
                prefetch(x);
                if RESIDUAL {
                    prefetch(residual);
                }
                let n = x.len();
                let (residual, out) = (&residual[..n], &mut out[..n]);
                let (mean, scale, offset) = (&mean[strip.clone()][..n], &scale[strip.clone()][..n], &offset[strip][..n]);
                for i in 0..n {
                    let mut y = normalize(x[i].widen(), mean[i], scale[i], offset[i]);
                    if RESIDUAL {
                        y += residual[i].widen();
                    }
                    // A NaN stays a NaN.
                    out[i].write(T::narrow(if RELU && y <= 0.0 { 0.0 } else { y }));
                }
            }
        }
    }
}

/// Gradients of gamma and beta over some rows, and how many rows: what the gradient of x needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Rows seen.
    pub count: f64,
    /// `[C]`: sum over rows of dy' x_hat, the gradient of gamma.
    pub gamma: Vec<f64>,
    /// `[C]`: sum over rows of dy', the gradient of beta.
    pub beta: Vec<f64>,
}

/// How dy becomes dy', the gradient behind the ReLU.
pub(super) enum Incoming<'a, T> {
    /// dy' is dy: there is no ReLU, or dy went through it before.
    Masked(&'a [T]),
    /// dy where the normalized x is above 0 (no residual).
    Recompute(&'a [T]),
    /// dy where y is above 0; what is masked is written to dy.
    Mask(&'a mut [T], &'a [T]),
}

/// Sums over rows of dy' and dy' x_hat.
pub(super) fn backward_sums<T: Element>(dy: Incoming<'_, T>, x: &[T], norm: &Normalizer) -> Sums {
    let cut = norm.cut();
    let (mean, scale, offset) = (cut.tile(&norm.mean), cut.tile(&norm.scale), cut.tile(&norm.offset));
    let parts = match dy {
        Incoming::Masked(dy) => cut.map(x.len(), |start, len| {
            let (dy, x) = (&dy[start..start + len], &x[start..start + len]);
            sum_chunk(cut, len, |block, first, second| {
                sum_gradients::<T, false>(&dy[block.clone()], &x[block], &mean, &scale, &offset, first, second)
            })
        }),
        Incoming::Recompute(dy) => cut.map(x.len(), |start, len| {
            let (dy, x) = (&dy[start..start + len], &x[start..start + len]);
            sum_chunk(cut, len, |block, first, second| {
                sum_gradients::<T, true>(&dy[block.clone()], &x[block], &mean, &scale, &offset, first, second)
            })
        }),
        Incoming::Mask(dy, y) => cut.map_mut(dy, |start, dy| {
            let (y, x) = (&y[start..start + dy.len()], &x[start..start + dy.len()]);
            sum_chunk(cut, dy.len(), |block, first, second| {
                mask_and_sum::<T>(&mut dy[block.clone()], &y[block.clone()], &x[block], &mean, first, second)
            })
        }),
    };
    let c = norm.mean.len();
    let (mut beta, mut gamma) = (vec![0f64; c], vec![0f64; c]);
    for (b, g) in &parts {
        beta.iter_mut().zip(b).for_each(|(sum, v)| *sum += v);
        gamma.iter_mut().zip(g).for_each(|(sum, v)| *sum += v);
    }
    for i in 0..c {
        gamma[i] = (gamma[i] - norm.low[i] * beta[i]) * norm.invstd[i];
    }
    Sums { count: (x.len() / c) as f64, gamma, beta }
}

/// Two sums per channel over a chunk of `len` values, block by block.
fn sum_chunk(
    cut: Cut,
    len: usize,
    mut add: impl FnMut(std::ops::Range<usize>, &mut [f32], &mut [f32]),
) -> (Vec<f64>, Vec<f64>) {
    let (mut first, mut second) = (vec![0f32; cut.wide], vec![0f32; cut.wide]);
    let (mut beta, mut gamma) = (vec![0f64; cut.channels()], vec![0f64; cut.channels()]);
    for start in (0..len).step_by(cut.block()) {
        first.fill(0.0);
        second.fill(0.0);
        add(start..len.min(start + cut.block()), &mut first, &mut second);
        cut.fold(&first, &mut beta);
        cut.fold(&second, &mut gamma);
    }
    (beta, gamma)
}

multiversion! {
    /// Adds the sums of dy' and dy' (x - mean) of a block of wide rows.
    fn sum_gradients<type T: Element, const RELU: bool>(
        dy: &[T], x: &[T], mean: &[f32], scale: &[f32], offset: &[f32], first: &mut [f32], second: &mut [f32],
    ) {
        let wide = mean.len();
        for (dy, x) in dy.chunks(wide).zip(x.chunks(wide)) {
            for strip in strips(dy.len()) {
                let (dy, x) = (&dy[strip.clone()], &x[strip.clone()]);
                prefetch(dy);
                prefetch(x);
                let n = dy.len();
                let (x, mean) = (&x[..n], &mean[strip.clone()][..n]);
                let (scale, offset) = (&scale[strip.clone()][..n], &offset[strip.clone()][..n]);
                let (first, second) = (&mut first[strip.clone()][..n], &mut second[strip][..n]);
                for i in 0..n {
                    let (g, x) = (dy[i].widen(), x[i].widen());
                    let off = RELU && normalize(x, mean[i], scale[i], offset[i]) <= T::VANISHING;
                    let g = if off { 0.0 } else { g };
                    first[i] += g;
                    second[i] += g * (x - mean[i]);
                }
            }
        }
    }

    /// The same where y gives the mask; writes dy' over dy.
    fn mask_and_sum<type T: Element>(
        dy: &mut [T], y: &[T], x: &[T], mean: &[f32], first: &mut [f32], second: &mut [f32],
    ) {
        let wide = mean.len();
        for ((dy, y), x) in dy.chunks_mut(wide).zip(y.chunks(wide)).zip(x.chunks(wide)) {
            for strip in strips(dy.len()) {
                let (dy, y, x) = (&mut dy[strip.clone()], &y[strip.clone()], &x[strip.clone()]);
                prefetch(dy);
                prefetch(y);
                prefetch(x);
                let n = dy.len();
                let (y, x, mean) = (&y[..n], &x[..n], &mean[strip.clone()][..n]);
                let (first, second) = (&mut first[strip.clone()][..n], &mut second[strip][..n]);
                for i in 0..n {
                    let g = if y[i].widen() <= 0.0 { 0.0 } else { dy[i].widen() };
                    dy[i] = T::narrow(g);
                    first[i] += g;
                    second[i] += g * (x[i].widen() - mean[i]);
                }
            }
        }
    }
}

/// Turns x into the gradient of x: `dx = scale dy' - shift - slope (x - mean)`, with everything that is per channel put together
/// in f64 and repeated to the width of a wide row.
pub(super) struct InputGradient {
    cut: Cut,
    /// dy is still to be masked, by the normalized x.
    relu: bool,
    mean: Vec<f32>,
    /// gamma / std and the offset of the forward pass, for the mask.
    forward: Vec<f32>,
    offset: Vec<f32>,
    scale: Vec<f32>,
    slope: Vec<f32>,
    shift: Vec<f32>,
}

impl InputGradient {
    /// `sums` is None where mean and variance are constants (evaluation mode); its count is that of all rows that the
    /// statistics were taken over.
    pub(super) fn new(relu: bool, gamma: &[f32], norm: &Normalizer, sums: Option<&Sums>) -> Self {
        let (c, cut) = (gamma.len(), norm.cut());
        let (mut scale, mut slope, mut shift) = (vec![0f32; c], vec![0f32; c], vec![0f32; c]);
        for i in 0..c {
            let s = f64::from(gamma[i]) * norm.invstd[i];
            scale[i] = s as f32;
            if let Some(sums) = sums {
                let b = s * norm.invstd[i] * sums.gamma[i] / sums.count;
                slope[i] = b as f32;
                shift[i] = (s * sums.beta[i] / sums.count - norm.low[i] * b) as f32;
            }
        }
        let (mean, forward, offset) = (cut.tile(&norm.mean), cut.tile(&norm.scale), cut.tile(&norm.offset));
        let (scale, slope, shift) = (cut.tile(&scale), cut.tile(&slope), cut.tile(&shift));
        Self { cut, relu, mean, forward, offset, scale, slope, shift }
    }

    /// Writes dx over `x` `[R, C]`.
    pub(super) fn over<T: Element>(&self, dy: &[T], x: &mut [T]) {
        self.cut.each(x, |start, x| self.chunk(&dy[start..start + x.len()], x));
    }

    /// Writes dx to all of `dx`.
    pub(super) fn into<T: Element>(&self, dy: &[T], x: &[T], dx: &mut [MaybeUninit<T>]) {
        self.cut.each(dx, |start, dx| {
            let range = start..start + dx.len();
            // The copy stays in the second-level cache.
            self.chunk(&dy[range.clone()], dx.write_copy_of_slice(&x[range]));
        });
    }

    fn chunk<T: Element>(&self, dy: &[T], x: &mut [T]) {
        match self.relu {
            true => input_gradient::<T, true>(dy, x, self),
            false => input_gradient::<T, false>(dy, x, self),
        }
    }
}

multiversion! {
    fn input_gradient<type T: Element, const RELU: bool>(dy: &[T], x: &mut [T], g: &InputGradient) {
        let wide = g.mean.len();
        for (dy, x) in dy.chunks(wide).zip(x.chunks_mut(wide)) {
            for strip in strips(dy.len()) {
                let (dy, x) = (&dy[strip.clone()], &mut x[strip.clone()]);
                prefetch(dy);
                prefetch(x);
                let n = dy.len();
                let x = &mut x[..n];
                let (mean, forward) = (&g.mean[strip.clone()][..n], &g.forward[strip.clone()][..n]);
                let (offset, scale) = (&g.offset[strip.clone()][..n], &g.scale[strip.clone()][..n]);
                let (slope, shift) = (&g.slope[strip.clone()][..n], &g.shift[strip][..n]);
                for i in 0..n {
                    let (d, v) = (dy[i].widen(), x[i].widen());
                    let off = RELU && normalize(v, mean[i], forward[i], offset[i]) <= T::VANISHING;
                    let d = if off { 0.0 } else { d };
                    x[i] = T::narrow(d * scale[i] - shift[i] - (v - mean[i]) * slope[i]);
                }
            }
        }
    }
}
