//! Batch norm with residual add and ReLU on slices, channels last.
//!
//! Forward: two passes over x (statistics, apply), one over the residual, one write. Backward: two passes over dy, y and x (sums,
//! apply), one write. Nothing is kept between them but mean and 1/std.
//!
//! Statistics are exact to rounding for any mean: each block of rows is summed in f32 around its own first row, turned into
//! (count, mean, M2) in f64 and merged by Chan's formula (Chan, Golub, LeVeque 1983). Blocks and the order of merging depend
//! on the shape alone, so the result is the same for any number of threads.
//!
//! Few channels would make short inner loops, so `[R, C]` is read as `[R / g, g C]` with the per-channel vectors repeated g times.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::isa::multiversion;

/// Floats that one task works on: enough to pay for the task, few enough to stay in the second-level cache.
const CHUNK: usize = 1 << 16;
/// Wide rows that are summed in f32 before the sums move to f64.
const BLOCK: usize = 64;
/// Least width of a wide row.
const WIDTH: usize = 64;

/// How a `[R, C]` array is cut: everything is a function of C, never of the number of threads.
#[derive(Clone, Copy)]
struct Cut {
    channels: usize,
    /// A multiple of `channels`, at least [`WIDTH`].
    wide: usize,
    /// Floats per task, a multiple of `wide`.
    chunk: usize,
}

impl Cut {
    fn new(channels: usize) -> Self {
        let wide = channels * WIDTH.div_ceil(channels);
        Self { channels, wide, chunk: wide * (CHUNK / wide).max(4) }
    }

    fn tile(&self, per_channel: &[f32]) -> Vec<f32> {
        per_channel.iter().copied().cycle().take(self.wide).collect()
    }

    /// Folds a wide vector of sums into one sum per channel.
    fn fold(&self, wide: &[f32], into: &mut [f64]) {
        for lane in wide.chunks_exact(self.channels) {
            for (sum, &v) in into.iter_mut().zip(lane) {
                *sum += f64::from(v);
            }
        }
    }
}

/// Count, mean and sum of squared deviations of each channel.
pub struct Moments {
    /// Rows seen.
    pub count: f64,
    /// `[C]`.
    pub mean: Vec<f64>,
    /// `[C]`: sum over rows of (x - mean)^2.
    pub m2: Vec<f64>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; channels], m2: vec![0.0; channels] }
    }

    /// Chan's parallel update.
    fn merge(&mut self, count: f64, mean: &[f64], m2: &[f64]) {
        let total = self.count + count;
        let (share, cross) = (count / total, self.count * count / total);
        for i in 0..self.mean.len() {
            let delta = mean[i] - self.mean[i];
            self.mean[i] += delta * share;
            self.m2[i] += m2[i] + delta * delta * cross;
        }
        self.count = total;
    }
}

/// Moments of each column of `x` `[R, C]`.
pub fn statistics(x: &[f32], channels: usize) -> Moments {
    let cut = Cut::new(channels);
    let parts: Vec<Moments> = x.par_chunks(cut.chunk).map(|chunk| chunk_moments(chunk, cut)).collect();
    let mut all = Moments::new(channels);
    for part in &parts {
        all.merge(part.count, &part.mean, &part.m2);
    }
    all
}

fn chunk_moments(chunk: &[f32], cut: Cut) -> Moments {
    let c = cut.channels;
    let mut moments = Moments::new(c);
    let (mut first, mut second) = (vec![0f32; cut.wide], vec![0f32; cut.wide]);
    let (mut sum, mut square) = (vec![0f64; c], vec![0f64; c]);
    for block in chunk.chunks(cut.wide * BLOCK) {
        let shift = cut.tile(&block[..c]);
        first.fill(0.0);
        second.fill(0.0);
        sum_block(block, &shift, &mut first, &mut second);
        sum.fill(0.0);
        square.fill(0.0);
        cut.fold(&first, &mut sum);
        cut.fold(&second, &mut square);
        let count = (block.len() / c) as f64;
        for i in 0..c {
            square[i] = (square[i] - sum[i] * sum[i] / count).max(0.0);
            sum[i] = f64::from(shift[i]) + sum[i] / count;
        }
        moments.merge(count, &sum, &square);
    }
    moments
}

multiversion! {
    /// Adds the sums of (x - shift) and (x - shift)^2 of a block of wide rows, the last of which may be short.
    fn sum_block(x: &[f32], shift: &[f32], first: &mut [f32], second: &mut [f32]) {
        let wide = shift.len();
        let (first, second) = (&mut first[..wide], &mut second[..wide]);
        let mut quads = x.chunks_exact(4 * wide);
        for quad in &mut quads {
            let (a, rest) = quad.split_at(wide);
            let (b, rest) = rest.split_at(wide);
            let (c, d) = rest.split_at(wide);
            let d = &d[..wide];
            for i in 0..wide {
                let (a, b, c, d) = (a[i] - shift[i], b[i] - shift[i], c[i] - shift[i], d[i] - shift[i]);
                first[i] += (a + b) + (c + d);
                second[i] += (a * a + b * b) + (c * c + d * d);
            }
        }
        for row in quads.remainder().chunks(wide) {
            for (i, &v) in row.iter().enumerate() {
                let v = v - shift[i];
                first[i] += v;
                second[i] += v * v;
            }
        }
    }
}

