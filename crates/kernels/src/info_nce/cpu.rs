//! The loops of InfoNCE: tiles of logits are made, used and forgotten.
//!
//! Forward: each row's logits as a running maximum and sum of exponentials; kept are a log-sum-exp and the positive's logit per row.
//! Backward: the tiles again, turned into probabilities, times the keys for the gradient of the queries, and once more, by columns,
//! times the queries where the keys have one. 2 N K D flops forward, 4 N K D for each gradient; memory O((N + K) D).
//!
//! A task takes a block of rows against a part of the columns; how many parts there are follows the shapes, and parts are
//! added in order, so the result is the same for any thread count.

use rayon::prelude::*;

use crate::matmul::{View, matmul};
use crate::softmax::{accumulate, softmax_columns, softmax_rows};

/// Rows and columns of a tile.
const EDGE: usize = 256;
/// Tasks to aim for, where there are few rows.
const TASKS: usize = 16;

/// Queries against keys.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// `[N, D]`.
    pub(super) q: &'a [f32],
    /// `[K, D]`.
    pub(super) keys: &'a [f32],
    pub(super) d: usize,
    pub(super) temperature: f64,
    pub(super) positive: Positive<'a>,
    /// A key that each query does not see.
    pub(super) excluded: Option<&'a [u32]>,
}

/// Where a query's positive is.
#[derive(Clone, Copy)]
pub(super) enum Positive<'a> {
    /// Row i of these `[N, D]`, beside the keys.
    Beside(&'a [f32]),
    /// Among the keys.
    Among(&'a [u32]),
}

/// What the backward pass needs.
pub(super) struct Saved {
    /// `[N]`: log of the sum of exponentials of each query's logits.
    lse: Vec<f32>,
    /// `[N]`: the probability of each query's positive, where it lies beside the keys.
    beside: Vec<f64>,
}

/// The loss, and what its gradient needs.
pub(super) fn forward(rows: &Rows) -> (f32, Saved) {
    let Rows { q, keys, d, .. } = *rows;
    let positives: Vec<f64> = q.par_chunks(d).enumerate().map(|(i, q)| rows.logit(q, rows.positive_of(i))).collect();
    let parts = in_parts([q, keys], d, |i, count, columns| {
        let (mut maxima, mut sums) = (vec![f32::NEG_INFINITY; count], vec![0f64; count]);
        for (start, width) in tiles(columns) {
            let mut tile = rows.logits([q, keys], [i, count, start, width]);
            rows.for_each_excluded([i, count, start, width], |row, column| tile[row * width + column] = f32::MIN);
            accumulate(&tile, width, &mut maxima, &mut sums);
        }
        maxima.into_iter().zip(sums).collect()
    });
    let beside = matches!(rows.positive, Positive::Beside(_));
    let (mut lse, mut of_positive, mut loss) = (Vec::new(), Vec::new(), 0.0);
    for part in parts {
        for row in 0..part[0].len() {
            let positive = positives[lse.len()];
            let own = beside.then_some((positive, 1.0));
            let terms = || part.iter().map(|part| (f64::from(part[row].0), part[row].1)).chain(own);
            let highest = terms().fold(f64::NEG_INFINITY, |highest, (maximum, _)| highest.max(maximum));
            let of_row = highest + terms().map(|(maximum, sum)| sum * (maximum - highest).exp()).sum::<f64>().ln();
            loss += of_row - positive;
            of_positive.push((positive - of_row).exp());
            lse.push(of_row as f32);
        }
    }
    let n = lse.len() as f64;
    ((loss / n) as f32, Saved { lse, beside: if beside { of_positive } else { Vec::new() } })
}

/// The gradient for the queries of `upstream` times the loss, `[N, D]`.
pub(super) fn query_gradient(rows: &Rows, saved: &Saved, upstream: f64) -> Vec<f32> {
    let Rows { q, keys, d, .. } = *rows;
    let mut gradient = weighted(rows, [q, keys], |[i, count, start, width], tile| {
        softmax_rows(tile, width, &saved.lse[i..i + count]);
        rows.for_each_excluded([i, count, start, width], |row, column| tile[row * width + column] = 0.0);
    });
    let factor = rows.factor(upstream);
    gradient.par_chunks_mut(d).enumerate().for_each(|(i, g)| {
        let of_positive = saved.beside.get(i).unwrap_or(&0.0) - 1.0;
        for (g, &k) in g.iter_mut().zip(rows.positive_of(i)) {
            *g = ((f64::from(*g) + of_positive * f64::from(k)) * factor) as f32;
        }
    });
    gradient
}

/// The gradient for positives beside the keys, `[N, D]`.
pub(super) fn positive_gradient(rows: &Rows, saved: &Saved, upstream: f64) -> Vec<f32> {
    let factor = rows.factor(upstream);
    let mut gradient = rows.q.to_vec();
    for (row, p) in gradient.chunks_mut(rows.d).zip(&saved.beside) {
        row.iter_mut().for_each(|v| *v = (f64::from(*v) * (p - 1.0) * factor) as f32);
    }
    gradient
}

/// The gradient for the keys, `[K, D]`.
pub(super) fn key_gradient(rows: &Rows, saved: &Saved, upstream: f64) -> Vec<f32> {
    let Rows { q, keys, d, .. } = *rows;
    let mut gradient = weighted(rows, [keys, q], |[i, count, start, width], tile| {
        softmax_columns(tile, &saved.lse[start..start + width]);
        rows.for_each_excluded([start, width, i, count], |row, column| tile[column * width + row] = 0.0);
    });
    if let Positive::Among(positive) = rows.positive {
        for (q, &k) in q.chunks(d).zip(positive) {
            gradient[k as usize * d..][..d].iter_mut().zip(q).for_each(|(g, q)| *g -= q);
        }
    }
    let factor = rows.factor(upstream) as f32;
    gradient.iter_mut().for_each(|v| *v *= factor);
    gradient
}

impl Rows<'_> {
    fn factor(&self, upstream: f64) -> f64 {
        upstream * self.d as f64 / (self.q.len() as f64 * self.temperature)
    }

    fn positive_of(&self, i: usize) -> &[f32] {
        match self.positive {
            Positive::Beside(k) => &k[i * self.d..][..self.d],
            Positive::Among(positive) => &self.keys[positive[i] as usize * self.d..][..self.d],
        }
    }

    fn logit(&self, q: &[f32], k: &[f32]) -> f64 {
        q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() / self.temperature
    }

    /// `[count, width]`: rows `i..` of a against rows `start..` of b.
    fn logits(&self, [a, b]: [&[f32]; 2], [i, count, start, width]: [usize; 4]) -> Vec<f32> {
        let mut tile = vec![0f32; count * width];
        let (a, b) = (View::rows(&a[i * self.d..], self.d), View::rows(&b[start * self.d..], self.d));
        matmul(&mut tile, width, false, (1.0 / self.temperature) as f32, a, b.t(), [count, width, self.d]);
        tile
    }

    /// Where a tile of queries `i..` and keys `start..` holds a key that its query does not see.
    fn for_each_excluded(&self, [i, count, start, width]: [usize; 4], mut each: impl FnMut(usize, usize)) {
        let Some(excluded) = self.excluded else { return };
        for (row, &key) in excluded[i..i + count].iter().enumerate() {
            if let Some(column) = (key as usize).checked_sub(start).filter(|&column| column < width) {
                each(row, column);
            }
        }
    }
}

