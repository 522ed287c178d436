//! The weight gradient: for each place of the transformed tiles, the outer products of source and gradient channels.

use std::cell::RefCell;

use rayon::prelude::*;

use super::transform::{PLACES, POINTS, STEP, gather_kernel_grad, spread_image, spread_output_grad};
use super::{LANES, Pixel, SKEW, Spread, Tiles};
use crate::conv2d::direct::TASKS;
use crate::conv2d::geometry::Geometry;
use crate::conv2d::outer::{Groups, outer};
use crate::conv2d::pack::BLOCK;
use crate::conv2d::reduce::reduce;
use crate::isa::Isa;

/// Tiles whose products are added before the next are transformed: with the sums, what a second-level cache holds.
const TILES: usize = 48;
/// Values from one place's sums to the next.
const SUM_SPREAD: usize = BLOCK * BLOCK + SKEW;

thread_local! {
    /// A thread's transformed sources and gradients and its sums, kept from task to task.
    static SCRATCH: RefCell<[Vec<f32>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

/// The gradient for `w`, `[o, 3, 3, c]`, of the output's gradient `dy`.
pub(in crate::conv2d) fn weight_grad<T: Pixel>(isa: Isa, g: &Geometry, x: &[T], dy: &[T]) -> Vec<f32> {
    let count = [g.oh, g.ow].map(|size| size.div_ceil(STEP));
    let all = g.n * count[0] * count[1];
    let (sources, gradients) = (Tiles::new(x, [g.h, g.w], g.c, count), Tiles::new(dy, [g.oh, g.ow], g.o, count));
    // A task adds one chunk of tiles for one block of channels on each side. All counts follow from shapes.
    let blocks = g.o.div_ceil(BLOCK);
    let pairs = g.c.div_ceil(BLOCK) * blocks;
    let chunk = all.div_ceil(TASKS.div_ceil(pairs).min(all.div_ceil(2 * TILES)));
    let chunks = all.div_ceil(chunk);
    const SIZE: usize = 9 * BLOCK * BLOCK;
    let mut parts = vec![0f32; pairs * chunks * SIZE];
    parts.par_chunks_exact_mut(SIZE).with_max_len(1).enumerate().for_each(|(task, part)| {
        let (pair, first) = (task / chunks, task % chunks * chunk);
        let (c, o) = (pair / blocks * BLOCK, pair % blocks * BLOCK);
        let (inputs, outputs) = ((g.c - c).min(BLOCK), (g.o - o).min(BLOCK));
        SCRATCH.with_borrow_mut(|[v, z, sum]| {
            let spread = Spread::new(isa, TILES);
            let groups = Groups { group: spread.group, between: spread.block(), x_row: BLOCK };
            v.resize(spread.len(TILES, 1), 0.0);
            z.resize(spread.len(TILES, 1), 0.0);
            sum.clear();
            sum.resize(PLACES * SUM_SPREAD, 0.0);
            let end = (first + chunk).min(all);
            for start in (first..end).step_by(TILES) {
                let count = TILES.min(end - start);
                for i in 0..count {
                    let x = sources.pixels::<POINTS, PLACES>(start + i, g.padding);
                    let dy = gradients.pixels::<STEP, { STEP * STEP }>(start + i, 0);
                    let at = spread.tile(i, 0, 1);
                    let (v, z) = (v[at..].as_mut_ptr(), z[at..].as_mut_ptr());
                    // SAFETY: the pixels begin c and o values; `v` and `z` hold `TILES` tiles of `BLOCK` channels a place.
                    unsafe {
                        spread_image(isa, &x, c..c + inputs, v, spread.place());
                        spread_output_grad(isa, &dy, o..o + outputs, z, spread.place());
                    }
                }
                for (place, sum) in sum.chunks_exact_mut(SUM_SPREAD).enumerate() {
                    let at = place * spread.place();
                    outer(isa, &v[at..], &z[at..], groups, sum, [count, inputs, outputs], &[]);
                }
            }
            for i in 0..inputs {
                let (from, to) = (sum[i * BLOCK..].as_ptr(), part[i * BLOCK..].as_mut_ptr());
                // SAFETY: `sum` holds rows of `BLOCK` values for each place, `part` for each tap.
                unsafe { gather_kernel_grad(isa, from, SUM_SPREAD, to, BLOCK * BLOCK, outputs.div_ceil(LANES)) };
            }
        });
    });
    reduce(&parts, chunks, [g.o, 9, g.c])
}
