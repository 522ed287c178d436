//! Sums of exponentials over tiles of logits, written so that the compiler turns them into vector code; the same bits at every
//! vector width.

use crate::isa::multiversion;

/// Rows after which the sums of columns go from f32 to f64.
const STRIP: usize = 32;

/// Lanes of a sum: the partial sums are kept apart and added in this fixed order, whatever the vector width.
const LANES: usize = 16;

/// `exp(x)` to about 2e-7 of itself, for x <= 80, in steps that the compiler turns into vector code; below -87 it gives 1.6e-38 and a NaN stays a NaN (after Cephes' `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact in few bits, so that n * part is exact.
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * (r * r) + r + 1.0;
    let exponent = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    y * f32::from_bits(exponent)
}

multiversion! {
    /// Takes the rows of a tile, `width` long, into the running maximum and sum of `exp(v - maximum)` of each row.
    ///
    /// A NaN is no maximum, but it makes the sum NaN.
    pub(crate) fn accumulate(tile: &[f32], width: usize, maxima: &mut [f32], sums: &mut [f64]) {
        for ((row, maximum), sum) in tile.chunks(width).zip(maxima).zip(sums) {
            let (chunks, rest) = row.as_chunks::<LANES>();
            let mut lanes = [*maximum; LANES];
            for chunk in chunks {
                for (lane, &v) in lanes.iter_mut().zip(chunk) {
                    *lane = if v > *lane { v } else { *lane };
                }
            }
            let highest = lanes.iter().chain(rest).fold(*maximum, |m, &v| if v > m { v } else { m });
            if highest > *maximum {
                *sum *= f64::from(*maximum - highest).exp();
                *maximum = highest;
            }
            let mut lanes = [0f32; LANES];
            for chunk in chunks {
                for (lane, &v) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(v - highest);
                }
            }
            for (lane, &v) in lanes.iter_mut().zip(rest) {
                *lane += exp(v - highest);
            }
            *sum += lanes.iter().map(|&v| f64::from(v)).sum::<f64>();
        }
    }

    /// Adds `exp(v - shift)` of a tile to the sum of its row and to that of its column, for logits within 80 below the shift.
    ///
    /// A symmetric matrix needs only the tiles on one side of its diagonal then.
    pub(crate) fn accumulate_both(tile: &[f32], shift: f32, by_row: &mut [f64], by_column: &mut [f64]) {
        let width = by_column.len();
        let mut columns = vec![0f32; width];
        for (strip, by_row) in tile.chunks(width * STRIP).zip(by_row.chunks_mut(STRIP)) {
            for (row, sum) in strip.chunks(width).zip(by_row) {
                let mut lanes = [0f32; LANES];
                let (chunks, rest) = row.as_chunks::<LANES>();
                let (sums, last) = columns.as_chunks_mut::<LANES>();
                for (chunk, sums) in chunks.iter().zip(sums) {
                    for ((lane, sum), &v) in lanes.iter_mut().zip(sums).zip(chunk) {
                        let e = exp(v - shift);
                        *lane += e;
                        *sum += e;
                    }
                }
                for ((lane, sum), &v) in lanes.iter_mut().zip(last).zip(rest) {
                    let e = exp(v - shift);
                    *lane += e;
                    *sum += e;
                }
                *sum += lanes.iter().map(|&v| f64::from(v)).sum::<f64>();
            }
            for (sum, column) in by_column.iter_mut().zip(&mut columns) {
                *sum += f64::from(*column);
                *column = 0.0;
            }
        }
    }

    /// `tile[i][j] = exp(tile[i][j] - by_row[i])`, rows `width` long.
    pub(crate) fn softmax_rows(tile: &mut [f32], width: usize, by_row: &[f32]) {
        for (row, &own) in tile.chunks_mut(width).zip(by_row) {
            for v in row {
                *v = exp(*v - own);
            }
        }
    }

    /// `tile[i][j] = exp(tile[i][j] - by_column[j])`, rows `by_column.len()` long.
    pub(crate) fn softmax_columns(tile: &mut [f32], by_column: &[f32]) {
        for row in tile.chunks_mut(by_column.len()) {
            for (v, &own) in row.iter_mut().zip(by_column) {
                *v = exp(*v - own);
            }
        }
    }

    /// `tile[i][j] = exp(tile[i][j] - by_row[i]) + exp(tile[i][j] - by_column[j])`, rows `by_column.len()` long.
    pub(crate) fn softmax_pairs(tile: &mut [f32], by_row: &[f32], by_column: &[f32]) {
        for (row, &own) in tile.chunks_mut(by_column.len()).zip(by_row) {
            for (v, &other) in row.iter_mut().zip(by_column) {
                *v = exp(*v - own) + exp(*v - other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_one_over_its_range() {
        let mut worst = 0f64;
        for i in -86_000..80_000 {
            let x = i as f32 * 1e-3;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / truth - 1.0).abs());
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    /// A row split into two tiles, the larger maximum in the second, against f64.
    #[test]
    fn the_running_sum_survives_a_new_maximum() {
        let row: Vec<f32> = (0..71).map(|i| ((i * 37) % 71) as f32 * 0.3).collect();
        let (mut maximum, mut sum) = ([f32::NEG_INFINITY], [0.0]);
        accumulate(&row[..40], 40, &mut maximum, &mut sum);
        accumulate(&row[40..], 31, &mut maximum, &mut sum);
        let truth = row.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
        assert!((f64::from(maximum[0]) + sum[0].ln() - truth).abs() < 1e-6);
    }

    /// A tile of several strips and a cut-off last chunk, whose entries are all one of 7 numbers, against f64.
    #[test]
    fn rows_and_columns_are_summed_at_once() {
        let (rows, width) = (75, 37);
        let tile: Vec<f32> = (0..rows * width).map(|i| ((i * 5) % 7) as f32 * -8.0).collect();
        let (mut by_row, mut by_column) = (vec![0f64; rows], vec![0f64; width]);
        accumulate_both(&tile, 3.0, &mut by_row, &mut by_column);
        let truth = |v: f32| f64::from(v - 3.0).exp();
        for (i, sum) in by_row.iter().enumerate() {
            let truth: f64 = tile[i * width..][..width].iter().map(|&v| truth(v)).sum();
            assert!((sum / truth - 1.0).abs() < 5e-7);
        }
        for (j, sum) in by_column.iter().enumerate() {
            let truth: f64 = tile.iter().skip(j).step_by(width).map(|&v| truth(v)).sum();
            assert!((sum / truth - 1.0).abs() < 5e-7);
        }
    }

    #[test]
    fn weights_go_by_row_or_by_column() {
        let (mut by_row, mut by_column) = ([0f32, 1.0, 2.0, 3.0], [0f32, 1.0, 2.0, 3.0]);
        softmax_rows(&mut by_row, 2, &[1.0, 4.0]);
        softmax_columns(&mut by_column, &[1.0, 4.0]);
        for (got, truth) in [(by_row, [-1f64, 0.0, -2.0, -1.0]), (by_column, [-1.0, -3.0, 1.0, -1.0])] {
            got.iter().zip(truth).for_each(|(v, x)| assert!((f64::from(*v) / x.exp() - 1.0).abs() < 1e-6));
        }
    }

    #[test]
    fn weights_are_the_two_exponentials() {
        let mut tile = [0f32, 1.0, 2.0, 3.0];
        softmax_pairs(&mut tile, &[1.0, 2.0], &[3.0, 4.0]);
        let truth = [(0f64, 1.0, 3.0), (1.0, 1.0, 4.0), (2.0, 2.0, 3.0), (3.0, 2.0, 4.0)];
        for (v, (x, own, other)) in tile.iter().zip(truth) {
            assert!((f64::from(*v) - (f64::exp(x - own) + f64::exp(x - other))).abs() < 1e-6);
        }
    }
}
