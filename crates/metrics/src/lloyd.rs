//! k-means by Lloyd's iterations from k-means++ starts, all starts at once.

use candle_core::{Device, Result, Tensor, bail};
use diptych_kernels::linear::cpu::{Extents, forward};
use diptych_random::Stream;
use rayon::prelude::*;

use crate::kmeans::Clusters;
use crate::matrix::Matrix;

/// Rows of one product with the centers.
const BLOCK: usize = 4096;

/// What [`kmeans`] found.
#[derive(Clone, Debug)]
pub struct KMeans {
    /// Centers `[K, F]` (means of their rows) and each row's center.
    pub clusters: Clusters,
    /// The sum over rows of the squared distance to their center.
    pub inertia: f64,
    /// How often centers were moved.
    pub iterations: usize,
}

/// k-means of the rows of `x` `[M, F]` as they are, by Euclidean distance (Lloyd 1982): the best, by inertia, of `restarts` starts.
///
/// Each start takes rows as centers by k-means++ (Arthur and Vassilvitskii 2007): the next with probability proportional to the squared distance to the
/// nearest so far. Then rows go to their nearest center (the lower one of equals) and centers to the mean of their rows until no row changes, or
/// `iterations` times. A center without rows goes to the row that is farthest from its own. Deterministic for a `seed`; the starts share every pass.
///
/// # Errors
/// If x is not a matrix or a value is not finite, K is 0 or more than M, or there is no start.
///
/// ```
/// use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::new(&[[0f32, 0.0], [9.0, 9.0], [0.0, 1.0], [9.0, 8.0]], &Device::Cpu)?;
/// let found = diptych_metrics::kmeans(&x, 2, 3, 100, 0)?;
/// let of = found.clusters.assignments;
/// assert!(of[0] == of[2] && of[1] == of[3] && of[0] != of[1]);
/// assert_eq!(found.inertia, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn kmeans(x: &Tensor, k: usize, restarts: usize, iterations: usize, seed: u64) -> Result<KMeans> {
    let data = Data::new(x)?;
    if k == 0 || k > data.x.rows {
        bail!("k-means: {k} clusters of {} rows; there can be 1 to {}", data.x.rows, data.x.rows)
    }
    if restarts == 0 {
        bail!("k-means: 0 starts; there must be 1 at least")
    }
    let starts = data.plus_plus(k, restarts, seed);
    data.lloyd(starts, iterations)
}

/// [`kmeans`] from the given `centers` `[K, F]`.
///
/// # Errors
/// As [`kmeans`], and if the widths differ.
pub fn kmeans_from(x: &Tensor, centers: &Tensor, iterations: usize) -> Result<KMeans> {
    let (data, centers) = (Data::new(x)?, Matrix::finite("k-means: the centers", centers)?);
    if centers.cols != data.x.cols || centers.rows > data.x.rows {
        bail!(
            "k-means: centers of shape [{}, {}] for rows [{}, {}]",
            centers.rows,
            centers.cols,
            data.x.rows,
            data.x.cols
        )
    }
    let start =
        centers.iter().flat_map(|row| row.iter().zip(&data.mean).map(|(v, mean)| f64::from(*v) - mean)).collect();
    data.lloyd(vec![start], iterations)
}

/// Rows around their mean: squares of distances lose nothing to a common offset.
struct Data {
    x: Matrix,
    mean: Vec<f64>,
    /// Each row's squared length.
    squares: Vec<f64>,
}

/// Each row's center and squared distance to it.
type Assigned = (Vec<u32>, Vec<f64>);

impl Data {
    fn new(x: &Tensor) -> Result<Self> {
        let mut x = Matrix::finite("k-means", x)?;
        let mean = x.mean();
        for row in x.data.chunks_exact_mut(x.cols) {
            row.iter_mut().zip(&mean).for_each(|(v, mean)| *v = (f64::from(*v) - mean) as f32);
        }
        let squares = x.iter().map(|row| row.iter().map(|v| f64::from(*v).powi(2)).sum()).collect();
        Ok(Self { x, mean, squares })
    }

    /// Calls `see(products, row)` for every row in parallel, with its products with the rows of `w` `[outputs, F]`; the results in order.
    fn products<T: Send>(&self, w: &[f32], see: impl Fn(&[f32], usize) -> T + Sync) -> Vec<T> {
        let (cols, outputs) = (self.x.cols, w.len() / self.x.cols);
        let mut all = Vec::with_capacity(self.x.rows);
        for (block, rows) in self.x.data.chunks(BLOCK * cols).enumerate() {
            let extents = Extents { rows: rows.len() / cols, inputs: cols, outputs };
            let products = forward(rows, w, None, extents);
            let each = products.par_chunks_exact(outputs).enumerate();
            all.par_extend(each.map(|(i, products)| see(products, block * BLOCK + i)));
        }
        all
    }

