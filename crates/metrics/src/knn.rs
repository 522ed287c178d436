//! Nearest neighbors by cosine similarity, and the weighted kNN classifier of instance discrimination.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::matrix::Matrix;

/// Queries of one product.
const QUERIES: usize = 256;
/// Bank rows of one product: with [`QUERIES`], 2 MB of similarities at a time.
const BANK: usize = 2048;

/// What [`knn`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Knn {
    /// Share of the test rows whose predicted class is their label, in [0, 1].
    pub accuracy: f64,
    /// One class per test row.
    pub predictions: Vec<u32>,
    /// The neighbors that voted, see [`nearest`].
    pub neighbors: Vec<Vec<(u32, f32)>>,
}

/// The `k` rows of `bank` most similar to each row of `queries`, best first: (row of the bank, cosine similarity).
///
/// `queries`: `[Q, F]`, `bank`: `[M, F]`; both are L2-normalized here, a zero row has similarity 0 to all. Of equal similarities the
/// lower row comes first. Memory is O((Q + M) F + Q k): similarities are made block by block.
///
/// # Errors
/// If the widths differ, `k` is 0 or larger than M, or a value is not finite.
pub fn nearest(queries: &Tensor, bank: &Tensor, k: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let queries = Matrix::finite("kNN: the queries", queries)?.normalized();
    let bank = Matrix::finite("kNN: the bank", bank)?.normalized();
    if queries.cols != bank.cols {
        bail!("kNN: queries have {} features, the bank {}", queries.cols, bank.cols)
    }
    if k == 0 || k > bank.rows {
        bail!("kNN: k = {k} with a bank of {} rows; k must lie between 1 and that", bank.rows)
    }
    let blocks = (0..queries.rows)
        .step_by(QUERIES)
        .map(|start| queries.block(start, QUERIES))
        .collect::<Result<Vec<Tensor>>>()?;
    let mut best: Vec<Vec<(u32, f32)>> = (0..queries.rows).map(|_| Vec::with_capacity(k + 1)).collect();
    for start in (0..bank.rows).step_by(BANK) {
        let columns = bank.block(start, BANK)?.t()?;
        let valid = BANK.min(bank.rows - start);
        for (block, best) in blocks.iter().zip(best.chunks_mut(QUERIES)) {
            let similarities = block.matmul(&columns)?.flatten_all()?.to_vec1::<f32>()?;
            best.par_iter_mut()
                .zip(similarities.par_chunks(BANK))
                .for_each(|(best, row)| keep(best, &row[..valid], start, k));
        }
    }
    Ok(best)
}

/// Takes the rows `start..` of the bank into the list of the `k` best. Rows come in order, so that an equal one goes behind.
fn keep(best: &mut Vec<(u32, f32)>, similarities: &[f32], start: usize, k: usize) {
    for (i, &similarity) in similarities.iter().enumerate() {
        if best.len() == k && best[k - 1].1 >= similarity {
            continue;
        }
        let place = best.partition_point(|&(_, s)| s >= similarity);
        best.insert(place, ((start + i) as u32, similarity));
        best.truncate(k);
    }
}

/// Weighted kNN classification (Wu et al. 2018, arXiv:1805.01978, section 3.4): each of the `k` nearest training rows votes for its class
/// with weight `exp(similarity / temperature)`.
///
/// `train`: `[M, F]`, `test`: `[Q, F]`, one label a row. The protocol of the field is `k = 20` (or 200) and temperature 0.07. Ties in
/// similarity go to the lower row, ties in votes to the lower class.
///
/// # Errors
/// As [`nearest`], and if labels and rows differ in number or the temperature is not positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let train = Tensor::new(&[[1f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], &Device::Cpu)?;
/// let test = Tensor::new(&[[2f32, 0.1], [0.3, 5.0]], &Device::Cpu)?;
/// let found = diptych_metrics::knn(&train, &[7, 7, 3, 3], &test, &[7, 3], 2, 0.07)?;
/// assert_eq!(found.predictions, [7, 3]);
/// assert_eq!(found.accuracy, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn knn(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    k: usize,
    temperature: f64,
) -> Result<Knn> {
    for (name, x, labels) in [("training", train, train_labels), ("test", test, test_labels)] {
        if x.dims().first() != Some(&labels.len()) {
            bail!("kNN: {name} features of shape {:?} with {} labels", x.dims(), labels.len())
        }
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        bail!("kNN: temperature {temperature}; expected a positive number, usually 0.07")
    }
    let neighbors = nearest(test, train, k)?;
    let predictions: Vec<u32> = neighbors.iter().map(|n| vote(n, train_labels, temperature)).collect();
    let accuracy = crate::accuracy(&predictions, test_labels)?;
    Ok(Knn { accuracy, predictions, neighbors })
}

