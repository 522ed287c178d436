//! InfoNCE in plain f64, one logit after the other.

use crate::check::Array;

/// The mean over queries of `-log(exp(q k / t) / sum exp(q k' / t))`, for `q`, `k` `[N, D]` and `queue` `[K, D]`: k' is k
/// and all of the queue (MoCo, arXiv:1911.05722, eq. 1).
pub fn info_nce(q: &Array, k: &Array, queue: &Array, temperature: f64) -> f64 {
    let rows = |x: &Array| x.data.chunks(q.shape[1]).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (q, k, queue) = (rows(q), rows(k), rows(queue));
    let losses = q.iter().zip(&k).map(|(q, k)| {
        let positive = logit(q, k, temperature);
        let others = queue.iter().map(|key| logit(q, key, temperature));
        log_sum_exp(&others.chain([positive]).collect::<Vec<_>>()) - positive
    });
    losses.sum::<f64>() / q.len() as f64
}

/// The same with the positives among the `keys` `[K, D]`, and one key out of each query's sight.
pub fn info_nce_among(q: &Array, keys: &Array, positive: &[u32], excluded: Option<&[u32]>, temperature: f64) -> f64 {
    let d = q.shape[1];
    let losses = q.data.chunks(d).enumerate().map(|(i, q)| {
        let logits: Vec<f64> = keys.data.chunks(d).map(|key| logit(q, key, temperature)).collect();
        let seen = |j: &usize| excluded.is_none_or(|excluded| excluded[i] as usize != *j);
        let visible: Vec<f64> = (0..logits.len()).filter(seen).map(|j| logits[j]).collect();
        log_sum_exp(&visible) - logits[positive[i] as usize]
    });
    losses.sum::<f64>() / q.shape[0] as f64
}

fn logit(q: &[f64], k: &[f64], temperature: f64) -> f64 {
    q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / temperature
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |highest, &v| highest.max(v));
    highest + logits.iter().map(|v| (v - highest).exp()).sum::<f64>().ln()
}