    /// `k` rows for each start.
    fn plus_plus(&self, k: usize, restarts: usize, seed: u64) -> Vec<Vec<f64>> {
        let (rows, cols) = (self.x.rows, self.x.cols);
        let mut streams: Vec<Stream> = (0..restarts).map(|run| Stream::named(seed, &format!("kmeans.{run}"))).collect();
        let mut chosen: Vec<Vec<usize>> =
            streams.iter_mut().map(|stream| vec![stream.below(rows as u64) as usize]).collect();
        let mut distances = vec![f64::INFINITY; rows * restarts];
        while chosen[0].len() < k {
            let last: Vec<usize> = chosen.iter().map(|chosen| chosen[chosen.len() - 1]).collect();
            let w: Vec<f32> = last.iter().flat_map(|&row| self.x.data[row * cols..][..cols].iter().copied()).collect();
            let to_last = self.products(&w, |products, row| {
                let distance = |(run, product): (usize, &f32)| match last[run] == row {
                    true => 0.0,
                    false => (self.squares[row] + self.squares[last[run]] - 2.0 * f64::from(*product)).max(0.0),
                };
                products.iter().enumerate().map(distance).collect::<Vec<f64>>()
            });
            for (run, chosen) in chosen.iter_mut().enumerate() {
                let distances = &mut distances[run * rows..][..rows];
                distances.iter_mut().zip(&to_last).for_each(|(least, new)| *least = least.min(new[run]));
                chosen.push(draw(distances, &mut streams[run]));
            }
        }
        let center = |&row: &usize| self.x.data[row * cols..][..cols].iter().map(|v| f64::from(*v));
        chosen.iter().map(|chosen| chosen.iter().flat_map(center).collect()).collect()
    }

    /// The nearest center of each row, for each run's centers.
    fn assign(&self, runs: &[&[f64]]) -> Vec<Assigned> {
        let cols = self.x.cols;
        let k = runs[0].len() / cols;
        let w: Vec<f32> = runs.iter().flat_map(|centers| centers.iter().map(|v| *v as f32)).collect();
        let squares: Vec<f64> = w.chunks_exact(cols).map(|c| c.iter().map(|v| f64::from(*v).powi(2)).sum()).collect();
        let found = self.products(&w, |products, row| {
            let nearest = |(products, squares): (&[f32], &[f64])| {
                let mut best = (0u32, f64::INFINITY);
                for (center, (product, square)) in products.iter().zip(squares).enumerate() {
                    let distance = square - 2.0 * f64::from(*product);
                    if distance < best.1 {
                        best = (center as u32, distance);
                    }
                }
                (best.0, (self.squares[row] + best.1).max(0.0))
            };
            products.chunks_exact(k).zip(squares.chunks_exact(k)).map(nearest).collect::<Vec<_>>()
        });
        (0..runs.len()).map(|run| found.iter().map(|row| row[run]).unzip()).collect()
    }

