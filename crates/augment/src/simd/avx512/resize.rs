//! Resampling with products of bytes: four taps of sixteen sums at once.
//!
//! A weight has 24 bits and is taken apart into three signed bytes, w = 65536 a + 256 b + c; a pixel is a byte as it is. So `vpdpbusd` sums the
//! products of four taps exactly, three of its sums make the one of the whole weights, and nothing is widened. (Only the last 32 bits of the
//! sums count, as the whole fits into them.)
//!
//! Along the rows a byte permutation brings the four taps of sixteen neighboring outputs together, the same for every row. Four rows are made
//! at once and written with their bytes side by side, which is as the pass along the columns wants its taps.

use std::arch::x86_64::*;

use super::{load, load_at, store, store_some};
use crate::image::Image;
use crate::ops::CropBox;
use crate::ops::{PRECISION, Weights};
use crate::simd::Isa;

/// Outputs of a vector of sums.
const LANES: usize = 16;
/// Rows, or taps, whose bytes lie side by side.
const SIDE: usize = 4;

/// Which inputs meet which weights along the rows; kept from picture to picture for its memory.
#[derive(Default)]
pub(crate) struct Plan {
    /// Of every vector of outputs: the byte of the row where its taps begin.
    starts: Vec<usize>,
    /// Of every vector of outputs: where its first four taps lie after that; every further four are `SIDE` pixels on.
    indices: Vec<[u8; 64]>,
    /// Of every vector of outputs and every four taps: the three bytes of their weights.
    weights: Vec<[[u8; 64]; 3]>,
    /// Fours of taps.
    groups: usize,
    /// How many bytes of a row are read, of which some may lie after its end.
    reach: usize,
    /// Whether indices go beyond 63, so that it takes two vectors to hold the inputs.
    wide: bool,
    /// Rows at the end of the picture, copied to where there is room to read on.
    tail: Vec<u8>,
}

impl Plan {
    /// The plan of these weights, or nothing where the picture shrinks so much that inputs are out of a permutation's reach.
    fn set(&mut self, weights: &Weights) -> bool {
        let lanes = weights.len() * 3;
        let vectors = lanes.div_ceil(LANES);
        let most = (0..weights.len()).map(|x| weights.of(x).1.len()).max().unwrap_or(1);
        self.groups = most.div_ceil(SIDE);
        self.starts.clear();
        self.indices.clear();
        self.weights.clear();
        self.weights.resize(vectors * self.groups, [[0; 64]; 3]);
        self.reach = 0;
        self.wide = false;
        for vector in 0..vectors {
            let (from, to) = (vector * LANES, (vector * LANES + LANES).min(lanes));
            let start = weights.of(from / 3).0.min(weights.of((to - 1) / 3).0) * 3;
            let mut index = [0; 64];
            let mut furthest = 0;
            for lane in from..to {
                let (x, channel) = (lane / 3, lane % 3);
                let (first, taps) = weights.of(x);
                let at = first * 3 + channel - start;
                furthest = furthest.max(at + 3 * (SIDE - 1));
                let place = (lane - from) * SIDE;
                for k in 0..SIDE {
                    index[place + k] = (at + 3 * k) as u8;
                }
                for (k, &weight) in taps.iter().enumerate() {
                    let group = &mut self.weights[vector * self.groups + k / SIDE];
                    for (limb, byte) in group.iter_mut().zip(limbs(weight)) {
                        limb[place + k % SIDE] = byte;
                    }
                }
            }
            if furthest >= 128 {
                return false;
            }
            self.wide |= furthest >= 64;
            self.starts.push(start);
            self.indices.push(index);
            self.reach = self.reach.max(start);
        }
        self.reach += (self.groups - 1) * 3 * SIDE + if self.wide { 128 } else { 64 };
        true
    }
}

/// A weight as 65536 a + 256 b + c, signed bytes: c, b, a.
#[inline(always)]
fn limbs(weight: i32) -> [u8; 3] {
    let c = weight as i8;
    let weight = (weight - i32::from(c)) >> 8;
    let b = weight as i8;
    [c as u8, b as u8, ((weight - i32::from(b)) >> 8) as u8]
}

/// Resamples the part of `image` under `crop`; `false`, and nothing done, where the set has not what it takes or the picture shrinks too much.
#[allow(clippy::too_many_arguments)]
pub(crate) fn resample(
    isa: Isa,
    image: &Image,
    crop: CropBox,
    across: &Weights,
    down: &Weights,
    between: &mut Vec<u8>,
    plan: &mut Plan,
    out: &mut Image,
) -> bool {
    if !isa.has_avx512() || !plan.set(across) {
        return false;
    }
    // Whole vectors of bytes, so that the second pass has no remainder but in its stores.
    let stride = (out.width * 3).next_multiple_of(64) * SIDE;
    between.resize(stride * crop.height.div_ceil(SIDE), 0);
    // SAFETY: the machine has what the functions are compiled for: that is what the set says.
    unsafe {
        along_rows(image, crop, plan, stride, between);
        along_columns(between, stride, down, out);
    }
    true
}

