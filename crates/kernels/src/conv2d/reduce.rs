//! The last step of a weight gradient: the sum of the tasks' parts, in their fixed order, in the layout of the weights.

use rayon::prelude::*;

use super::direct::Rows;
use super::pack::BLOCK;

/// `dw` `[o, taps, c]` from `parts` `[blocks of c][blocks of o][chunks][taps][BLOCK of c][BLOCK of o]`: the sum over chunks.
///
/// # Panics
/// If `parts` has another length.
pub(super) fn reduce(parts: &[f32], chunks: usize, [o, taps, c]: [usize; 3]) -> Vec<f32> {
    const SQUARE: usize = BLOCK * BLOCK;
    let blocks = o.div_ceil(BLOCK);
    assert_eq!(parts.len(), c.div_ceil(BLOCK) * blocks * chunks * taps * SQUARE, "conv2d: parts of a weight gradient");
    let mut dw: Vec<f32> = Vec::with_capacity(o * taps * c);
    let rows = Rows::new(&mut dw, o * taps, c);
    (0..c.div_ceil(BLOCK) * blocks * taps).into_par_iter().for_each(|task| {
        let (pair, tap) = (task / taps, task % taps);
        let (first_c, first_o) = (pair / blocks * BLOCK, pair % blocks * BLOCK);
        let (inputs, outputs) = ((c - first_c).min(BLOCK), (o - first_o).min(BLOCK));
        let part = |chunk: usize| &parts[((pair * chunks + chunk) * taps + tap) * SQUARE..][..inputs * BLOCK];
        let mut sum = [0f32; SQUARE];
        sum[..inputs * BLOCK].copy_from_slice(part(0));
        for chunk in 1..chunks {
            sum.iter_mut().zip(part(chunk)).for_each(|(sum, value)| *sum += value);
        }
        for k in 0..outputs {
            let to = rows.row((first_o + k) * taps + tap);
            for i in 0..inputs {
                // SAFETY: the row has `c` values, of which this task alone writes those of its block.
                unsafe { to.add(first_c + i).write(sum[i * BLOCK + k]) };
            }
        }
    });
    // SAFETY: the tasks partition output channels, taps and input channels.
    unsafe { dw.set_len(o * taps * c) };
    dw
}