    /// The means of the rows of each center; `before` where a center lies that has none in the end.
    fn means(&self, (assignments, distances): &Assigned, before: &[f64]) -> Vec<f64> {
        let cols = self.x.cols;
        let k = before.len() / cols;
        let (mut sums, mut counts) = (vec![0f64; k * cols], vec![0usize; k]);
        for (row, &center) in self.x.iter().zip(assignments) {
            counts[center as usize] += 1;
            sums[center as usize * cols..][..cols].iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        let empty: Vec<usize> = (0..k).filter(|center| counts[*center] == 0).collect();
        if !empty.is_empty() {
            let mut farthest: Vec<usize> = (0..self.x.rows).collect();
            farthest.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]).then(a.cmp(&b)));
            for (center, row) in empty.into_iter().zip(farthest) {
                let (own, values) = (assignments[row] as usize, &self.x.data[row * cols..][..cols]);
                counts[own] -= 1;
                counts[center] = 1;
                for (i, v) in values.iter().enumerate() {
                    sums[own * cols + i] -= f64::from(*v);
                    sums[center * cols + i] = f64::from(*v);
                }
            }
        }
        for (center, count) in counts.into_iter().enumerate() {
            let range = center * cols..(center + 1) * cols;
            match count {
                0 => sums[range.clone()].copy_from_slice(&before[range]),
                _ => sums[range].iter_mut().for_each(|sum| *sum /= count as f64),
            }
        }
        sums
    }

    fn lloyd(&self, starts: Vec<Vec<f64>>, iterations: usize) -> Result<KMeans> {
        let mut runs = starts;
        let mut assigned = self.assign(&runs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut moves = vec![0usize; runs.len()];
        let mut active: Vec<usize> = (0..runs.len()).collect();
        while !active.is_empty() && moves[active[0]] < iterations {
            let next: Vec<Vec<f64>> = active.par_iter().map(|&run| self.means(&assigned[run], &runs[run])).collect();
            let found = self.assign(&next.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut still = Vec::new();
            for ((run, centers), found) in active.into_iter().zip(next).zip(found) {
                if found.0 != assigned[run].0 {
                    still.push(run);
                }
                (runs[run], assigned[run]) = (centers, found);
                moves[run] += 1;
            }
            active = still;
        }
        let inertia: Vec<f64> =
            runs.iter().zip(&assigned).map(|(centers, (assignments, _))| self.inertia(centers, assignments)).collect();
        let best = (0..runs.len()).min_by(|&a, &b| inertia[a].total_cmp(&inertia[b])).unwrap_or(0);
        let cols = self.x.cols;
        let centers: Vec<f32> = runs[best].iter().enumerate().map(|(i, v)| (v + self.mean[i % cols]) as f32).collect();
        let centers = Tensor::from_vec(centers, (runs[best].len() / cols, cols), &Device::Cpu)?;
        let clusters = Clusters { centers, assignments: assigned.swap_remove(best).0 };
        Ok(KMeans { clusters, inertia: inertia[best], iterations: moves[best] })
    }

    fn inertia(&self, centers: &[f64], assignments: &[u32]) -> f64 {
        let cols = self.x.cols;
        let distance = |(row, center): (&[f32], &u32)| -> f64 {
            let center = &centers[*center as usize * cols..][..cols];
            row.iter().zip(center).map(|(v, c)| (f64::from(*v) - c).powi(2)).sum()
        };
        let each: Vec<f64> = self.x.data.par_chunks_exact(cols).zip(assignments).map(distance).collect();
        each.iter().sum()
    }
}

/// A row with probability proportional to its distance; any if all are 0.
fn draw(distances: &[f64], stream: &mut Stream) -> usize {
    let total: f64 = distances.iter().sum();
    if total <= 0.0 {
        return stream.below(distances.len() as u64) as usize;
    }
    let mut left = stream.uniform() * total;
    for (row, distance) in distances.iter().enumerate() {
        left -= distance;
        if left < 0.0 {
            return row;
        }
    }
    // Rounding may leave a little: the last row that could be drawn.
    distances.iter().rposition(|distance| *distance > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// Five clouds far apart and far from the origin: every start but by misfortune finds them, and ten starts do.
    #[test]
    fn clouds_are_found() -> Result<()> {
        let centers = (random(5, 6, 1) * 20.0)?;
        let which: Vec<u32> = (0..400).map(|i| i % 5).collect();
        let x = centers.index_select(&Tensor::from_vec(which.clone(), 400, &Device::Cpu)?, 0)?;
        let x = ((x + random(400, 6, 2))? + 1000.0)?;
        let found = kmeans(&x, 5, 10, 100, 3)?;
        assert_eq!(crate::clustering_accuracy(&found.clusters.assignments, &which)?, 1.0);
        // 400 rows with 6 unit variances each.
        assert!((found.inertia / 2400.0 - 1.0).abs() < 0.1, "{}", found.inertia);
        let again = kmeans(&x, 5, 10, 100, 3)?;
        assert_eq!(found.clusters.assignments, again.clusters.assignments);
        assert_eq!(found.inertia, again.inertia);
        Ok(())
    }

    /// More starts are never worse, and each is the same alone and beside others.
    #[test]
    fn the_best_start_counts() -> Result<()> {
        let x = random(300, 4, 4);
        let inertia: Vec<f64> = (1..8).map(|n| kmeans(&x, 12, n, 100, 5).unwrap().inertia).collect();
        assert!(inertia.is_sorted_by(|a, b| a >= b), "{inertia:?}");
        assert!(inertia[6] < inertia[0], "{inertia:?}");
        Ok(())
    }

    /// A center that no row is near goes to the farthest row.
    #[test]
    fn an_empty_cluster_gets_the_farthest_row() -> Result<()> {
        let x = Tensor::new(&[[0f32], [1.0], [2.0], [50.0]], &Device::Cpu)?;
        let found = kmeans_from(&x, &Tensor::new(&[[1f32], [900.0]], &Device::Cpu)?, 50)?;
        assert_eq!(found.clusters.assignments, [0, 0, 0, 1]);
        assert_eq!(found.inertia, 2.0);
        Ok(())
    }

    #[test]
    fn as_many_clusters_as_rows_and_equal_rows() -> Result<()> {
        let x = random(7, 3, 6);
        assert!(kmeans(&x, 7, 2, 50, 0)?.inertia < 1e-9);
        let same = Tensor::ones((9, 3), candle_core::DType::F32, &Device::Cpu)?;
        let found = kmeans(&same, 4, 2, 50, 0)?;
        assert_eq!(found.inertia, 0.0);
        Ok(())
    }

    #[test]
    fn wrong_input_is_named() {
        let x = random(3, 2, 7);
        let error = |r: Result<KMeans>| r.unwrap_err().to_string();
        assert!(error(kmeans(&x, 4, 1, 10, 0)).contains("4 clusters of 3 rows"));
        assert!(error(kmeans(&x, 2, 0, 10, 0)).contains("0 starts"));
        assert!(error(kmeans_from(&x, &random(2, 3, 1), 10)).contains("[2, 3] for rows [3, 2]"));
        let bad = Tensor::new(&[[f32::INFINITY, 0.0]], &Device::Cpu).unwrap();
        assert!(error(kmeans(&bad, 1, 1, 10, 0)).contains("row 0 holds inf"));
    }
}
