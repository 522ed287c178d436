//! Resampling with products of bytes: four taps of sixteen sums at once.
//!
//! A weight has 24 bits and is taken apart into three signed bytes, w = 65536 a + 256 b + c; a pixel is a byte as it is. So `vpdpbusd` sums the
//! products of four taps exactly, three of its sums make the one of the whole weights, and nothing is widened. (Only the last 32 bits of the
//! sums count, as the whole fits into them.)
//!
//! Along the rows a byte permutation brings the four taps of sixteen neighboring outputs together, the same for every row. Four rows are made
//! at once and written with their bytes side by side, which is as the pass along the columns wants its taps.

use std::arch::x86_64::*;

use super::{load_lanes, load_within, store, store_lanes, store_some};
use crate::image::Image;
use crate::ops::CropBox;
use crate::ops::{PRECISION, Weights};
use crate::simd::Isa;

/// Outputs of a vector of sums.
const LANES: usize = 16;
/// The half that makes cutting off a rounding, as it is before the sums are moved up twice.
const HALF: i32 = 1 << (PRECISION - 1 - 16);
/// Rows, or taps, whose bytes lie side by side.
const SIDE: usize = 4;

/// Which inputs meet which weights; kept from picture to picture for its memory.
#[derive(Default)]
pub(crate) struct Plan {
    /// Along the rows.
    across: Limbs,
    /// Along the columns.
    down: Limbs,
    /// Of every vector of outputs: the byte of the row where its taps begin.
    starts: Vec<usize>,
    /// Of every vector of outputs: where its first four taps lie after that; every further four are `SIDE` pixels on.
    indices: Vec<[u32; LANES]>,
    /// Of every vector of outputs: the highest bytes of its weights, four by four taps; then the middle ones; then the lowest.
    weights: Vec<[u32; LANES]>,
    /// Fours of taps.
    groups: usize,
    /// How many bytes of a row are read, of which some may lie after its end.
    reach: usize,
    /// Whether indices go beyond 63, so that it takes two vectors to hold the inputs.
    wide: bool,
    /// Rows at the end of the picture, copied to where there is room to read on.
    tail: Vec<u8>,
}

/// Weights as 65536 a + 256 b + c, signed bytes, four side by side.
#[derive(Default)]
struct Limbs {
    /// All a, all b, all c: of every output the first four, of every output the next four, and so on.
    bytes: [Vec<u32>; 3],
    /// The first input of every output.
    firsts: Vec<u32>,
    /// Fours of weights of an output.
    groups: usize,
    /// Outputs, and room for a vector of them.
    stride: usize,
}

impl Limbs {
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn set(&mut self, weights: &Weights) {
        self.groups = weights.room() / SIDE;
        self.stride = weights.len() + LANES;
        self.firsts.clear();
        self.firsts.extend((0..weights.len()).map(|i| weights.span(i).0 as u32));
        self.firsts.resize(self.stride, 0);
        for limb in &mut self.bytes {
            limb.clear();
            limb.resize(self.groups * self.stride, 0);
        }
        let [high, middle, low] = &mut self.bytes;
        for (i, weights) in weights.all().chunks_exact(weights.room()).enumerate() {
            for (group, weights) in weights.as_chunks::<SIDE>().0.iter().enumerate() {
                let [mut a, mut b, mut c] = [[0; SIDE]; 3];
                for k in 0..SIDE {
                    c[k] = weights[k] as u8;
                    let rest = (weights[k] - i32::from(c[k] as i8)) >> 8;
                    b[k] = rest as u8;
                    a[k] = ((rest - i32::from(b[k] as i8)) >> 8) as u8;
                }
                let at = group * self.stride + i;
                [high[at], middle[at], low[at]] = [a, b, c].map(u32::from_le_bytes);
            }
        }
    }
}

