//! Tables, luma, saturation and flips.
//!
//! Luma is a product of bytes too: of red, green, blue and green again, whose weights are made of two signed bytes, 256 a + b.

use std::arch::x86_64::*;

use super::{load, load_at, load_some, load_table, look_up, planes, store, store_some};
use crate::simd::Isa;

/// Pixels of a step, and their bytes.
const PIXELS: usize = 16;
const STEP: usize = 3 * PIXELS;

/// Replaces every byte by the table's; `false`, and nothing done, where the set has not what it takes.
pub(crate) fn map(isa: Isa, bytes: &mut [u8], table: &[u8; 256]) -> bool {
    if isa.has_avx512() {
        // SAFETY: the machine has what the function is compiled for: that is what the set says.
        unsafe { map_all(bytes, table) };
    }
    isa.has_avx512()
}

/// The sum of all pixels' luma; nothing where the set has not what it takes.
pub(crate) fn luma_sum(isa: Isa, pixels: &[u8]) -> Option<u64> {
    // SAFETY: the machine has what the function is compiled for: that is what the set says.
    isa.has_avx512().then(|| unsafe { sum_all(pixels) })
}

/// Replaces all pixels by their luma; `false`, and nothing done, where the set has not what it takes.
pub(crate) fn grayscale(isa: Isa, pixels: &mut [u8]) -> bool {
    if isa.has_avx512() {
        // SAFETY: the machine has what the function is compiled for: that is what the set says.
        unsafe { gray_all(pixels) };
    }
    isa.has_avx512()
}

/// Blends all pixels with their luma; `false`, and nothing done, where the set has not what it takes.
pub(crate) fn saturation(isa: Isa, pixels: &mut [u8], factor: f32) -> bool {
    if isa.has_avx512() {
        // SAFETY: the machine has what the function is compiled for: that is what the set says.
        unsafe { saturate_all(pixels, factor) };
    }
    isa.has_avx512()
}

/// Mirrors rows of `length` bytes; `false`, and nothing done, where the set has not what it takes.
pub(crate) fn flip(isa: Isa, pixels: &mut [u8], length: usize) -> bool {
    if isa.has_avx512() {
        for row in pixels.chunks_exact_mut(length) {
            // SAFETY: the machine has what the function is compiled for: that is what the set says.
            unsafe { flip_row(row) };
        }
    }
    isa.has_avx512()
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn map_all(bytes: &mut [u8], table: &[u8; 256]) {
    let table = load_table(table);
    let (blocks, rest) = bytes.as_chunks_mut::<64>();
    for block in blocks {
        store(block, look_up(&table, load(block)));
    }
    store_some(rest, look_up(&table, load_some(rest)));
}

/// Red, green, blue and green again of 16 pixels.
const QUADS: [u8; 64] = {
    let mut table = [0; 64];
    let mut at = 0;
    while at < 64 {
        table[at] = (at / 4 * 3 + [0, 1, 2, 1][at % 4]) as u8;
        at += 1;
    }
    table
};

/// At least the 16 pixels at `at`, as far as there are any.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn pixels_at(pixels: &[u8], at: usize) -> __m512i {
    match pixels[at..].first_chunk() {
        Some(bytes) => load(bytes),
        None => load_some(&pixels[at..]),
    }
}

/// Luma of 16 pixels that lie as in [`QUADS`].
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn luma(quads: __m512i) -> __m512i {
    let upper = _mm512_set1_epi32(i32::from_le_bytes([77, 75, 29, 75]));
    let lower = _mm512_set1_epi32(i32::from_le_bytes([-117i8 as u8, 70, 47, 0]));
    let upper = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quads, upper);
    let sum = _mm512_dpbusd_epi32(_mm512_set1_epi32(1 << 15), quads, lower);
    _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_slli_epi32::<8>(upper), sum))
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sum_all(pixels: &[u8]) -> u64 {
    let quads = load(&QUADS);
    let mut total = 0;
    // Sums of 32 bits are wide enough for that many.
    for pixels in pixels.chunks(STEP << 20) {
        let mut sum = _mm512_setzero_si512();
        for at in (0..pixels.len()).step_by(STEP) {
            // What lies after the last pixel is zeros, whose luma is zero.
            let bytes = pixels_at(pixels, at);
            sum = _mm512_add_epi32(sum, luma(_mm512_permutexvar_epi8(quads, bytes)));
        }
        let mut lanes = [0; 64];
        store(&mut lanes, sum);
        total += lanes.as_chunks().0.iter().map(|&lane| u64::from(u32::from_le_bytes(lane))).sum::<u64>();
    }
    total
}

