//! The micro-kernels: sums stay in registers, words are multiplied in f32 or as pairs of bf16.
//!
//! Forward and input gradient: P pixels x 16 V channels (6 x 64, 8 x 48, 12 x 32, 12 x 16); a step loads V lines of packed
//! weights and broadcasts a word of each pixel's source row. The weight gradient: P output channels x 16 V source
//! channels; a step (a pixel, or a pair) loads V lines of source values and broadcasts P words of gradients. 24 products
//! go with 10 to 14 loads, so the multiplier is the limit.
//!
//! Written once, compiled for each [`Unit`](super::words::Unit) with its instruction.

// Loops of known length over arrays that must stay in registers are written with their indices.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::pack::{BLOCK, Packed};
use super::words::{Line, last_mask, rounded, upper, widen};

/// The most pixels of a micro-kernel.
pub(super) const MOST: usize = 12;

/// A tile of pixels and a block of output channels.
pub(super) struct Tile<'a> {
    /// `[taps, padded]`: each pixel's source row, of words; `zeros` for padding. Pixels past `count` repeat the last.
    pub(super) from: &'a [*const u32],
    pub(super) zeros: *const u32,
    /// `[padded]`: each pixel's output row.
    pub(super) to: &'a [usize],
    pub(super) count: usize,
    pub(super) weights: &'a Packed,
    pub(super) block: usize,
    /// `[padded, BLOCK]`: sums between two parts.
    pub(super) sums: *mut f32,
    pub(super) out: *mut bf16,
    pub(super) add: Option<&'a [bf16]>,
}

/// A part of the sum, as in [`Packed::parts`].
pub(super) struct Part {
    pub(super) taps: Range<usize>,
    pub(super) steps: Range<usize>,
    pub(super) first: bool,
    pub(super) last: bool,
}

/// What the weight gradient of one tile of pixels adds, for one block of source channels.
pub(super) struct Outer {
    /// `[steps][V]` lines of source values.
    pub(super) x: *const Line,
    /// `[steps]`, `apart` words from one to the next: gradients of output channels.
    pub(super) dy: *const u32,
    pub(super) apart: usize,
    pub(super) steps: usize,
    /// One row of source channels for each output channel, `row` values apart.
    pub(super) to: *mut f32,
    pub(super) row: usize,
    pub(super) lanes: __mmask16,
    /// Whether nothing was stored yet.
    pub(super) first: bool,
}

