//! How well clusters are apart, without labels.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::matrix::Matrix;

/// Rows of one product.
const BLOCK: usize = 256;

/// The mean silhouette (Rousseeuw 1987): for each row `(b - a) / max(a, b)`, with `a` the mean Euclidean distance to the other rows of its cluster and `b`
/// that to the rows of the nearest other cluster; 0 for a row that is alone. 1 means tight clusters far apart, 0 overlapping ones, below 0 rows that lie
/// nearer to another cluster.
///
/// `x`: `[M, F]`, one assignment a row. O(M^2 F), in f64: give a sample of large sets. The result does not depend on the number of threads.
///
/// # Errors
/// If numbers differ, a value is not finite, or there are fewer than 2 clusters.
pub fn silhouette(x: &Tensor, assignments: &[u32]) -> Result<f64> {
    let x = Matrix::finite("silhouette", x)?;
    if x.rows != assignments.len() {
        bail!("silhouette: {} rows with {} assignments", x.rows, assignments.len())
    }
    let mut places: BTreeMap<u32, usize> = assignments.iter().map(|cluster| (*cluster, 0)).collect();
    places.values_mut().enumerate().for_each(|(i, place)| *place = i);
    if places.len() < 2 {
        bail!("silhouette: all rows are in one cluster; it needs 2 at least")
    }
    let of: Vec<usize> = assignments.iter().map(|cluster| places[cluster]).collect();
    let mut sizes = vec![0usize; places.len()];
    of.iter().for_each(|place| sizes[*place] += 1);
    let (all, rows) = (x.centered()?, x.rows);
    let squares = all.sqr()?.sum(1)?.to_vec1::<f64>()?;
    let turned = all.t()?;
    let mut total = 0.0;
    for start in (0..rows).step_by(BLOCK) {
        let count = BLOCK.min(rows - start);
        let products = all.narrow(0, start, count)?.matmul(&turned)?.flatten_all()?.to_vec1::<f64>()?;
        let one = |(i, products): (usize, &[f64])| {
            let row = start + i;
            let mut sums = vec![0f64; sizes.len()];
            for (other, product) in products.iter().enumerate().filter(|(other, _)| *other != row) {
                sums[of[other]] += (squares[row] + squares[other] - 2.0 * product).max(0.0).sqrt();
            }
            if sizes[of[row]] == 1 {
                return 0.0;
            }
            let own = sums[of[row]] / (sizes[of[row]] - 1) as f64;
            let others = (0..sizes.len()).filter(|cluster| *cluster != of[row]);
            let near = others.map(|cluster| sums[cluster] / sizes[cluster] as f64).fold(f64::INFINITY, f64::min);
            let most = own.max(near);
            if most > 0.0 { (near - own) / most } else { 0.0 }
        };
        let each: Vec<f64> = products.par_chunks_exact(rows).enumerate().map(one).collect();
        total += each.iter().sum::<f64>();
    }
    Ok(total / rows as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// By hand: 0 and 1 against 4, and a cluster of one row counts 0. For 0: a = 1, b = 4; for 1: a = 1, b = 3.
    #[test]
    fn a_hand_made_case() -> Result<()> {
        let x = Tensor::new(&[[0f32], [1.0], [4.0]], &Device::Cpu)?;
        let expected = (3.0 / 4.0 + 2.0 / 3.0) / 3.0;
        assert!((silhouette(&x, &[7, 7, 2])? - expected).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn wrong_input_is_named() -> Result<()> {
        let x = Tensor::new(&[[0f32], [1.0]], &Device::Cpu)?;
        assert!(silhouette(&x, &[1, 1]).unwrap_err().to_string().contains("one cluster"));
        assert!(silhouette(&x, &[1]).unwrap_err().to_string().contains("2 rows with 1 assignments"));
        Ok(())
    }
}