/// The class with the largest weight; the lower one of equals.
fn vote(neighbors: &[(u32, f32)], labels: &[u32], temperature: f64) -> u32 {
    let Some(&(_, top)) = neighbors.first() else { return 0 };
    let mut votes: Vec<(u32, f64)> = Vec::with_capacity(neighbors.len());
    for &(row, similarity) in neighbors {
        let class = labels[row as usize];
        // Relative to the nearest, so that no temperature overflows.
        let weight = (f64::from(similarity - top) / temperature).exp();
        match votes.iter_mut().find(|(c, _)| *c == class) {
            Some((_, sum)) => *sum += weight,
            None => votes.push((class, weight)),
        }
    }
    let better = |a: (u32, f64), b: (u32, f64)| if b.1 > a.1 || (b.1 == a.1 && b.0 < a.0) { b } else { a };
    votes.iter().copied().reduce(better).map_or(0, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, rotate};
    use candle_core::Device;

    /// Sorting all similarities, taken in f64, must give the same neighbors.
    #[test]
    fn neighbors_equal_brute_force_over_several_blocks() -> Result<()> {
        let (queries, bank, k) = (random(QUERIES + 3, 7, 1), random(BANK * 2 + 5, 7, 2), 9);
        let found = nearest(&queries, &bank, k)?;
        let unit = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
            Ok(x.to_vec2::<f32>()?
                .iter()
                .map(|r| {
                    let norm = r.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                    r.iter().map(|&v| f64::from(v) / norm).collect()
                })
                .collect())
        };
        let (queries, bank) = (unit(&queries)?, unit(&bank)?);
        for (q, found) in queries.iter().zip(&found) {
            let mut all: Vec<(u32, f64)> =
                (0u32..).zip(&bank).map(|(i, b)| (i, q.iter().zip(b).map(|(a, b)| a * b).sum::<f64>())).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (got, expected) in found.iter().zip(&all) {
                assert!((f64::from(got.1) - expected.1).abs() < 1e-6, "{got:?} {expected:?}");
            }
            let ids = |n: usize| -> Vec<u32> { all[..n].iter().map(|a| a.0).collect() };
            if all[k - 1].1 - all[k].1 > 1e-5 {
                let mut got: Vec<u32> = found.iter().map(|f| f.0).collect();
                let mut expected = ids(k);
                got.sort_unstable();
                expected.sort_unstable();
                assert_eq!(got, expected);
            }
        }
        Ok(())
    }

    /// Equal rows far apart in the bank, in other blocks and at every place of a tile, tie to the last bit.
    #[test]
    fn equal_rows_come_in_order() -> Result<()> {
        for cols in [1, 2, 33, 130] {
            let one = random(1, cols, 3);
            let bank = one.broadcast_as((BANK + 37, cols))?.contiguous()?;
            let found = nearest(&random(2, cols, 4), &bank, BANK + 37)?;
            for row in found {
                assert!(row.windows(2).all(|w| w[0].0 + 1 == w[1].0), "{cols} features: out of order");
            }
        }
        Ok(())
    }

    /// Scores by hand: similarity 1 for class 5 against two of similarity 0.9 for class 2; exp(1 / t) < 2 exp(0.9 / t) when t > 0.1 / ln 2.
    #[test]
    fn votes_are_weighted_by_temperature() -> Result<()> {
        let side = (1.0f32 - 0.81).sqrt();
        let train = Tensor::new(&[[1f32, 0.0, 0.0], [0.9, side, 0.0], [0.9, 0.0, side]], &Device::Cpu)?;
        let test = Tensor::new(&[[3f32, 0.0, 0.0]], &Device::Cpu)?;
        let class = |t| Ok::<_, candle_core::Error>(knn(&train, &[5, 2, 2], &test, &[5], 3, t)?.predictions[0]);
        assert_eq!(class(0.07)?, 5);
        assert_eq!(class(0.2)?, 2);
        assert_eq!(class(1e-6)?, 5);
        Ok(())
    }

    #[test]
    fn ties_in_votes_go_to_the_lower_class() -> Result<()> {
        let train = Tensor::new(&[[1f32, 0.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu)?;
        let test = Tensor::new(&[[1f32, 0.0]], &Device::Cpu)?;
        assert_eq!(knn(&train, &[9, 4, 1], &test, &[4], 2, 0.07)?.predictions, [4]);
        assert_eq!(knn(&train, &[4, 9, 1], &test, &[4], 2, 0.07)?.predictions, [4]);
        Ok(())
    }

    /// One orthogonal matrix on bank and queries changes no prediction; neither does a scale per row.
    #[test]
    fn rotation_and_scale_change_nothing() -> Result<()> {
        let (train, test) = (random(300, 6, 5), random(50, 6, 6));
        let labels: Vec<u32> = (0..300).map(|i| i % 7).collect();
        let truth: Vec<u32> = (0..50).map(|i| i % 7).collect();
        let a = knn(&train, &labels, &test, &truth, 20, 0.07)?;
        let b = knn(&rotate(&train)?, &labels, &rotate(&test)?, &truth, 20, 0.07)?;
        let c = knn(&(train * 3.0)?, &labels, &(test * 0.25)?, &truth, 20, 0.07)?;
        assert_eq!(a.predictions, b.predictions);
        assert_eq!(a.predictions, c.predictions);
        Ok(())
    }

    #[test]
    fn separable_classes_are_found() -> Result<()> {
        let labels: Vec<u32> = (0..100).map(|i| i % 4).collect();
        let data: Vec<f32> =
            labels.iter().flat_map(|&l| (0..4).map(move |j| if j == l { 1.0 } else { 0.05 })).collect();
        let x = (Tensor::from_vec(data, (100, 4), &Device::Cpu)? + (random(100, 4, 7) * 0.2)?)?;
        let found = knn(&x, &labels, &x, &labels, 20, 0.07)?;
        assert_eq!(found.accuracy, 1.0);
        Ok(())
    }

    #[test]
    fn wrong_input_is_named() {
        let x = random(3, 2, 8);
        let error = |r: Result<Knn>| r.unwrap_err().to_string();
        let got = error(knn(&x, &[0, 1, 2], &x, &[0, 1, 2], 4, 0.07));
        assert!(got.contains("k = 4 with a bank of 3 rows"), "{got}");
        let got = error(knn(&x, &[0, 1], &x, &[0, 1, 2], 1, 0.07));
        assert!(got.contains("2 labels"), "{got}");
        let bad = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
        let got = error(knn(&x, &[0, 1, 2], &bad, &[0], 1, 0.07));
        assert!(got.contains("row 0 holds NaN"), "{got}");
    }
}
