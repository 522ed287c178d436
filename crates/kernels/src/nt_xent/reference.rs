//! NT-Xent in plain f64, term by term as in SimCLR's equation 1.

use crate::check::Array;

/// The loss of `z1`, `z2`: `[N, D]`.
pub fn nt_xent(z1: &Array, z2: &Array, temperature: f64) -> f64 {
    let (n, d) = (z1.shape[0], z1.shape[1]);
    let rows: Vec<Vec<f64>> = z1.data.chunks(d).chain(z2.data.chunks(d)).map(normalized).collect();
    let logit = |i: usize, j: usize| rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum::<f64>() / temperature;
    let total: f64 = (0..2 * n)
        .map(|i| {
            let others: Vec<f64> = (0..2 * n).filter(|&k| k != i).map(|k| logit(i, k)).collect();
            let max = others.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
            let sum: f64 = others.iter().map(|v| (v - max).exp()).sum();
            max + sum.ln() - logit(i, (i + n) % (2 * n))
        })
        .sum();
    total / (2 * n) as f64
}

fn normalized(row: &[f64]) -> Vec<f64> {
    let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
    row.iter().map(|v| if norm > 0.0 { v / norm } else { 0.0 }).collect()
}