/// The crop, resampled along its rows: blocks of four rows with their bytes side by side, `stride` bytes each.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn along_rows(image: &Image, crop: CropBox, plan: &mut Plan, stride: usize, out: &mut [u8]) {
    let pitch = image.width * 3;
    let mut tail = std::mem::take(&mut plan.tail);
    for (block, out) in out.chunks_exact_mut(stride).enumerate() {
        // What a last block lacks is its last row again, to which the second pass gives no weight.
        let rows: [usize; SIDE] = std::array::from_fn(|r| (block * SIDE + r).min(crop.height - 1));
        let starts = rows.map(|y| ((crop.y + y) * image.width + crop.x) * 3);
        if starts[SIDE - 1] + plan.reach <= image.pixels.len() {
            let end = starts[SIDE - 1] + plan.reach;
            block_of_rows(plan, &image.pixels[..end], starts, out);
        } else {
            let room = plan.reach.max(pitch);
            tail.resize(SIDE * room, 0);
            for (row, y) in tail.chunks_exact_mut(room).zip(rows) {
                row[..crop.width * 3].copy_from_slice(crop.row(image, y));
            }
            block_of_rows(plan, &tail, std::array::from_fn(|r| r * room), out);
        }
    }
    plan.tail = tail;
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn block_of_rows(plan: &Plan, pixels: &[u8], rows: [usize; SIDE], out: &mut [u8]) {
    if plan.wide {
        block_of_rows_from::<true>(plan, pixels, rows, out);
    } else {
        block_of_rows_from::<false>(plan, pixels, rows, out);
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn block_of_rows_from<const WIDE: bool>(plan: &Plan, pixels: &[u8], rows: [usize; SIDE], out: &mut [u8]) {
    // 0 4 8 12 1 5 9 13 ...: from four bytes of each row to four rows of each byte.
    let side_by_side = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let half = _mm512_set1_epi32(1 << (PRECISION - 1));
    let (out, _) = out.as_chunks_mut::<64>();
    let vectors = plan.starts.iter().zip(&plan.indices).zip(plan.weights.chunks_exact(plan.groups));
    for (((&start, index), groups), out) in vectors.zip(out) {
        let index = load(index);
        let mut sums = [[half, _mm512_setzero_si512(), _mm512_setzero_si512()]; SIDE];
        for (group, weights) in groups.iter().enumerate() {
            let weights = [load(&weights[0]), load(&weights[1]), load(&weights[2])];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let at = row + start + group * 3 * SIDE;
                let taps = if WIDE {
                    _mm512_permutex2var_epi8(load_at(pixels, at), index, load_at(pixels, at + 64))
                } else {
                    _mm512_permutexvar_epi8(index, load_at(pixels, at))
                };
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, taps, weight);
                }
            }
        }
        let [a, b, c, d] = sums.map(|sums| whole(sums));
        let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        store(out, _mm512_shuffle_epi8(bytes, side_by_side));
    }
}

/// The sums of the three bytes of the weights as one, without the bits after the point.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn whole([c, b, a]: [__m512i; 3]) -> __m512i {
    let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(a), b);
    let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(sum), c);
    _mm512_srai_epi32::<PRECISION>(sum)
}

/// Blocks of four rows side by side, resampled along the columns.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn along_columns(source: &[u8], stride: usize, weights: &Weights, out: &mut Image) {
    let in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let half = _mm512_set1_epi32(1 << (PRECISION - 1));
    let mut groups: Vec<[i32; 3]> = Vec::with_capacity(weights.most().div_ceil(SIDE) + 1);
    for (y, row) in out.pixels.chunks_exact_mut(out.width * 3).enumerate() {
        let (first, taps) = weights.of(y);
        groups.clear();
        groups.resize((first % SIDE + taps.len()).div_ceil(SIDE), [0; 3]);
        for (k, &weight) in taps.iter().enumerate() {
            let at = first % SIDE + k;
            for (limb, byte) in groups[at / SIDE].iter_mut().zip(limbs(weight)) {
                *limb |= i32::from(byte) << (8 * (at % SIDE));
            }
        }
        let source = &source[first / SIDE * stride..][..groups.len() * stride];
        for (step, out) in row.chunks_mut(64).enumerate() {
            let mut sums = [[half, _mm512_setzero_si512(), _mm512_setzero_si512()]; 4];
            for (weights, source) in groups.iter().zip(source.chunks_exact(stride)) {
                let weights = weights.map(|w| _mm512_set1_epi32(w));
                let (taps, _) = source[step * 256..step * 256 + 256].as_chunks::<64>();
                for (sums, taps) in sums.iter_mut().zip(taps) {
                    let taps = load(taps);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, taps, weight);
                    }
                }
            }
            let [a, b, c, d] = sums.map(|sums| whole(sums));
            let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let bytes = _mm512_permutexvar_epi32(in_order, bytes);
            match out.first_chunk_mut() {
                Some(out) => store(out, bytes),
                None => store_some(out, bytes),
            }
        }
    }
}
