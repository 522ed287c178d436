//! The micro-kernels: sums stay in registers, words are multiplied in f32 or as pairs of bf16.
//!
//! Forward and input gradient, [`fma::tile`]: P rows (pixels) x 16 V outputs (6 x 64, 8 x 48, 12 x 32, 12 x 16); a step loads V lines of packed
//! weights and broadcasts a word of each pixel's source row. The weight gradient, [`fma::outer`]: P output channels x 16 V source
//! channels; a step (a pixel, or a pair) loads V lines of source values and broadcasts P words of gradients. 24 products
//! go with 10 to 14 loads, so the multiplier is the limit.
//!
//! Written once, compiled for each [`Unit`](super::Unit) with its instruction.

// Loops of known length over arrays that must stay in registers are written with their indices.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::{BLOCK, Line, rounded, upper, widen};

/// The most rows of a micro-kernel.
pub(crate) const MOST: usize = 12;

/// Rows (pixels, in a convolution) that are multiplied with a block of outputs.
pub(crate) struct Tile<'a> {
    /// `[taps, padded]`: where each row's words begin; `zeros` for padding. Rows past `count` repeat the last.
    pub(crate) from: &'a [*const u32],
    pub(crate) zeros: *const u32,
    pub(crate) count: usize,
    /// At least `count + MOST - 1`.
    pub(crate) padded: usize,
    /// `[padded, BLOCK]`: sums that are not at their end.
    pub(crate) sums: *mut f32,
}

/// A part of the sum over taps and words.
pub(crate) struct Part<'a> {
    pub(crate) taps: Range<usize>,
    /// The first word of each row, how many follow, and whether the low half of one more.
    pub(crate) start: usize,
    pub(crate) steps: usize,
    pub(crate) odd: bool,
    /// `[taps][steps, and one if odd][vectors]` lines of weights.
    pub(crate) panel: &'a [Line],
    pub(crate) ahead: Ahead,
    pub(crate) first: bool,
    /// Where results go after the last part; the others leave sums.
    pub(crate) end: Option<End<'a>>,
}

/// Memory to be asked for meanwhile: `rows` rows of `lines` cache lines, `apart` bytes from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) next: *const u8,
    pub(crate) rows: usize,
    pub(crate) lines: usize,
    pub(crate) apart: usize,
}

/// Where bf16 results go.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// `[padded]`: the output row of each row, and its length.
    pub(crate) to: &'a [usize],
    pub(crate) outputs: usize,
    /// The block's first output, and the lanes of its last vector.
    pub(crate) channel: usize,
    pub(crate) lanes: __mmask16,
    pub(crate) out: *mut bf16,
    pub(crate) add: Option<&'a [bf16]>,
}

/// Steps between two requests for memory ahead.
const ROUND: usize = 8;

/// What the weight gradient of one tile of pixels adds, for one block of source channels.
pub(crate) struct Outer {
    /// `[steps][V]` lines of source values.
    pub(crate) x: *const Line,
    /// `[steps]`, `apart` words from one to the next: gradients of output channels.
    pub(crate) dy: *const u32,
    pub(crate) apart: usize,
    pub(crate) steps: usize,
    /// One row of source channels for each output channel, `row` values apart.
    pub(crate) to: *mut f32,
    pub(crate) row: usize,
    pub(crate) lanes: __mmask16,
    /// Whether nothing was stored yet.
    pub(crate) first: bool,
    /// Whether to store around the caches, which asks for aligned rows and full lanes, and for a fence afterwards.
    pub(crate) stream: bool,
}

