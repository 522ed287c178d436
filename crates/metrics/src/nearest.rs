//! The most similar rows of a bank, found block by block.

use candle_core::{Result, Tensor, bail};
use diptych_kernels::linear::cpu::{Extents, forward, forward_bf16};
use half::bf16;
use rayon::prelude::*;

use crate::matrix::Matrix;

/// Queries of one product.
pub(crate) const QUERIES: usize = 512;
/// Bank rows of one product: with [`QUERIES`], 8 MB of similarities at a time.
pub(crate) const BANK: usize = 4096;
/// Similarities that are compared with the threshold together.
const LANES: usize = 64;

/// What features are made of when they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Normalized, then rounded to bf16; products are added in f32.
    Bf16,
}

/// The `k` rows of `bank` most similar to each row of `queries`, best first: (row of the bank, cosine similarity).
///
/// `queries`: `[Q, F]`, `bank`: `[M, F]`; both are L2-normalized here, a zero row has similarity 0 to all. Of equal similarities the
/// lower row comes first. Memory is O((Q + M) F + Q k): similarities are made block by block.
///
/// # Errors
/// If the widths differ, `k` is 0 or larger than M, or a value is not finite.
pub fn nearest(queries: &Tensor, bank: &Tensor, k: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    nearest_in(Precision::F32, queries, bank, k)
}

/// [`nearest`] in a precision.
///
/// # Errors
/// As [`nearest`].
pub fn nearest_in(precision: Precision, queries: &Tensor, bank: &Tensor, k: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let queries = Matrix::finite("kNN: the queries", queries)?.normalized();
    let bank = Matrix::finite("kNN: the bank", bank)?.normalized();
    if queries.cols != bank.cols {
        bail!("kNN: queries have {} features, the bank {}", queries.cols, bank.cols)
    }
    if k == 0 || k > bank.rows {
        bail!("kNN: k = {k} with a bank of {} rows; k must lie between 1 and that", bank.rows)
    }
    let extents = Extents { rows: QUERIES.min(queries.rows), inputs: bank.cols, outputs: BANK.min(bank.rows) };
    let mut best: Vec<Best> = (0..queries.rows).map(|_| Best::new(k)).collect();
    for (best, block) in best.chunks_mut(QUERIES).zip(queries.data.chunks(QUERIES * queries.cols)) {
        let block = padded(block, extents.rows * extents.inputs);
        let rounded: Vec<bf16> = match precision {
            Precision::F32 => Vec::new(),
            Precision::Bf16 => block.iter().map(|v| bf16::from_f32(*v)).collect(),
        };
        for (i, rows) in bank.data.chunks(BANK * bank.cols).enumerate() {
            let valid = rows.len() / bank.cols;
            let rows = padded(rows, extents.outputs * extents.inputs);
            let similarities = match precision {
                Precision::F32 => forward(&block, &rows, None, extents),
                Precision::Bf16 => forward_bf16(&rounded, &rows, extents),
            };
            best.par_iter_mut()
                .zip(similarities.par_chunks(extents.outputs))
                .for_each(|(best, row)| best.take(&row[..valid], i * BANK));
        }
    }
    Ok(best.into_par_iter().map(Best::sorted).collect())
}

/// `values` with zeros behind them up to `len`: every product then has one shape, so the same pair of rows has the same similarity to the last bit
/// wherever it stands.
fn padded(values: &[f32], len: usize) -> std::borrow::Cow<'_, [f32]> {
    if values.len() == len {
        return values.into();
    }
    let mut values = values.to_vec();
    values.resize(len, 0.0);
    values.into()
}

/// The `k` best of the rows seen so far, with others that have not been sorted out yet.
struct Best {
    k: usize,
    /// Keys, see [`key`], in no order: between `k` and `2 k` once so many rows were seen.
    keys: Vec<u64>,
    /// No similarity up to this can be among the best: rows come in order, so that an equal one goes behind.
    threshold: f32,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { k, keys: Vec::new(), threshold: f32::NEG_INFINITY }
    }

    /// Takes the rows `start..` of the bank.
    fn take(&mut self, similarities: &[f32], start: usize) {
        let most = (2 * self.k).max(LANES);
        self.keys.reserve_exact((most + 1).saturating_sub(self.keys.len()));
        for (block, values) in similarities.chunks(LANES).enumerate() {
            // A count needs no order of its own, so that it becomes vector instructions; a maximum would not.
            let above = values.iter().fold(0u32, |count, value| count + u32::from(*value > self.threshold));
            if above == 0 {
                continue;
            }
            for (i, value) in values.iter().enumerate().filter(|(_, value)| **value > self.threshold) {
                self.keys.push(key(*value, start + block * LANES + i));
            }
            if self.keys.len() > most {
                self.cut();
            }
        }
    }

    /// Drops all but the `k` best.
    fn cut(&mut self) {
        if self.keys.len() > self.k {
            let (_, last, _) = self.keys.select_nth_unstable(self.k - 1);
            self.threshold = pair(*last).1;
            self.keys.truncate(self.k);
        }
    }

    /// Rows and similarities, best first.
    fn sorted(mut self) -> Vec<(u32, f32)> {
        self.cut();
        self.keys.sort_unstable();
        self.keys.into_iter().map(pair).collect()
    }
}

