//! Statistics over the rows of several ranks.

use candle_core::{Result, bail};

use super::NAME;
use super::cpu::Sums;
use super::statistics::Moments;

/// How batch norm hears of the statistics of other ranks: once in the forward pass (count, mean and M2 of each channel) and once in the
/// backward pass (count and two sums).
///
/// They are gathered and not summed, since Chan's merge of moments stays exact where sums of squares cancel.
pub trait Ranks: Send + Sync {
    /// What every rank gave, in the order of the ranks; the same on each of them.
    ///
    /// # Errors
    /// If a rank is gone.
    fn gather(&self, values: &[f64]) -> Result<Vec<Vec<f64>>>;
}

/// The moments of the rows of all ranks, merged in the order of the ranks.
pub(super) fn merge_ranks(ranks: &dyn Ranks, moments: &[Moments]) -> Result<Vec<Moments>> {
    let mine: Vec<f64> = moments.iter().flat_map(|m| packed(m.count, &m.mean, &m.m2)).collect();
    let mut all: Vec<Moments> = moments.iter().map(|m| Moments::new(m.mean.len())).collect();
    for theirs in gathered(ranks, &mine)? {
        for (all, values) in all.iter_mut().zip(theirs.chunks_exact(mine.len() / moments.len())) {
            let (mean, m2) = values[1..].split_at(all.mean.len());
            all.merge(&Moments { count: values[0], mean: mean.to_vec(), m2: m2.to_vec() });
        }
    }
    Ok(all)
}

/// The sums over the rows of all ranks, added in the order of the ranks.
pub(super) fn sum_ranks(ranks: &dyn Ranks, sums: &[Sums]) -> Result<Vec<Sums>> {
    let mine: Vec<f64> = sums.iter().flat_map(|s| packed(s.count, &s.gamma, &s.beta)).collect();
    let mut total = vec![0f64; mine.len()];
    for theirs in gathered(ranks, &mine)? {
        total.iter_mut().zip(&theirs).for_each(|(total, v)| *total += v);
    }
    let channels = sums[0].gamma.len();
    let parts = total.chunks_exact(1 + 2 * channels);
    Ok(parts
        .map(|v| Sums { count: v[0], gamma: v[1..1 + channels].to_vec(), beta: v[1 + channels..].to_vec() })
        .collect())
}

fn packed(count: f64, first: &[f64], second: &[f64]) -> Vec<f64> {
    [&[count], first, second].concat()
}

fn gathered(ranks: &dyn Ranks, mine: &[f64]) -> Result<Vec<Vec<f64>>> {
    let all = ranks.gather(mine)?;
    if all.is_empty() || all.iter().any(|theirs| theirs.len() != mine.len()) {
        bail!("{NAME}: ranks gathered values of other numbers than {}", mine.len())
    }
    Ok(all)
}