macro_rules! kernels {
    ($name:ident, $features:literal, $multiply:expr, $odd:literal) => {
        pub(crate) mod $name {
            use super::*;

            /// A part of the sum of every row of a tile, for `vectors` registers of outputs.
            ///
            /// # Safety
            /// The machine has the features. The tile's rows hold the part's words, the panel its lines; `sums`, or the end's rows of
            /// `out`, which hold the block's outputs, as `add` does, are this task's alone.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn tile(tile: &Tile, part: &Part, vectors: usize) {
                // SAFETY: handed on from this function's contract.
                unsafe {
                    match vectors {
                        1 => rows::<12, 1>(tile, part),
                        2 => rows::<12, 2>(tile, part),
                        3 => rows::<8, 3>(tile, part),
                        _ => rows::<6, 4>(tile, part),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn rows<const P: usize, const V: usize>(tile: &Tile, part: &Part) {
                let odd = $odd && part.odd;
                let per_tap = (part.steps + usize::from(odd)) * V;
                assert!(part.panel.len() >= part.taps.len() * per_tap, "words: a panel is too short");
                let Ahead { mut next, rows: ahead_rows, lines, apart } = part.ahead;
                let rounds = tile.count.div_ceil(P) * part.taps.len() * part.steps.div_ceil(ROUND);
                let share = (ahead_rows * lines).div_ceil(rounds.max(1));
                let mut line = 0;
                for start in (0..tile.count).step_by(P) {
                    let sums = tile.sums.wrapping_add(start * BLOCK);
                    let mut sum = [[_mm512_setzero_ps(); V]; P];
                    if !part.first {
                        for p in 0..P {
                            for v in 0..V {
                                // SAFETY: `sums` has room for padded rows.
                                sum[p][v] = unsafe { _mm512_loadu_ps(sums.add(p * BLOCK + 16 * v)) };
                            }
                        }
                    }
                    let mut w = part.panel.as_ptr();
                    for tap in part.taps.clone() {
                        let table = &tile.from[tap * tile.padded + start..][..P];
                        let mut from = [table[0]; P];
                        let mut inside = false;
                        for p in 0..P {
                            from[p] = table[p].wrapping_add(part.start);
                            inside |= table[p] != tile.zeros;
                        }
                        if !inside {
                            w = w.wrapping_add(per_tap);
                            continue;
                        }
                        // SAFETY: `w` walks over the part's lines of weights; each row holds the part's words.
                        unsafe {
                            for round in (0..part.steps).step_by(ROUND) {
                                for _ in 0..share {
                                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                                    line += 1;
                                    next = next.wrapping_add(64);
                                    if line == lines {
                                        line = 0;
                                        next = next.wrapping_add(apart).wrapping_sub(64 * lines);
                                    }
                                }
                                for c in round..(round + ROUND).min(part.steps) {
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
                            }
                            if odd {
                                let mut row = [_mm512_setzero_si512(); V];
                                for v in 0..V {
                                    row[v] = _mm512_load_si512(w.add(v).cast());
                                }
                                w = w.add(V);
                                for p in 0..P {
                                    let last = from[p].add(part.steps).cast::<u16>().read_unaligned();
                                    let x = _mm512_set1_epi32(i32::from(last));
                                    for v in 0..V {
                                        sum[p][v] = $multiply(sum[p][v], x, row[v]);
                                    }
                                }
                            }
                        }
                    }
                    let Some(end) = part.end else {
                        for p in 0..P {
                            for v in 0..V {
                                // SAFETY: as for the loads.
                                unsafe { _mm512_storeu_ps(sums.add(p * BLOCK + 16 * v), sum[p][v]) };
                            }
                        }
                        continue;
                    };
                    // Short loops of known length, so that `sum` stays in registers: unrolled they are, or it is an array.
                    let mask = end.lanes;
                    let mut at = [0; P];
                    for p in 0..P {
                        at[p] = end.to[start + p] * end.outputs + end.channel;
                    }
                    if let Some(add) = end.add {
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
                                let to = end.out.add(at[p] + 16 * v);
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
            pub(crate) unsafe fn outer(o: &Outer, vectors: usize, outputs: usize) {
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
                    if o.stream {
                        for p in 0..P {
                            for v in 0..V {
                                _mm512_stream_ps(to.add(p * o.row + 16 * v), sum[p][v]);
                            }
                        }
                        return;
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
    let [a, b] = [a, b].map(|v| unsafe { std::mem::transmute::<__m512i, __m512bh>(v) });
    _mm512_dpbf16_ps(sum, a, b)
}

kernels!(fma, "avx512f,avx512bw,avx512vl", multiply_f32, false);
kernels!(dot, "avx512f,avx512bw,avx512vl,avx512bf16", multiply_pairs, true);