/// A number that is lower for a higher similarity and, of equal ones, for a lower row.
fn key(similarity: f32, row: usize) -> u64 {
    // Adding 0 makes -0 the same as 0. The bits of positive floats ascend with them, those of negative ones descend.
    let bits = (similarity + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(!ascending) << 32 | row as u64
}

/// What [`key`] was made of.
fn pair(key: u64) -> (u32, f32) {
    let ascending = !((key >> 32) as u32);
    let bits = if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending };
    (key as u32, f32::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use candle_core::{Device, Tensor};

    fn rows(x: &Tensor) -> Result<Vec<Vec<f64>>> {
        let unit = |row: &Vec<f32>| {
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|&v| f64::from(v) / norm).collect()
        };
        Ok(x.to_vec2::<f32>()?.iter().map(unit).collect())
    }

    /// Sorting all similarities, taken in f64, must give the same neighbors; a `k` below and above what is compared at once.
    #[test]
    fn neighbors_equal_brute_force_over_several_blocks() -> Result<()> {
        let (queries, bank) = (random(QUERIES + 3, 7, 1), random(BANK * 2 + 5, 7, 2));
        let (q, b) = (rows(&queries)?, rows(&bank)?);
        let all: Vec<Vec<(u32, f64)>> = q
            .par_iter()
            .map(|q| {
                let dot = |b: &Vec<f64>| q.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let mut all: Vec<(u32, f64)> = (0u32..).zip(b.iter().map(dot)).collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1));
                all
            })
            .collect();
        for k in [1, 9, 200] {
            for (found, all) in nearest(&queries, &bank, k)?.iter().zip(&all) {
                assert_eq!(found.len(), k);
                for (got, expected) in found.iter().zip(all) {
                    assert!((f64::from(got.1) - expected.1).abs() < 1e-6, "{got:?} {expected:?}");
                }
                if all[k - 1].1 - all[k].1 > 1e-5 {
                    let mut got: Vec<u32> = found.iter().map(|f| f.0).collect();
                    let mut expected: Vec<u32> = all[..k].iter().map(|a| a.0).collect();
                    got.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(got, expected);
                }
            }
        }
        Ok(())
    }

    /// Equal rows far apart in the bank, in other blocks and at every place of a tile, tie to the last bit.
    #[test]
    fn equal_rows_come_in_order() -> Result<()> {
        for precision in [Precision::F32, Precision::Bf16] {
            for cols in [1, 2, 33, 130] {
                let one = random(1, cols, 3);
                let bank = one.broadcast_as((BANK + 37, cols))?.contiguous()?;
                for k in [5, BANK + 37] {
                    for row in nearest_in(precision, &random(2, cols, 4), &bank, k)? {
                        assert!(row[0].0 == 0 && row.len() == k, "{cols} features: {:?}", row[0]);
                        assert!(row.windows(2).all(|w| w[0].0 + 1 == w[1].0), "{cols} features: out of order");
                    }
                }
            }
        }
        Ok(())
    }

    /// Rounding the normalized rows first and adding exactly gives the same similarities, to the rounding of f32 sums.
    #[test]
    fn bf16_rounds_the_features_and_nothing_else() -> Result<()> {
        let (queries, bank, k) = (random(40, 96, 5), random(700, 96, 6), 10);
        let round = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
            let whole = |v: &f64| f64::from(bf16::from_f32(*v as f32));
            Ok(rows(x)?.iter().map(|row| row.iter().map(whole).collect()).collect())
        };
        let (q, b) = (round(&queries)?, round(&bank)?);
        let (found, exact) = (nearest_in(Precision::Bf16, &queries, &bank, k)?, nearest(&queries, &bank, k)?);
        let mut different = 0;
        for (i, found) in found.iter().enumerate() {
            for (j, similarity) in found {
                let expected: f64 = q[i].iter().zip(&b[*j as usize]).map(|(a, b)| a * b).sum();
                assert!((f64::from(*similarity) - expected).abs() < 2e-6, "{similarity} {expected}");
            }
            different += usize::from(found[0].1 != exact[i][0].1);
        }
        assert!(different > 20, "only {different} of 40 differ from f32");
        Ok(())
    }

    /// Another number of threads, the same bits.
    #[test]
    fn threads_change_nothing() -> Result<()> {
        let (queries, bank) = (random(70, 33, 7), random(5000, 33, 8));
        let found = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| nearest(&queries, &bank, 50))
        };
        assert_eq!(found(1)?, found(3)?);
        Ok(())
    }

    #[test]
    fn keys_keep_their_pairs_and_order() {
        let values = [1.0f32, 0.5, f32::MIN_POSITIVE, 0.0, -f32::MIN_POSITIVE, -0.25, -1.0];
        for (i, value) in values.iter().enumerate() {
            assert_eq!(pair(key(*value, 77)), (77, *value));
            assert!(key(*value, 3) < key(*value, 4));
            assert!(values[i + 1..].iter().all(|lower| key(*value, 9) < key(*lower, 2)), "{value}");
        }
        assert_eq!(key(0.0, 5), key(-0.0, 5));
    }

    #[test]
    fn a_zero_row_is_similar_to_none() -> Result<()> {
        let zero = Tensor::zeros((1, 4), candle_core::DType::F32, &Device::Cpu)?;
        let found = nearest(&zero, &random(6, 4, 9), 6)?;
        assert_eq!(found[0], (0..6).map(|i| (i, 0.0)).collect::<Vec<_>>());
        Ok(())
    }
}