/// `sum_j W_ij b_j` for each row of a, `weigh` turning tiles `[i, count, start, width]` of logits into W.
fn weighted(rows: &Rows, [a, b]: [&[f32]; 2], weigh: impl Fn([usize; 4], &mut [f32]) + Sync) -> Vec<f32> {
    let d = rows.d;
    let parts = in_parts([a, b], d, |i, count, columns| {
        let mut out = vec![0f32; count * d];
        for (start, width) in tiles(columns) {
            let mut tile = rows.logits([a, b], [i, count, start, width]);
            weigh([i, count, start, width], &mut tile);
            matmul(&mut out, d, true, 1.0, View::rows(&tile, width), View::rows(&b[start * d..], d), [count, d, width]);
        }
        out
    });
    let mut all = Vec::with_capacity(a.len());
    for mut part in parts {
        let mut sum = std::mem::take(&mut part[0]);
        for next in &part[1..] {
            sum.iter_mut().zip(next).for_each(|(sum, v)| *sum += v);
        }
        all.append(&mut sum);
    }
    all
}

/// Runs `task(i, count, columns)` for rows `i..i + count` of a and parts of b's rows: for each block of rows what its parts
/// gave, in order.
fn in_parts<T: Send>(
    [a, b]: [&[f32]; 2],
    d: usize,
    task: impl Fn(usize, usize, std::ops::Range<usize>) -> Vec<T> + Sync,
) -> Vec<Vec<Vec<T>>> {
    let (n, m) = (a.len() / d, b.len() / d);
    let blocks = n.div_ceil(EDGE);
    let parts = (TASKS / blocks).clamp(1, m.div_ceil(EDGE));
    let part = m.div_ceil(EDGE).div_ceil(parts) * EDGE;
    let tasks: Vec<_> =
        (0..n).step_by(EDGE).flat_map(|i| (0..m).step_by(part).map(move |j| (i, j..m.min(j + part)))).collect();
    let mut done: std::collections::VecDeque<Vec<T>> =
        tasks.into_par_iter().map(|(i, columns)| task(i, EDGE.min(n - i), columns)).collect();
    let of_block = m.div_ceil(part);
    (0..blocks).map(|_| done.drain(..of_block).collect()).collect()
}

/// The tiles of some columns: start and width.
fn tiles(columns: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = columns.end;
    columns.step_by(EDGE).map(move |start| (start, EDGE.min(end - start)))
}
