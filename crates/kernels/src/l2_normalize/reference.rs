//! L2 normalization of rows in plain f64.

/// Each row of `x` `[N, D]` over its norm; a zero row stays zero.
pub(super) fn normalize(x: &[f64], dim: usize) -> Vec<f64> {
    x.chunks(dim)
        .flat_map(|row| {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter().map(move |v| if norm == 0.0 { 0.0 } else { v / norm })
        })
        .collect()
}
