//! Spherical k-means: clusters by direction.

use candle_core::{Result, Tensor, bail};
use diptych_random::Stream;

/// Centers and assignments of a clustering.
#[derive(Clone, Debug)]
pub struct Clusters {
    /// `[K, F]` f32; of [`spherical_kmeans`], each at length 1.
    pub centers: Tensor,
    /// Each row's center.
    pub assignments: Vec<u32>,
}

/// Rows per product with the centers.
const BLOCK: usize = 4096;

/// Clusters the rows of `x` `[M, F]`, at length 1, by cosine similarity (Dhillon and Modha 2001), as DeepCluster-v2 does (arXiv:2006.09882, appendix).
///
/// It begins with K different rows drawn from `stream`; `iterations` times each row goes to its nearest center (the lower index among equal
/// ones), and each center to the mean direction of its rows. A center without rows stays where it is.
///
/// # Errors
/// If the shape is not `[M, F]`, or K is 0 or more than M.
pub fn spherical_kmeans(x: &Tensor, k: usize, iterations: usize, stream: &mut Stream) -> Result<Clusters> {
    let (rows, width) = x.dims2()?;
    if k == 0 || k > rows {
        bail!("k-means: {k} clusters of {rows} rows; there can be 1 to {rows}")
    }
    let x = x.detach().contiguous()?;
    let start: Vec<u32> = stream.permutation(rows).into_iter().take(k).map(|row| row as u32).collect();
    let mut centers = x.index_select(&Tensor::from_vec(start, k, x.device())?, 0)?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    for _ in 0..iterations {
        let assignments = nearest(&x, &centers)?;
        let mut sums = vec![0f64; k * width];
        for (row, &center) in values.chunks_exact(width).zip(&assignments) {
            let sum = &mut sums[center as usize * width..][..width];
            sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        let mut next = centers.flatten_all()?.to_vec1::<f32>()?;
        for (next, sum) in next.chunks_exact_mut(width).zip(sums.chunks_exact(width)) {
            let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            if norm > 0.0 {
                next.iter_mut().zip(sum).for_each(|(next, v)| *next = (v / norm) as f32);
            }
        }
        centers = Tensor::from_vec(next, (k, width), x.device())?;
    }
    Ok(Clusters { assignments: nearest(&x, &centers)?, centers })
}

fn nearest(x: &Tensor, centers: &Tensor) -> Result<Vec<u32>> {
    let (rows, turned) = (x.dim(0)?, centers.t()?);
    let mut assignments = Vec::with_capacity(rows);
    for first in (0..rows).step_by(BLOCK) {
        let similarity = x.narrow(0, first, BLOCK.min(rows - first))?.matmul(&turned)?;
        assignments.extend(similarity.argmax(1)?.to_vec1::<u32>()?);
    }
    Ok(assignments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Three bundles of directions are found, whichever rows it begins with, but for a start with two in one bundle.
    #[test]
    fn bundles_are_found() -> Result<()> {
        let mut rows = Vec::new();
        for i in 0..60 {
            let mut row = [0.02 * (i % 7) as f32, 0.015 * (i % 5) as f32, 0.01 * (i % 11) as f32];
            row[i % 3] = 1.0;
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            rows.extend(row.map(|v| v / norm));
        }
        let x = Tensor::from_vec(rows, (60, 3), &Device::Cpu)?;
        let found = (0..10).any(|seed| {
            let clusters = spherical_kmeans(&x, 3, 10, &mut Stream::keyed(seed, &[])).unwrap();
            (0..60).all(|i| clusters.assignments[i] == clusters.assignments[i % 3])
                && clusters.assignments[0] != clusters.assignments[1]
                && clusters.assignments[1] != clusters.assignments[2]
                && clusters.assignments[0] != clusters.assignments[2]
        });
        assert!(found);
        Ok(())
    }

    #[test]
    fn more_clusters_than_rows_are_refused() -> Result<()> {
        let x = Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu)?;
        let error = spherical_kmeans(&x, 3, 1, &mut Stream::keyed(0, &[])).unwrap_err().to_string();
        assert!(error.contains("3 clusters of 2 rows"), "{error}");
        Ok(())
    }
}