/// Red, green, blue and green again of 64 pixels, from planes; [`bytes_of`] puts four times 16 numbers back in order.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn quads_of([r, g, b]: [__m512i; 3]) -> [__m512i; 4] {
    let [rg, bg] = [r, b].map(|c| [_mm512_unpacklo_epi8(c, g), _mm512_unpackhi_epi8(c, g)]);
    [
        _mm512_unpacklo_epi16(rg[0], bg[0]),
        _mm512_unpackhi_epi16(rg[0], bg[0]),
        _mm512_unpacklo_epi16(rg[1], bg[1]),
        _mm512_unpackhi_epi16(rg[1], bg[1]),
    ]
}

/// Four times 16 numbers of 32 bits, cut off to bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn bytes_of([a, b, c, d]: [__m512i; 4]) -> __m512i {
    _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d))
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn gray_all(pixels: &mut [u8]) {
    planes(pixels, |colors| {
        let [a, b, c, d] = quads_of(colors);
        [bytes_of([luma(a), luma(b), luma(c), luma(d)]); 3]
    });
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn saturate_all(pixels: &mut [u8], factor: f32) {
    let factor = _mm512_set1_ps(factor);
    planes(pixels, |colors| {
        let mut channels = [[_mm512_setzero_si512(); 4]; 3];
        for (i, quads) in quads_of(colors).into_iter().enumerate() {
            let dull = _mm512_cvtepi32_ps(luma(quads));
            channels[0][i] = blend(dull, quads, factor);
            channels[1][i] = blend(dull, _mm512_srli_epi32::<8>(quads), factor);
            channels[2][i] = blend(dull, _mm512_srli_epi32::<16>(quads), factor);
        }
        let [r, g, b] = channels;
        [bytes_of(r), bytes_of(g), bytes_of(b)]
    });
}

/// dull + factor * (value - dull), of the lowest bytes of `value`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn blend(dull: __m512, value: __m512i, factor: __m512) -> __m512i {
    let value = _mm512_cvtepi32_ps(_mm512_and_si512(value, _mm512_set1_epi32(255)));
    let value = _mm512_add_ps(dull, _mm512_mul_ps(factor, _mm512_sub_ps(value, dull)));
    // Without the lesser of the two a large value would become the least integer. In this order NaN stays NaN, and becomes 0 as in Rust.
    _mm512_cvttps_epi32(_mm512_min_ps(_mm512_set1_ps(255.0), value))
}

/// Bytes of the most pixels that a vector holds.
const TURN: usize = 63;

/// 21 pixels in the other order.
const TURNED: [u8; 64] = {
    let mut table = [0; 64];
    let mut at = 0;
    while at < TURN {
        table[at] = (TURN - 3 - at / 3 * 3 + at % 3) as u8;
        at += 1;
    }
    table
};

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn flip_row(row: &mut [u8]) {
    let turned = load(&TURNED);
    let (mut left, mut right) = (0, row.len());
    while right - left >= 2 * TURN {
        let from_left = load_at(row, left);
        let from_right = load_some(&row[right - TURN..right]);
        store_some(&mut row[left..left + TURN], _mm512_permutexvar_epi8(turned, from_right));
        store_some(&mut row[right - TURN..right], _mm512_permutexvar_epi8(turned, from_left));
        left += TURN;
        right -= TURN;
    }
    row[left..right].as_chunks_mut::<3>().0.reverse();
}