/// What the forward pass leaves to the backward pass, per channel.
pub struct Saved {
    /// Mean rounded to f32; `low` is what rounding lost.
    pub mean: Vec<f32>,
    low: Vec<f64>,
    invstd: Vec<f64>,
}

impl Saved {
    /// From mean and biased variance `[C]`.
    pub fn new(mean: &[f64], var: &[f64], eps: f64) -> Self {
        let rounded: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
        let low = mean.iter().zip(&rounded).map(|(&m, &r)| m - f64::from(r)).collect();
        Self { mean: rounded, low, invstd: var.iter().map(|&v| 1.0 / (v + eps).sqrt()).collect() }
    }
}

/// `y = gamma (x - mean) / std + beta (+ residual)`, then ReLU if asked. `x`, `residual`: `[R, C]`.
pub fn apply(x: &[f32], gamma: &[f32], beta: &[f32], residual: Option<&[f32]>, relu: bool, saved: &Saved) -> Vec<f32> {
    let cut = Cut::new(gamma.len());
    let scale: Vec<f32> = gamma.iter().zip(&saved.invstd).map(|(&g, &s)| (f64::from(g) * s) as f32).collect();
    // x - mean is taken with the rounded mean, exactly or nearly so; the rest of the mean goes into the offset.
    let offset: Vec<f32> = (0..beta.len())
        .map(|i| (f64::from(beta[i]) - saved.low[i] * f64::from(gamma[i]) * saved.invstd[i]) as f32)
        .collect();
    let (mean, scale, offset) = (cut.tile(&saved.mean), cut.tile(&scale), cut.tile(&offset));
    write(x.len(), cut.chunk, |i, out| {
        let range = i * cut.chunk..i * cut.chunk + out.len();
        let x = &x[range.clone()];
        match (residual.map(|r| &r[range]), relu) {
            (None, false) => apply_chunk::<false, false>(x, x, &mean, &scale, &offset, out),
            (None, true) => apply_chunk::<false, true>(x, x, &mean, &scale, &offset, out),
            (Some(r), false) => apply_chunk::<true, false>(x, r, &mean, &scale, &offset, out),
            (Some(r), true) => apply_chunk::<true, true>(x, r, &mean, &scale, &offset, out),
        }
    })
}

multiversion! {
    fn apply_chunk<const RESIDUAL: bool, const RELU: bool>(
        x: &[f32], residual: &[f32], mean: &[f32], scale: &[f32], offset: &[f32], out: &mut [MaybeUninit<f32>],
    ) {
        let wide = mean.len();
        for ((x, residual), out) in x.chunks(wide).zip(residual.chunks(wide)).zip(out.chunks_mut(wide)) {
            let n = x.len();
            let (residual, out) = (&residual[..n], &mut out[..n]);
            let (mean, scale, offset) = (&mean[..n], &scale[..n], &offset[..n]);
            for i in 0..n {
                let mut y = (x[i] - mean[i]) * scale[i] + offset[i];
                if RESIDUAL {
                    y += residual[i];
                }
                // A NaN stays a NaN.
                out[i].write(if RELU && y <= 0.0 { 0.0 } else { y });
            }
        }
    }
}

/// Gradients of gamma and beta, and what [`backward_apply`] needs.
pub struct Sums {
    /// `[C]`.
    pub gamma: Vec<f64>,
    /// `[C]`.
    pub beta: Vec<f64>,
}

/// Sums over rows of dy' and dy' x_hat, where dy' is dy through the ReLU (masked by `y` if given).
pub fn backward_sums(dy: &[f32], y: Option<&[f32]>, x: &[f32], saved: &Saved) -> Sums {
    let c = saved.mean.len();
    let cut = Cut::new(c);
    let mean = cut.tile(&saved.mean);
    let parts: Vec<(Vec<f64>, Vec<f64>)> = dy
        .par_chunks(cut.chunk)
        .enumerate()
        .map(|(i, dy)| {
            let range = i * cut.chunk..i * cut.chunk + dy.len();
            let (x, y) = (&x[range.clone()], y.map(|y| &y[range]));
            let (mut first, mut second) = (vec![0f32; cut.wide], vec![0f32; cut.wide]);
            let (mut beta, mut gamma) = (vec![0f64; c], vec![0f64; c]);
            let block = cut.wide * BLOCK;
            for start in (0..dy.len()).step_by(block) {
                let range = start..dy.len().min(start + block);
                first.fill(0.0);
                second.fill(0.0);
                let (dy, x) = (&dy[range.clone()], &x[range.clone()]);
                match y {
                    Some(y) => sum_gradients::<true>(dy, &y[range], x, &mean, &mut first, &mut second),
                    None => sum_gradients::<false>(dy, dy, x, &mean, &mut first, &mut second),
                }
                cut.fold(&first, &mut beta);
                cut.fold(&second, &mut gamma);
            }
            (beta, gamma)
        })
        .collect();
    let (mut beta, mut gamma) = (vec![0f64; c], vec![0f64; c]);
    for (b, g) in &parts {
        beta.iter_mut().zip(b).for_each(|(sum, v)| *sum += v);
        gamma.iter_mut().zip(g).for_each(|(sum, v)| *sum += v);
    }
    for i in 0..c {
        gamma[i] = (gamma[i] - saved.low[i] * beta[i]) * saved.invstd[i];
    }
    Sums { gamma, beta }
}

