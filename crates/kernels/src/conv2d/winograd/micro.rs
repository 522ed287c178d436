//! The products of Winograd's algorithm on AVX-512 registers: dense rows, results in registers.

// Loops of known length over arrays that must stay in registers are written with their indices.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::{GROUP, RUN, SKEW};
use crate::conv2d::pack::BLOCK;

/// Source channels whose weights (32 KB) the first-level cache keeps while all tiles pass.
const PART: usize = 128;

/// One place of the products of `count` tiles: `m` = `v` times `u`. `v` and `m` point to the place in the first block of values, as
/// [`super::Spread`] lays them out, `block` apart; `u` to the place in the first run of weights `[RUN, 16 vectors]`, `run` apart.
///
/// # Safety
/// The machine has AVX-512F; the pointers hold that; `vectors` is 1 to 4.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn products(
    v: *const f32,
    block: usize,
    u: *const f32,
    run: usize,
    vectors: usize,
    m: *mut f32,
    count: usize,
    inputs: usize,
) {
    // SAFETY: the contract is the same.
    unsafe {
        match vectors {
            1 => wide::<1>(v, block, u, run, m, count, inputs),
            2 => wide::<2>(v, block, u, run, m, count, inputs),
            3 => wide::<3>(v, block, u, run, m, count, inputs),
            _ => wide::<4>(v, block, u, run, m, count, inputs),
        }
    }
}

/// # Safety
/// As [`products`].
#[target_feature(enable = "avx512f")]
unsafe fn wide<const V: usize>(
    v: *const f32,
    block: usize,
    u: *const f32,
    run: usize,
    m: *mut f32,
    count: usize,
    inputs: usize,
) {
    let (blocks, groups) = (inputs.div_ceil(BLOCK), count.div_ceil(GROUP));
    for part in (0..inputs).step_by(PART) {
        let end = (part + PART).min(inputs);
        // The weights that come next: those of the next channels, or the first of the next place, after a gap. Each step asks for
        // its share of their cache lines.
        let mut next = match end < inputs {
            true => u.wrapping_add(end / RUN * run),
            false => u.wrapping_add(RUN * 16 * V + SKEW),
        };
        let (lines, mut line) = (((end - part) * V).div_ceil(groups), 0);
        for group in 0..groups {
            for _ in 0..lines {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(16 * line).cast());
                line += 1;
                if line == RUN * V {
                    (next, line) = (next.wrapping_add(run), 0);
                }
            }
            // SAFETY: the rows of a group exist even where it has fewer tiles; the rest is the contract.
            unsafe {
                let to = m.add(group * block);
                let mut sum = [[_mm512_setzero_ps(); V]; GROUP];
                if part > 0 {
                    for p in 0..GROUP {
                        for v in 0..V {
                            sum[p][v] = _mm512_loadu_ps(to.add(p * BLOCK + 16 * v));
                        }
                    }
                }
                for first in (part..end).step_by(RUN) {
                    let mut w = u.add(first / RUN * run);
                    let mut from = v.add((group * blocks + first / BLOCK) * block + first % BLOCK);
                    for _ in first..(first + RUN).min(end) {
                        let mut row = [_mm512_setzero_ps(); V];
                        for v in 0..V {
                            row[v] = _mm512_loadu_ps(w.add(16 * v));
                        }
                        w = w.add(16 * V);
                        for p in 0..GROUP {
                            let x = _mm512_set1_ps(*from.add(p * BLOCK));
                            for v in 0..V {
                                sum[p][v] = _mm512_fmadd_ps(x, row[v], sum[p][v]);
                            }
                        }
                        from = from.add(1);
                    }
                }
                for p in 0..GROUP {
                    for v in 0..V {
                        _mm512_storeu_ps(to.add(p * BLOCK + 16 * v), sum[p][v]);
                    }
                }
            }
        }
    }
}