impl Plan {
    /// The plan of these weights; `false` where the picture shrinks so much that inputs are out of a permutation's reach.
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn set(&mut self, across: &Weights, down: &Weights) -> bool {
        let lanes = across.len() * 3;
        let vectors = lanes.div_ceil(LANES);
        self.starts.clear();
        let mut furthest = 0;
        for vector in 0..vectors {
            let (from, to) = (vector * LANES, (vector * LANES + LANES).min(lanes));
            let [first, last] = [from / 3, (to - 1) / 3].map(|x| across.span(x).0 * 3);
            furthest = furthest.max(first.abs_diff(last));
            self.starts.push(first.min(last));
        }
        // The third channel of the fourth tap.
        furthest += 2 + 3 * (SIDE - 1);
        if furthest >= 128 {
            return false;
        }
        self.across.set(across);
        self.down.set(down);
        self.wide = furthest >= 64;
        self.groups = self.across.groups;
        self.reach = self.starts.iter().max().copied().unwrap_or(0)
            + (self.groups - 1) * 3 * SIDE
            + if self.wide { 128 } else { 64 };
        self.indices.resize(vectors, [0; LANES]);
        self.weights.resize(vectors * 3 * self.groups, [0; LANES]);
        let plans = self.indices.iter_mut().zip(self.weights.chunks_exact_mut(3 * self.groups)).zip(&self.starts);
        for (vector, ((index, weights), &start)) in plans.enumerate() {
            let (x, phase) = (vector * LANES / 3, vector * LANES % 3);
            // Three lanes for each output. In each of the four bytes of an index; the second, third and fourth tap are 3, 6 and 9 bytes on.
            let [output, channel] = [load_lanes(&OUTPUTS[phase]), load_lanes(&CHANNELS[phase])];
            let spread = |numbers: &[u32]| {
                _mm512_permutexvar_epi32(output, load_lanes(numbers.first_chunk().expect("there is room")))
            };
            let first = _mm512_mullo_epi32(spread(&self.across.firsts[x..]), _mm512_set1_epi32(3));
            let byte = _mm512_add_epi32(_mm512_sub_epi32(first, _mm512_set1_epi32(start as i32)), channel);
            let bytes = _mm512_mullo_epi32(byte, _mm512_set1_epi32(0x0101_0101));
            store_lanes(index, _mm512_add_epi32(bytes, _mm512_set1_epi32(0x0906_0300)));
            for (limb, weights) in self.across.bytes.iter().zip(weights.chunks_exact_mut(self.groups)) {
                for (weights, limb) in weights.iter_mut().zip(limb.chunks_exact(self.across.stride)) {
                    store_lanes(weights, spread(&limb[x..]));
                }
            }
        }
        true
    }
}

/// Which output, from the first one on, and which channel the lanes of a vector are, if it begins with the first, second or third channel.
const OUTPUTS: [[u32; LANES]; 3] = thirds(false);
const CHANNELS: [[u32; LANES]; 3] = thirds(true);

const fn thirds(rest: bool) -> [[u32; LANES]; 3] {
    let mut table = [[0; LANES]; 3];
    let mut at = 0;
    while at < 3 * LANES {
        let (phase, lane) = (at / LANES, at % LANES);
        table[phase][lane] = if rest { (lane + phase) % 3 } else { (lane + phase) / 3 } as u32;
        at += 1;
    }
    table
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
    if !isa.has_avx512() {
        return false;
    }
    // Whole vectors of bytes, so that the second pass has no remainder but in its stores.
    let stride = (out.width * 3).next_multiple_of(64) * SIDE;
    between.resize(stride * crop.height.div_ceil(SIDE), 0);
    // SAFETY: the machine has what the functions are compiled for: that is what the set says.
    unsafe {
        if !plan.set(across, down) {
            return false;
        }
        along_rows(image, crop, plan, stride, between);
        along_columns(between, stride, down, &plan.down, out);
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
    // Shrinking to a half or less takes more than two fours of taps.
    match (plan.wide, plan.groups) {
        (false, 1) => block_of_rows_from::<false, 1>(plan, pixels, rows, out),
        (false, 2) => block_of_rows_from::<false, 2>(plan, pixels, rows, out),
        (false, 3) => block_of_rows_from::<false, 3>(plan, pixels, rows, out),
        (false, _) => block_of_rows_from::<false, 0>(plan, pixels, rows, out),
        (true, _) => block_of_rows_from::<true, 0>(plan, pixels, rows, out),
    }
}

/// `GROUPS` is the number of fours of taps, or 0 if it is not known when this is compiled.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn block_of_rows_from<const WIDE: bool, const GROUPS: usize>(
    plan: &Plan,
    pixels: &[u8],
    rows: [usize; SIDE],
    out: &mut [u8],
) {
    // 0 4 8 12 1 5 9 13 ...: from four bytes of each row to four rows of each byte.
    let side_by_side = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let groups = if GROUPS == 0 { plan.groups } else { GROUPS };
    let rows = rows.map(|row| &pixels[row..row + plan.reach]);
    let (out, _) = out.as_chunks_mut::<64>();
    let vectors = plan.starts.iter().zip(&plan.indices).zip(plan.weights.chunks_exact(3 * groups));
    for (((&start, index), weights), out) in vectors.zip(out) {
        let index = load_lanes(index);
        assert!(start + (groups - 1) * 3 * SIDE + if WIDE { 128 } else { 64 } <= plan.reach);
        let taps = |row: &[u8], group: usize| {
            let at = start + group * 3 * SIDE;
            // SAFETY: a row has `reach` bytes, of which these are no last ones, as was just asserted.
            let (first, second) =
                unsafe { (load_within(row, at), if WIDE { load_within(row, at + 64) } else { index }) };
            if WIDE { _mm512_permutex2var_epi8(first, index, second) } else { _mm512_permutexvar_epi8(index, first) }
        };
        // The sums of the high bytes are moved up and go on as those of the middle ones, and then of the low ones.
        let mut sums = [_mm512_set1_epi32(HALF); SIDE];
        let mut kept = [[_mm512_setzero_si512(); GROUPS]; SIDE];
        for (limb, weights) in weights.chunks_exact(groups).enumerate() {
            for (group, weights) in weights.iter().enumerate() {
                let weights = load_lanes(weights);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let taps = match kept[r].get_mut(group) {
                        Some(kept) if limb > 0 => *kept,
                        Some(kept) => {
                            *kept = taps(rows[r], group);
                            *kept
                        }
                        None => taps(rows[r], group),
                    };
                    *sum = _mm512_dpbusd_epi32(*sum, taps, weights);
                }
            }
            for sum in &mut sums {
                *sum = next_limb(*sum, limb);
            }
        }
        let [a, b, c, d] = sums;
        let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        store(out, _mm512_shuffle_epi8(bytes, side_by_side));
    }
}

