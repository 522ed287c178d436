//! Loops written for AVX-512 with byte permutes (VBMI) and byte products (VNNI).
//!
//! Every function that is called from outside takes an [`Isa`](super::Isa) and says whether the set has what it needs; where it has not, nothing was done, and the
//! caller's portable loop does it.

mod blur;
mod color;
mod hue;
mod normalize;
mod resize;

pub(crate) use blur::blur;
pub(crate) use color::{flip, grayscale, luma_sum, map, saturation};
pub(crate) use hue::turn_hue;
pub(crate) use normalize::normalize;
pub(crate) use resize::{Plan, resample};

use std::arch::x86_64::*;

/// 64 bytes as a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 bytes; unaligned loads need no more.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The 64 bytes at `at`.
///
/// # Panics
/// If they are not all in `bytes`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_at(bytes: &[u8], at: usize) -> __m512i {
    load(bytes[at..].first_chunk().expect("64 bytes are there"))
}

/// 16 numbers as a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_lanes(lanes: &[u32; 16]) -> __m512i {
    // SAFETY: the reference is to 64 bytes; unaligned loads need no more.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// The 64 bytes at `at`, for loops in which asking for each would cost as much as the rest.
///
/// # Safety
/// They are all in `bytes`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn load_within(bytes: &[u8], at: usize) -> __m512i {
    debug_assert!(at + 64 <= bytes.len());
    // SAFETY: the bytes are in the slice, as the caller knows; unaligned loads need no more.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().add(at).cast()) }
}

/// 16 bytes as a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_few(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 bytes; unaligned loads need no more.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The 16 bytes at `at`.
///
/// # Safety
/// They are all in `bytes`.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
unsafe fn load_few_within(bytes: &[u8], at: usize) -> __m128i {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: the bytes are in the slice, as the caller knows; unaligned loads need no more.
    unsafe { _mm_loadu_si128(bytes.as_ptr().add(at).cast()) }
}

/// Writes a vector of 16 bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_few(bytes: &mut [u8; 16], vector: __m128i) {
    // SAFETY: the reference is to 16 bytes; unaligned stores need no more.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) }
}

/// The first bytes of `bytes`, up to 64; zeros after them.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_some(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask leaves out what is not in the slice, and masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi8(first_lanes(bytes.len()), bytes.as_ptr().cast()) }
}

/// Writes a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store(bytes: &mut [u8; 64], vector: __m512i) {
    // SAFETY: the reference is to 64 bytes; unaligned stores need no more.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// Writes a vector of 16 numbers.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_lanes(lanes: &mut [u32; 16], vector: __m512i) {
    // SAFETY: the reference is to 64 bytes; unaligned stores need no more.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), vector) }
}

/// Writes as much of a vector as `bytes` has room for.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_some(bytes: &mut [u8], vector: __m512i) {
    // SAFETY: the mask leaves out what is not in the slice, and masked lanes are not written.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first_lanes(bytes.len()), vector) }
}

/// The first `n` of 64 lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// Runs `step` over red, green and blue of 64 pixels at a time, and writes what it gives.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn planes(pixels: &mut [u8], step: impl Fn([__m512i; 3]) -> [__m512i; 3]) {
    let (blocks, rest) = pixels.as_chunks_mut::<192>();
    for block in blocks {
        join(step(split(block)), block);
    }
    if !rest.is_empty() {
        let mut block = [0; 192];
        block[..rest.len()].copy_from_slice(rest);
        join(step(split(&block)), &mut block);
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

/// Which of 192 bytes make the 64 of each channel. An index counts up to 127 in a permutation of two vectors, and up to 63 in one of one.
const SPLIT: [[u8; 64]; 3] = {
    let mut table = [[0; 64]; 3];
    let mut at = 0;
    while at < 192 {
        table[at % 3][at / 3] = at as u8;
        at += 1;
    }
    table
};

/// Which of 64 red (from 0), 64 green (from 64) and 64 blue ones (from 0) make the 192 bytes.
const JOIN: [[u8; 64]; 3] = {
    let mut table = [[0; 64]; 3];
    let mut at = 0;
    while at < 192 {
        table[at / 64][at % 64] = (at / 3 + if at % 3 == 1 { 64 } else { 0 }) as u8;
        at += 1;
    }
    table
};

/// The lanes of [`SPLIT`] that come from the third vector, and those of [`JOIN`] that are blue.
const THIRD: [[u64; 3]; 2] = {
    let mut masks = [[0; 3]; 2];
    let mut at = 0;
    while at < 192 {
        if at >= 128 {
            masks[0][at % 3] |= 1 << (at / 3);
        }
        if at % 3 == 2 {
            masks[1][at / 64] |= 1 << (at % 64);
        }
        at += 1;
    }
    masks
};

/// Red, green and blue of 64 pixels.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn split(pixels: &[u8; 192]) -> [__m512i; 3] {
    let [a, b, c] = [0, 64, 128].map(|at| load_at(pixels, at));
    [0, 1, 2].map(|channel| {
        let index = load(&SPLIT[channel]);
        let first = _mm512_permutex2var_epi8(a, index, b);
        _mm512_mask_permutexvar_epi8(first, THIRD[0][channel], index, c)
    })
}

/// Writes 64 pixels.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn join([r, g, b]: [__m512i; 3], pixels: &mut [u8; 192]) {
    for (part, out) in pixels.as_chunks_mut().0.iter_mut().enumerate() {
        let index = load(&JOIN[part]);
        let first = _mm512_permutex2var_epi8(r, index, g);
        store(out, _mm512_mask_permutexvar_epi8(first, THIRD[1][part], index, b));
    }
}

/// `table[index]` of every lane.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn look_up(table: &[__m512i; 4], index: __m512i) -> __m512i {
    let low = _mm512_permutex2var_epi8(table[0], index, table[1]);
    let high = _mm512_permutex2var_epi8(table[2], index, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high)
}

/// A table of 256 bytes, in registers.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_table(table: &[u8; 256]) -> [__m512i; 4] {
    [0, 64, 128, 192].map(|at| load_at(table, at))
}
