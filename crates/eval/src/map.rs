//! A 2-d map of features by t-SNE, the same for the same features.

use anyhow::{Context, Result};
use bhtsne::{Neighbor, tSNE};
use candle_core::Tensor;
use diptych_metrics::{nearest, pca};

/// Fewer rows have no neighborhoods to show.
const FEWEST: usize = 8;
/// Neighbors that a row counts as its own, about; a third of the rows where there are few.
const PERPLEXITY: usize = 30;
/// Steps, the first quarter with affinities exaggerated, as usual.
const STEPS: usize = 750;
/// How far the tree of forces may be from exact, as in the paper.
const THETA: f32 = 0.5;
/// Standard deviation of the start along its wider axis.
const START: f64 = 1e-4;

/// A place in the plane for each row of `x` `[M, F]`, so that rows of high cosine similarity lie together: Barnes-Hut t-SNE (van der Maaten
/// 2014, JMLR 15; perplexity 30, angle 0.5) on the L2-normalized rows. Distances between far groups, and the sizes of groups, mean little.
///
/// It starts from the first two principal components and is a function of `x`: there is no random number, and one thread computes it, since with more
/// the order of sums would depend on who is free. `None` for fewer than 8 rows, or where all are the same. The cost grows as
/// M log M, and that of the exact search for neighbors before it as M^2 F.
///
/// # Errors
/// If `x` is not a matrix or a value is not finite.
pub fn tsne(x: &Tensor) -> Result<Option<Vec<[f32; 2]>>> {
    let rows = x.dims2()?.0;
    if rows < FEWEST {
        return Ok(None);
    }
    let perplexity = PERPLEXITY.min((rows - 1) / 3);
    let norm = x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
    let x = x.broadcast_div(&norm)?;
    let start = pca(&x)?.points;
    let spread = (start.iter().map(|p| f64::from(p[0]).powi(2)).sum::<f64>() / rows as f64).sqrt();
    if spread < 1e-6 {
        return Ok(None);
    }
    let start: Vec<f32> = start.as_flattened().iter().map(|v| (f64::from(*v) * START / spread) as f32).collect();
    let wanted = 3 * perplexity;
    let neighbors: Vec<Vec<Neighbor<f32>>> = nearest(&x, &x, wanted + 1)?
        .into_iter()
        .enumerate()
        .map(|(row, found)| {
            // Equal rows may stand before the row itself, or push it out.
            let others = found.into_iter().filter(|(other, _)| *other as usize != row).take(wanted);
            // |a - b|^2 = 2 - 2 cos(a, b) on the sphere.
            let distance = |similarity: f32| (2.0 - 2.0 * similarity).max(0.0).sqrt();
            others.map(|(other, cosine)| Neighbor { index: other as usize, distance: distance(cosine) }).collect()
        })
        .collect();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("a thread for t-SNE can't be started")?;
    let places = one.install(|| {
        // The samples themselves are not looked at: their neighbors are given.
        let samples = vec![(); rows];
        tSNE::<f32, (), 2>::new(&samples)
            .perplexity(perplexity as f32)
            .epochs(STEPS)
            .stop_lying_epoch(STEPS / 4)
            .momentum_switch_epoch(STEPS / 4)
            .initial_embedding(start)
            .barnes_hut_with_neighbors(THETA, &neighbors)
            .embedding()
    });
    Ok(Some(places.as_chunks().0.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use diptych_random::Stream;

    /// `groups` bunches of `each` points in 20 dimensions.
    fn bunches(groups: usize, each: usize, noise: f64) -> Result<Tensor> {
        let mut stream = Stream::keyed(5, &[]);
        let mut normal = move || stream.normal();
        let centers: Vec<f64> = (0..groups * 20).map(|_| normal()).collect();
        let data: Vec<f32> = (0..groups * each * 20)
            .map(|i| (centers[i / (each * 20) * 20 + i % 20] + noise * normal()) as f32)
            .collect();
        Ok(Tensor::from_vec(data, (groups * each, 20), &Device::Cpu)?)
    }

    /// Five groups that two principal components cannot all tell apart: on the map each point's neighbors are of its group.
    #[test]
    fn groups_lie_apart() -> Result<()> {
        let places = tsne(&bunches(5, 60, 0.4)?)?.context("there is a map")?;
        assert_eq!(places.len(), 300);
        let distance = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let own = |i: usize| {
            let others = (0..300).filter(|&j| j != i);
            others.min_by(|&a, &b| distance(places[i], places[a]).total_cmp(&distance(places[i], places[b])))
        };
        let right = (0..300).filter(|&i| own(i).is_some_and(|j| j / 60 == i / 60)).count();
        assert!(right >= 297, "{right} of 300");
        Ok(())
    }

    /// The same input gives the same map, whatever the threads around it.
    #[test]
    fn the_map_is_a_function_of_the_features() -> Result<()> {
        let x = bunches(3, 50, 1.0)?;
        let first = tsne(&x)?;
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            assert!(pool.install(|| tsne(&x))? == first, "{threads} threads");
        }
        Ok(())
    }

    #[test]
    fn odd_sets_have_a_map_or_none() -> Result<()> {
        assert!(tsne(&bunches(1, 7, 1.0)?)?.is_none());
        assert!(tsne(&Tensor::ones((40, 5), candle_core::DType::F32, &Device::Cpu)?)?.is_none());
        // Every row three times over, a row of zeros among them.
        let x = bunches(4, 5, 0.5)?;
        let x = Tensor::cat(&[&x, &x, &x, &x.narrow(0, 0, 1)?.zeros_like()?], 0)?;
        let places = tsne(&x)?.context("there is a map")?;
        assert!(places.len() == 61 && places.iter().flatten().all(|v| v.is_finite()), "{places:?}");
        assert!(tsne(&Tensor::new(&[[1f32, f32::NAN]; 9], &Device::Cpu)?).is_err());
        Ok(())
    }
}