/// Makes room for the next limb in sums of the first `limb + 1`; after the last limb, what lies before the point.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn next_limb(sum: __m512i, limb: usize) -> __m512i {
    match limb {
        0 | 1 => _mm512_slli_epi32::<8>(sum),
        _ => _mm512_srai_epi32::<PRECISION>(sum),
    }
}

/// Blocks of four rows side by side, resampled along the columns.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn along_columns(source: &[u8], stride: usize, weights: &Weights, limbs: &Limbs, out: &mut Image) {
    // Blocks begin at every fourth row: weights that begin elsewhere are moved, which may take one block more.
    let mut moved = [const { Vec::new() }; 3];
    for (y, row) in out.pixels.chunks_exact_mut(out.width * 3).enumerate() {
        let (first, count) = weights.span(y);
        let groups = (first % SIDE + count).div_ceil(SIDE);
        for (moved, bytes) in moved.iter_mut().zip(&limbs.bytes) {
            let mut bytes = bytes.iter().skip(y).step_by(limbs.stride);
            let shift = 8 * (first % SIDE);
            moved.clear();
            let mut before = 0u64;
            for _ in 0..groups {
                let pair = u64::from(bytes.next().copied().unwrap_or(0)) << 32 | before;
                moved.push(_mm512_set1_epi32((pair >> (32 - shift)) as i32));
                before = pair >> 32;
            }
        }
        let source = &source[first / SIDE * stride..][..groups * stride];
        let moved = [&moved[0][..], &moved[1], &moved[2]];
        match groups {
            1 => row_of_columns::<1>(source, stride, moved, row),
            2 => row_of_columns::<2>(source, stride, moved, row),
            3 => row_of_columns::<3>(source, stride, moved, row),
            _ => row_of_columns::<0>(source, stride, moved, row),
        }
    }
}

/// One row of the result, from blocks of `stride` bytes. `GROUPS` is the number of blocks, or 0 if it is not known when this is compiled.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn row_of_columns<const GROUPS: usize>(source: &[u8], stride: usize, weights: [&[__m512i]; 3], row: &mut [u8]) {
    let in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let groups = if GROUPS == 0 { weights[0].len() } else { GROUPS };
    let weights = weights.map(|limb| &limb[..groups]);
    let source = &source[..groups * stride];
    for (step, out) in row.chunks_mut(64).enumerate() {
        assert!(step * 256 + 256 <= stride);
        // SAFETY: a block has `stride` bytes, of which these are some, as was just asserted.
        let taps = |group: usize, i: usize| unsafe { load_within(source, group * stride + step * 256 + i * 64) };
        let mut kept = [[_mm512_setzero_si512(); GROUPS]; 4];
        for (i, kept) in kept.iter_mut().enumerate() {
            for (group, kept) in kept.iter_mut().enumerate() {
                *kept = taps(group, i);
            }
        }
        let mut sums = [_mm512_set1_epi32(HALF); 4];
        for (limb, weights) in weights.iter().enumerate() {
            for (group, weights) in weights.iter().enumerate() {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let taps = kept[i].get(group).copied().unwrap_or_else(|| taps(group, i));
                    *sum = _mm512_dpbusd_epi32(*sum, taps, *weights);
                }
            }
            for sum in &mut sums {
                *sum = next_limb(*sum, limb);
            }
        }
        let [a, b, c, d] = sums;
        let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        let bytes = _mm512_permutexvar_epi32(in_order, bytes);
        match out.first_chunk_mut() {
            Some(out) => store(out, bytes),
            None => store_some(out, bytes),
        }
    }
}