multiversion! {
    /// Adds the sums of dy' and dy' (x - mean) of a block of wide rows.
    fn sum_gradients<const RELU: bool>(
        dy: &[f32], y: &[f32], x: &[f32], mean: &[f32], first: &mut [f32], second: &mut [f32],
    ) {
        let wide = mean.len();
        for ((dy, y), x) in dy.chunks(wide).zip(y.chunks(wide)).zip(x.chunks(wide)) {
            let n = dy.len();
            let (y, x, mean) = (&y[..n], &x[..n], &mean[..n]);
            let (first, second) = (&mut first[..n], &mut second[..n]);
            for i in 0..n {
                let g = if RELU && y[i] <= 0.0 { 0.0 } else { dy[i] };
                first[i] += g;
                second[i] += g * (x[i] - mean[i]);
            }
        }
    }
}

/// Gradient of x `[R, C]`. `sums` is None where mean and variance are constants (evaluation mode).
pub fn backward_apply(
    dy: &[f32],
    y: Option<&[f32]>,
    x: &[f32],
    gamma: &[f32],
    saved: &Saved,
    sums: Option<&Sums>,
) -> Vec<f32> {
    let c = gamma.len();
    let cut = Cut::new(c);
    let rows = (x.len() / c) as f64;
    // dx = scale dy' - offset - slope (x - mean), with everything that is per channel put together in f64.
    let (mut scale, mut slope, mut offset) = (vec![0f32; c], vec![0f32; c], vec![0f32; c]);
    for i in 0..c {
        let s = f64::from(gamma[i]) * saved.invstd[i];
        scale[i] = s as f32;
        if let Some(sums) = sums {
            let b = s * saved.invstd[i] * sums.gamma[i] / rows;
            slope[i] = b as f32;
            offset[i] = (s * sums.beta[i] / rows - saved.low[i] * b) as f32;
        }
    }
    let (mean, scale) = (cut.tile(&saved.mean), cut.tile(&scale));
    let (slope, offset) = (cut.tile(&slope), cut.tile(&offset));
    write(x.len(), cut.chunk, |i, out| {
        let range = i * cut.chunk..i * cut.chunk + out.len();
        let (dy, x) = (&dy[range.clone()], &x[range.clone()]);
        match y.map(|y| &y[range]) {
            Some(y) => input_gradient::<true>(dy, y, x, &mean, &scale, &slope, &offset, out),
            None => input_gradient::<false>(dy, dy, x, &mean, &scale, &slope, &offset, out),
        }
    })
}

multiversion! {
    #[allow(clippy::too_many_arguments)]
    fn input_gradient<const RELU: bool>(
        dy: &[f32], y: &[f32], x: &[f32], mean: &[f32], scale: &[f32], slope: &[f32], offset: &[f32],
        out: &mut [MaybeUninit<f32>],
    ) {
        let wide = mean.len();
        for (((dy, y), x), out) in dy.chunks(wide).zip(y.chunks(wide)).zip(x.chunks(wide)).zip(out.chunks_mut(wide)) {
            let n = dy.len();
            let (y, x, out) = (&y[..n], &x[..n], &mut out[..n]);
            let (mean, scale, slope, offset) = (&mean[..n], &scale[..n], &slope[..n], &offset[..n]);
            for i in 0..n {
                let g = if RELU && y[i] <= 0.0 { 0.0 } else { dy[i] };
                out[i].write(g * scale[i] - offset[i] - (x[i] - mean[i]) * slope[i]);
            }
        }
    }
}

/// dy through the ReLU: dy where y > 0, else 0 (a NaN in y lets it pass, as in PyTorch).
pub fn relu_gradient(dy: &[f32], y: &[f32]) -> Vec<f32> {
    write(dy.len(), CHUNK, |i, out| {
        let range = i * CHUNK..i * CHUNK + out.len();
        mask(&dy[range.clone()], &y[range], out);
    })
}

multiversion! {
    fn mask(dy: &[f32], y: &[f32], out: &mut [MaybeUninit<f32>]) {
        for ((&dy, &y), out) in dy.iter().zip(y).zip(out) {
            out.write(if y <= 0.0 { 0.0 } else { dy });
        }
    }
}

/// A new vector of `len` floats, filled in parallel by chunks without being zeroed first.
///
/// `fill(i, out)` must write every element of chunk i.
fn write(len: usize, chunk: usize, fill: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    out.spare_capacity_mut()[..len].par_chunks_mut(chunk).enumerate().for_each(|(i, part)| fill(i, part));
    // SAFETY: the chunks cover 0..len and every caller's `fill` writes all of its chunk.
    unsafe { out.set_len(len) };
    out
}
