//! Mean and variance of each channel in one read, exact to rounding for any mean; slices only.
//!
//! Each block of rows is summed in f32 around its own first row, turned into (count, mean, M2) in f64 and merged by Chan's
//! formula (Chan, Golub, LeVeque 1983). Blocks and the order of merging depend on the shape alone.

use super::cut::{Cut, prefetch, strips};
use crate::dense::Element;
use crate::isa::multiversion;

/// Count, mean and sum of squared deviations of each channel: what ranks tell each other, and what merges exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Rows seen.
    pub count: f64,
    /// `[C]`.
    pub mean: Vec<f64>,
    /// `[C]`: sum over rows of (x - mean)^2.
    pub m2: Vec<f64>,
}

impl Moments {
    /// Of no row at all.
    pub fn new(channels: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; channels], m2: vec![0.0; channels] }
    }

    /// Of each column of `x` `[R, C]`.
    pub(crate) fn of<T: Element>(x: &[T], channels: usize) -> Self {
        let cut = Cut::new(channels);
        let parts = cut.map(x.len(), |start, len| chunk_moments(&x[start..start + len], channels, cut));
        let mut all = Self::new(channels);
        for part in &parts {
            all.merge(part);
        }
        all
    }

    /// Takes in the moments of other rows of the same channels (Chan's parallel update).
    pub fn merge(&mut self, other: &Self) {
        if other.count > 0.0 {
            merge(self.count, &mut self.mean, &mut self.m2, other.count, &other.mean, &other.m2);
            self.count += other.count;
        }
    }

    /// Biased variance: M2 over the number of rows.
    pub fn variance(&self) -> Vec<f64> {
        self.m2.iter().map(|m2| m2 / self.count).collect()
    }
}

fn chunk_moments<T: Element>(chunk: &[T], channels: usize, cut: Cut) -> Moments {
    let mut moments = Moments::new(channels);
    let mut shift = vec![0f32; cut.wide];
    let (mut first, mut second) = (vec![0f32; cut.wide], vec![0f32; cut.wide]);
    let (mut sum, mut square) = (vec![0f64; channels], vec![0f64; channels]);
    for block in chunk.chunks(cut.block()) {
        for (shift, x) in shift.iter_mut().zip(block[..channels].iter().cycle()) {
            *shift = x.widen();
        }
        first.fill(0.0);
        second.fill(0.0);
        sum_block::<T>(block, &shift, &mut first, &mut second);
        sum.fill(0.0);
        square.fill(0.0);
        cut.fold(&first, &mut sum);
        cut.fold(&second, &mut square);
        let count = (block.len() / channels) as f64;
        center(count, &shift, &mut sum, &mut square);
        merge(moments.count, &mut moments.mean, &mut moments.m2, count, &sum, &square);
        moments.count += count;
    }
    moments
}

multiversion! {
    /// Adds the sums of (x - shift) and (x - shift)^2 of a block of wide rows, the last of which may be short.
    fn sum_block<type T: Element>(x: &[T], shift: &[f32], first: &mut [f32], second: &mut [f32]) {
        let wide = shift.len();
        let (first, second) = (&mut first[..wide], &mut second[..wide]);
        let mut quads = x.chunks_exact(4 * wide);
        for quad in &mut quads {
            let (a, rest) = quad.split_at(wide);
            let (b, rest) = rest.split_at(wide);
            let (c, d) = rest.split_at(wide);
            for strip in strips(wide) {
                let (a, b, c, d) = (&a[strip.clone()], &b[strip.clone()], &c[strip.clone()], &d[strip.clone()]);
                for row in [a, b, c, d] {
                    prefetch(row);
                }
                let n = a.len();
                let (b, c, d, shift) = (&b[..n], &c[..n], &d[..n], &shift[strip.clone()][..n]);
                let (first, second) = (&mut first[strip.clone()][..n], &mut second[strip][..n]);
                for i in 0..n {
                    let (a, b) = (a[i].widen() - shift[i], b[i].widen() - shift[i]);
                    let (c, d) = (c[i].widen() - shift[i], d[i].widen() - shift[i]);
                    first[i] += (a + b) + (c + d);
                    second[i] += (a * a + b * b) + (c * c + d * d);
                }
            }
        }
        for row in quads.remainder().chunks(wide) {
            for (i, &v) in row.iter().enumerate() {
                let v = v.widen() - shift[i];
                first[i] += v;
                second[i] += v * v;
            }
        }
    }

    /// Sums of `count` values and of their squares, taken around `shift`, to mean and M2.
    fn center(count: f64, shift: &[f32], sum: &mut [f64], square: &mut [f64]) {
        for ((sum, square), &shift) in sum.iter_mut().zip(square).zip(shift) {
            let m2 = *square - *sum * *sum / count;
            // Rounding may leave less than nothing; a NaN stays.
            *square = if m2 < 0.0 { 0.0 } else { m2 };
            *sum = f64::from(shift) + *sum / count;
        }
    }

    /// Moments of `count` rows and of `more` other rows to those of both.
    fn merge(count: f64, mean: &mut [f64], m2: &mut [f64], more: f64, other_mean: &[f64], other_m2: &[f64]) {
        let total = count + more;
        let (share, cross) = (more / total, count * more / total);
        let others = other_mean.iter().zip(other_m2);
        for ((mean, m2), (&other_mean, &other_m2)) in mean.iter_mut().zip(m2).zip(others) {
            let delta = other_mean - *mean;
            *mean += delta * share;
            *m2 += other_m2 + delta * delta * cross;
        }
    }
}