macro_rules! kernels {
    ($name:ident, $features:literal, $multiply:expr, $odd:literal) => {
        pub(super) mod $name {
            use super::*;

            /// One part of the sum of every pixel of a tile.
            ///
            /// # Safety
            /// The machine has the features. The tile's source rows hold its weights' inputs, its output rows its weights'
            /// outputs, in `out` and in `add`, and are this task's alone; the part is one of the weights'.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn tile(tile: &Tile, part: &Part) {
                // SAFETY: handed on from this function's contract.
                unsafe {
                    match tile.weights.vectors(tile.block) {
                        1 => pixels::<12, 1>(tile, part),
                        2 => pixels::<12, 2>(tile, part),
                        3 => pixels::<8, 3>(tile, part),
                        _ => pixels::<6, 4>(tile, part),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn pixels<const P: usize, const V: usize>(tile: &Tile, part: &Part) {
                let (weights, padded) = (tile.weights, tile.to.len());
                let rows = part.taps.len() * part.steps.len();
                let panel = weights.block(tile.block)[(part.taps.start * weights.steps + part.steps.start) * V..]
                    [..rows * V]
                    .as_ptr();
                // An odd last input is a word that would reach past its row.
                let whole = if $odd { part.steps.end.min(weights.inputs / 2) } else { part.steps.end };
                let odd = whole < part.steps.end;
                // The next part's weights begin where these end; each round asks for its share of their lines.
                let mut next = panel.wrapping_add(rows * V);
                let lines = (rows * V).div_ceil(tile.count.div_ceil(P));
                for start in (0..tile.count).step_by(P) {
                    let sums = tile.sums.wrapping_add(start * BLOCK);
                    let mut sum = [[_mm512_setzero_ps(); V]; P];
                    if !part.first {
                        for p in 0..P {
                            for v in 0..V {
                                // SAFETY: `sums` has room for padded pixels.
                                sum[p][v] = unsafe { _mm512_loadu_ps(sums.add(p * BLOCK + 16 * v)) };
                            }
                        }
                    }
                    for _ in 0..lines {
                        _mm_prefetch::<_MM_HINT_T1>(next.cast());
                        next = next.wrapping_add(1);
                    }
                    let mut w = panel;
                    for tap in part.taps.clone() {
                        let table = &tile.from[tap * padded + start..][..P];
                        let mut from = [table[0]; P];
                        let mut inside = false;
                        for p in 0..P {
                            from[p] = table[p].wrapping_add(part.steps.start);
                            inside |= table[p] != tile.zeros;
                        }
                        if !inside {
                            w = w.wrapping_add(part.steps.len() * V);
                            continue;
                        }
                        // SAFETY: `w` walks over the part's lines of weights; each source row holds `inputs` values.
                        unsafe {
                            for c in 0..whole - part.steps.start {
                                let mut row = [_mm512_setzero_si512(); V];
                                for v in 0..V {
                                    row[v] = _mm512_load_si512(w.add(v).cast());
                                }
                                w = w.add(V);
                                for p in 0..P {
                                    let x = _mm512_set1_epi32(from[p].add(c).cast::<i32>().read_unaligned());
                                    for v in 0..V {
                                        sum[p][v] = $multiply(sum[p][v], x, row[v]);
                                    }
                                }
                            }
                            if odd {
                                let mut row = [_mm512_setzero_si512(); V];
                                for v in 0..V {
                                    row[v] = _mm512_load_si512(w.add(v).cast());
                                }
                                w = w.add(V);
                                for p in 0..P {
                                    let last = from[p].add(whole - part.steps.start).cast::<u16>().read_unaligned();
                                    let x = _mm512_set1_epi32(i32::from(last));
                                    for v in 0..V {
                                        sum[p][v] = $multiply(sum[p][v], x, row[v]);
                                    }
                                }
                            }
                        }
                    }
                    if !part.last {
                        for p in 0..P {
                            for v in 0..V {
                                // SAFETY: as for the loads.
                                unsafe { _mm512_storeu_ps(sums.add(p * BLOCK + 16 * v), sum[p][v]) };
                            }
                        }
                        continue;
                    }
                    // Short loops of known length, so that `sum` stays in registers: unrolled they are, or it is an array.
                    let mask = last_mask(weights.used(tile.block));
                    let mut at = [0; P];
                    for p in 0..P {
                        at[p] = tile.to[start + p] * weights.outputs + tile.block * BLOCK;
                    }
                    if let Some(add) = tile.add {
                        for p in 0..P {
                            for v in 0..V {
                                let lanes = if v + 1 == V { mask } else { 0xFFFF };
                                // SAFETY: the block's channels, the last vector masked, lie inside the row of `add`.
                                let add = unsafe { widen(add.as_ptr().add(at[p] + 16 * v), lanes) };
                                sum[p][v] = _mm512_add_ps(sum[p][v], add);
                            }
                        }
                    }
                    for p in 0..P {
                        for v in 0..V {
                            sum[p][v] = _mm512_castsi512_ps(rounded(sum[p][v]));
                        }
                    }
                    for p in 0..P {
                        for v in 0..V {
                            let lanes = if v + 1 == V { mask } else { 0xFFFF };
                            // A pixel past the last repeats it and is not stored.
                            let lanes = if start + p < tile.count { lanes } else { 0 };
                            // SAFETY: as for `add`.
                            unsafe {
                                let to = tile.out.add(at[p] + 16 * v);
                                _mm256_mask_storeu_epi16(to.cast(), lanes, upper(sum[p][v]));
                            }
                        }
                    }
                }
            }

            /// Adds the products of all steps for `outputs` output channels and V vectors of source channels.
            ///
            /// # Safety
            /// The machine has the features; the pointers hold what their fields say, `to` this task's alone.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn outer(o: &Outer, vectors: usize, outputs: usize) {
                // SAFETY: handed on from this function's contract.
                unsafe {
                    match vectors {
                        1 => channels::<12, 1>(o, outputs),
                        2 => channels::<12, 2>(o, outputs),
                        3 => channels::<8, 3>(o, outputs),
                        _ => channels::<6, 4>(o, outputs),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn channels<const P: usize, const V: usize>(o: &Outer, outputs: usize) {
                let mut first = 0;
                // SAFETY: channels `first..first + P` are among the outputs.
                unsafe {
                    while first + P <= outputs {
                        block::<P, V>(o, first);
                        first += P;
                    }
                    while first + 4 <= outputs {
                        block::<4, V>(o, first);
                        first += 4;
                    }
                    while first + 2 <= outputs {
                        block::<2, V>(o, first);
                        first += 2;
                    }
                    if first < outputs {
                        block::<1, V>(o, first);
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn block<const P: usize, const V: usize>(o: &Outer, first: usize) {
                let mut sum = [[_mm512_setzero_ps(); V]; P];
                let to = o.to.wrapping_add(first * o.row);
                // SAFETY: handed on from the contract of `outer`.
                unsafe {
                    if !o.first {
                        for p in 0..P {
                            for v in 0..V {
                                let lanes = if v + 1 == V { o.lanes } else { 0xFFFF };
                                sum[p][v] = _mm512_maskz_loadu_ps(lanes, to.add(p * o.row + 16 * v));
                            }
                        }
                    }
                    let (mut x, mut dy) = (o.x, o.dy.add(first));
                    for _ in 0..o.steps {
                        let mut row = [_mm512_setzero_si512(); V];
                        for v in 0..V {
                            row[v] = _mm512_load_si512(x.add(v).cast());
                        }
                        for p in 0..P {
                            let dy = _mm512_set1_epi32(dy.add(p).cast::<i32>().read());
                            for v in 0..V {
                                sum[p][v] = $multiply(sum[p][v], dy, row[v]);
                            }
                        }
                        x = x.add(V);
                        dy = dy.wrapping_add(o.apart);
                    }
                    for p in 0..P {
                        for v in 0..V {
                            let lanes = if v + 1 == V { o.lanes } else { 0xFFFF };
                            _mm512_mask_storeu_ps(to.add(p * o.row + 16 * v), lanes, sum[p][v]);
                        }
                    }
                }
            }
        }
    };
}

/// `sum + a b`, the words f32 values.
#[inline]
#[target_feature(enable = "avx512f")]
fn multiply_f32(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
}

/// `sum + a0 b0 + a1 b1`, the words pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_pairs(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both are 512 bits without a meaning of their own.
    let (a, b): (__m512bh, __m512bh) = unsafe { (std::mem::transmute(a), std::mem::transmute(b)) };
    _mm512_dpbf16_ps(sum, a, b)
}

kernels!(fma, "avx512f,avx512bw,avx512vl", multiply_f32, false);
kernels!(dot, "avx512f,avx512bw,avx512vl,avx512bf16", multiply_pairs, true);
