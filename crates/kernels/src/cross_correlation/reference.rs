//! The Barlow Twins loss in plain f64, as its algorithm box says it.

use crate::check::Array;

/// (invariance, redundancy) of `z1`, `z2`: `[N, D]`; the loss is the first plus lambda times the second.
pub fn barlow_twins(z1: &Array, z2: &Array, eps: f64) -> (f64, f64) {
    let (n, d) = (z1.shape[0], z1.shape[1]);
    let (a, b) = (batch_norm(z1, eps), batch_norm(z2, eps));
    let (mut invariance, mut redundancy) = (0.0, 0.0);
    for i in 0..d {
        for j in 0..d {
            let c = (0..n).map(|row| a[row * d + i] * b[row * d + j]).sum::<f64>() / n as f64;
            if i == j {
                invariance += (c - 1.0).powi(2);
            } else {
                redundancy += c * c;
            }
        }
    }
    (invariance, redundancy)
}

/// Every column at mean 0 and biased variance 1 (up to `eps`).
fn batch_norm(z: &Array, eps: f64) -> Vec<f64> {
    let (n, d) = (z.shape[0], z.shape[1]);
    let mut out = z.data.clone();
    for j in 0..d {
        let column = || z.data.iter().skip(j).step_by(d);
        let mean = column().sum::<f64>() / n as f64;
        let var = column().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        out.iter_mut().skip(j).step_by(d).for_each(|v| *v = (*v - mean) / (var + eps).sqrt());
    }
    out
}
