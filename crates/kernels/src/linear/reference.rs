//! Fully connected layer in plain f64.

/// `y[n][o] = sum_i x[n][i] w[o][i] + bias[o]`.
pub(super) fn linear(x: &[f64], w: &[f64], bias: Option<&[f64]>, inputs: usize) -> Vec<f64> {
    x.chunks(inputs)
        .flat_map(|x| {
            w.chunks(inputs)
                .enumerate()
                .map(move |(o, w)| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + bias.map_or(0.0, |b| b[o]))
        })
        .collect()
}
