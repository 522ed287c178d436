//! exp over tiles of f32, written so that the compiler turns it into vector code; the same bits at every vector width.

use crate::isa::multiversion;

/// Lanes of a sum: the partial sums are kept apart and added in this fixed order, whatever the vector width.
const LANES: usize = 16;

/// `exp(x)` to about 2e-7, for x <= 80; below -87 it gives 1.6e-38 and a NaN stays a NaN (after Cephes' `expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
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
    pub(super) fn accumulate(tile: &[f32], width: usize, maxima: &mut [f32], sums: &mut [f64]) {
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

    /// `tile[i][j] = exp(tile[i][j] - by_row[i]) + exp(tile[i][j] - by_column[j])`, rows `by_column.len()` long.
    pub(super) fn softmax_pairs(tile: &mut [f32], by_row: &[f32], by_column: &[f32]) {
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
