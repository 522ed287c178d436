//! Views of several sizes: who is compared with whom.
//!
//! Multi-crop (SwAV, Caron et al. 2020, arXiv:2006.09882, section 3.2) adds small, local crops to the global ones. Only global views are
//! targets: what a small part of an image shows is told from the whole, not the other way round.

use candle_core::{Result, bail};
use diptych_losses::Loss;
use diptych_nn::Views;

/// How many views are global: those from the first on that have its size.
pub(crate) fn global(views: &Views) -> usize {
    views.0.iter().take_while(|view| view.dims() == views.0[0].dims()).count()
}

/// Checks that there are two global views at least.
pub(crate) fn check(views: &Views) -> Result<usize> {
    match (views.0.len(), if views.0.is_empty() { 0 } else { global(views) }) {
        (count, 0 | 1) => bail!(
            "this method takes 2 views of each image of the same size, or more with the large ones first; the recipe's \
             augment.views makes {count}, of which {} have the size of the first",
            count.min(1)
        ),
        (_, global) => Ok(global),
    }
}

/// All (view, target) with a global target that is another view.
pub(crate) fn ordered(views: usize, global: usize) -> Vec<(usize, usize)> {
    (0..global)
        .flat_map(|target| (0..views).filter(move |&view| view != target).map(move |view| (view, target)))
        .collect()
}

/// All pairs of different views of which the first is global, each once.
pub(crate) fn unordered(views: usize, global: usize) -> Vec<(usize, usize)> {
    (0..global).flat_map(|first| (first + 1..views).map(move |second| (first, second))).collect()
}

/// `scale` times the mean of losses with the same parts; the parts' own mean is not scaled.
pub(crate) fn mean(losses: &[Loss], scale: f64) -> Result<Loss> {
    let [first, rest @ ..] = losses else { bail!("there is no pair of views to compare") };
    let count = losses.len() as f64;
    let (mut total, mut parts) = (first.total.clone(), first.parts.clone());
    for loss in rest {
        total = (total + &loss.total)?;
        for (sum, (_, part)) in parts.iter_mut().zip(&loss.parts) {
            sum.1 = (&sum.1 + part)?;
        }
    }
    if !rest.is_empty() {
        for (_, sum) in &mut parts {
            *sum = (&*sum / count)?;
        }
    }
    if scale != count {
        total = (total * (scale / count))?;
    }
    Ok(Loss { total, parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_views_are_no_targets() {
        assert_eq!(ordered(2, 2), [(1, 0), (0, 1)]);
        assert_eq!(ordered(3, 2), [(1, 0), (2, 0), (0, 1), (2, 1)]);
        assert_eq!(unordered(2, 2), [(0, 1)]);
        assert_eq!(unordered(4, 2), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }
}
