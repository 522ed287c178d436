//! Batch norm in plain f64, as the paper's algorithm 1 has it (Ioffe and Szegedy 2015), with residual and ReLU after it.

/// Mean and biased variance of each column of `x` `[R, C]`.
pub(super) fn statistics(x: &[f64], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = (x.len() / channels) as f64;
    let column = |c: usize| x.iter().skip(c).step_by(channels);
    let mean: Vec<f64> = (0..channels).map(|c| column(c).sum::<f64>() / rows).collect();
    let var = (0..channels).map(|c| column(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / rows).collect();
    (mean, var)
}

/// `relu?(gamma (x - mean) / sqrt(var + eps) + beta + residual)` with the statistics given.
#[allow(clippy::too_many_arguments)]
pub(super) fn apply(
    x: &[f64],
    gamma: &[f64],
    beta: &[f64],
    residual: Option<&[f64]>,
    mean: &[f64],
    var: &[f64],
    relu: bool,
    eps: f64,
) -> Vec<f64> {
    let channels = gamma.len();
    (0..x.len())
        .map(|i| {
            let c = i % channels;
            let y = gamma[c] * (x[i] - mean[c]) / (var[c] + eps).sqrt() + beta[c] + residual.map_or(0.0, |r| r[i]);
            if relu { y.max(0.0) } else { y }
        })
        .collect()
}

/// The same with the statistics of `x` itself.
pub(super) fn train(
    x: &[f64],
    gamma: &[f64],
    beta: &[f64],
    residual: Option<&[f64]>,
    relu: bool,
    eps: f64,
) -> Vec<f64> {
    let (mean, var) = statistics(x, gamma.len());
    apply(x, gamma, beta, residual, &mean, &var, relu, eps)
}
