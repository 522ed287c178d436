//! Three box passes along the rows, and three along the columns.
//!
//! With a radius of 0 (a standard deviation up to 1.41) a value becomes v + round(far * (a + b - 2 v) / 2^24), a and b being its neighbors. Values are
//! kept as floats from 3 * 2^22 up, where floats are whole numbers: there a fused multiplication and addition is exact but for this very rounding, and does
//! all of it. That differs from the integers of `ops::blur` only at a half, or within what the weights lack of 2^24, and a filter for which there are such
//! differences (1 in 60 of those drawn, but most of the round numbers) goes the other way.
//!
//! Otherwise values are kept as 16 bits, and the two sums of a pass multiplied with both weights at once.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::{load, load_few_within, load_some, store, store_few, store_some};
use crate::ops::BoxFilter;
use crate::simd::Isa;

/// With a value in its lower bits it is the float 3 * 2^22 + value.
const BASE: i32 = 0x4B40_0000;

thread_local! {
    /// Rows turned into columns: memory only, no value outlives a call.
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Blurs rows of `length` bytes; `false`, and nothing done, where the set or this file has not what it takes.
pub(crate) fn blur(isa: Isa, pixels: &mut [u8], length: usize, filter: &BoxFilter) -> bool {
    if !isa.has_avx512() || filter.radius > 1 || length < 16 {
        return false;
    }
    // SAFETY: the machine has what the functions are compiled for: that is what the set says.
    unsafe {
        match filter.radius {
            0 if is_exact(filter) => blur_narrow(pixels, length, filter),
            0 => blur_wide::<0>(pixels, length, filter),
            _ => blur_wide::<1>(pixels, length, filter),
        }
    }
    true
}

/// Whether rounding far * (a + b - 2 v) / 2^24 to the nearest is all that a filter of radius 0 does, whatever the bytes.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn is_exact(filter: &BoxFilter) -> bool {
    // The weights' sum may lack 1 of 2^24, which takes up to 255 off.
    let close = |difference: i32| {
        let sum = (difference as u32).wrapping_mul(filter.far).wrapping_add(1 << 23);
        u32::from(sum & 0xFF_FFFF < 256)
    };
    (-510..=510).map(close).sum::<u32>() == 0
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn blur_narrow(pixels: &mut [u8], length: usize, filter: &BoxFilter) {
    let far = _mm512_set1_ps(filter.far as f32 / 16_777_216.0);
    let passes = || [falling(far), falling(far), falling(far)];
    let columns = |pixels: &mut [u8], length: usize| {
        along_columns(pixels, length, 1, |bytes| floats(bytes), passes, |values| bytes_of_floats(values));
    };
    along_rows(pixels, length, columns);
    columns(pixels, length);
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn blur_wide<const R: usize>(pixels: &mut [u8], length: usize, filter: &BoxFilter) {
    let weights = Weights::of(filter);
    let passes = || [sliding::<R>(weights), sliding::<R>(weights), sliding::<R>(weights)];
    let columns = |pixels: &mut [u8], length: usize| {
        along_columns(pixels, length, 2, |bytes| words(bytes), passes, |values| bytes_of_words(values));
    };
    along_rows(pixels, length, columns);
    columns(pixels, length);
}

/// Runs `passes`, which go along columns, along the rows: 64 rows at a time are turned into columns of pixels, and back.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn along_rows(pixels: &mut [u8], length: usize, passes: impl Fn(&mut [u8], usize)) {
    LINES.with_borrow_mut(|turned| {
        turned.resize(length * 64, 0);
        for rows in pixels.chunks_mut(length * 64) {
            turn(rows, length, turned);
            // A row of these is a pixel's three channels, of 64 rows each.
            passes(turned, 3 * 64);
            turn_back(turned, rows, length);
        }
    });
}

/// Where the blocks of 16 columns begin; the last one may begin within the one before it.
#[inline(always)]
fn blocks(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(16).map(move |column| column.min(length - 16))
}

/// Up to 64 rows of `length` bytes as `length` rows of 64; where there are fewer, the last one is repeated.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn turn(rows: &[u8], length: usize, turned: &mut [u8]) {
    let last = rows.len() / length - 1;
    let starts: [usize; 64] = std::array::from_fn(|row| row.min(last) * length);
    let room = rows.len() - 16;
    for column in blocks(length) {
        assert!(starts[63] + column <= room);
        // SAFETY: no row begins after the last one, of which 16 bytes are there, as was just asserted.
        let few = |row: usize| unsafe { load_few_within(rows, starts[row] + column) };
        let mut vectors = [_mm512_setzero_si512(); 16];
        for (row, vector) in vectors.iter_mut().enumerate() {
            let first = _mm512_castsi128_si512(few(row));
            let second = _mm512_inserti32x4::<1>(first, few(row + 16));
            let third = _mm512_inserti32x4::<2>(second, few(row + 32));
            *vector = _mm512_inserti32x4::<3>(third, few(row + 48));
        }
        transpose(&mut vectors);
        let (to, _) = turned[column * 64..(column + 16) * 64].as_chunks_mut();
        for (to, vector) in to.iter_mut().zip(vectors) {
            store(to, vector);
        }
    }
}

/// The inverse of [`turn`].
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn turn_back(turned: &[u8], rows: &mut [u8], length: usize) {
    for column in blocks(length) {
        let mut vectors = [_mm512_setzero_si512(); 16];
        for (vector, from) in vectors.iter_mut().zip(turned[column * 64..(column + 16) * 64].as_chunks().0) {
            *vector = load(from);
        }
        transpose(&mut vectors);
        for (row, &vector) in vectors.iter().enumerate() {
            let quarters = [
                _mm512_castsi512_si128(vector),
                _mm512_extracti32x4_epi32::<1>(vector),
                _mm512_extracti32x4_epi32::<2>(vector),
                _mm512_extracti32x4_epi32::<3>(vector),
            ];
            for (quarter, few) in quarters.into_iter().enumerate() {
                let at = (row + 16 * quarter) * length + column;
                if let Some(to) = rows.get_mut(at..at + 16) {
                    store_few(to.first_chunk_mut().expect("16 are there"), few);
                }
            }
        }
    }
}

/// Four blocks of 16 x 16 bytes, each in a quarter of 16 vectors, turned over.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn transpose(vectors: &mut [__m512i; 16]) {
    // Four times, the first half is interleaved with the second: an index's bits, of row and column together, move round by one each time.
    for _ in 0..4 {
        let from = *vectors;
        for i in 0..8 {
            vectors[2 * i] = _mm512_unpacklo_epi8(from[i], from[i + 8]);
            vectors[2 * i + 1] = _mm512_unpackhi_epi8(from[i], from[i + 8]);
        }
    }
}

/// The passes along the columns, 64 at a time and all three at once: each is given rows one by one, or the word that the last one is repeated, and gives a row
/// as soon as it has what it needs. At the end the last row is repeated `margin` times.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn along_columns<const N: usize, P: FnMut(Option<[__m512i; N]>) -> Option<[__m512i; N]>>(
    pixels: &mut [u8],
    length: usize,
    margin: usize,
    widen: impl Fn(__m512i) -> [__m512i; N],
    passes: impl Fn() -> [P; 3],
    narrow: impl Fn([__m512i; N]) -> __m512i,
) {
    let height = pixels.len() / length;
    for column in (0..length).step_by(64) {
        let columns = 64.min(length - column);
        let [mut first, mut second, mut third] = passes();
        let mut to = column;
        let mut read = column;
        for step in 0..height + 3 * margin {
            // The three ends follow one another: a pass sees its last row repeated when the one before it has given all.
            let mut rows = None;
            if step < height + margin {
                let input = (step < height).then(|| widen(load_some(&pixels[read..read + columns])));
                read += length;
                rows = first(input);
                if rows.is_none() {
                    continue;
                }
            }
            if step < height + 2 * margin {
                rows = second(rows);
                if rows.is_none() {
                    continue;
                }
            }
            if let Some(rows) = third(rows) {
                store_some(&mut pixels[to..to + columns], narrow(rows));
                to += length;
            }
        }
    }
}

/// A pass of radius 0 over rows of floats.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn falling(far: __m512) -> impl FnMut(Option<[__m512i; 4]>) -> Option<[__m512i; 4]> {
    let mut row = [_mm512_setzero_ps(); 4];
    let mut step = [_mm512_setzero_ps(); 4];
    let mut begun = false;
    move |input| {
        let Some(next) = input else {
            // One more of the same: no step.
            let mut out = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                let difference = _mm512_sub_ps(_mm512_setzero_ps(), step[i]);
                out[i] = _mm512_castps_si512(_mm512_fmadd_ps(difference, far, row[i]));
            }
            return Some(out);
        };
        let mut out = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            let next = _mm512_castsi512_ps(next[i]);
            let rise = if begun { _mm512_sub_ps(next, row[i]) } else { _mm512_setzero_ps() };
            out[i] = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_sub_ps(rise, step[i]), far, row[i]));
            (row[i], step[i]) = (next, rise);
        }
        std::mem::replace(&mut begun, true).then_some(out)
    }
}

/// A pass of radius 1 over rows of 16 bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn sliding<const R: usize>(weights: Weights) -> impl FnMut(Option<[__m512i; 2]>) -> Option<[__m512i; 2]> {
    let mut rows = [[_mm512_setzero_si512(); 4]; 2];
    let mut count = 0;
    move |input| {
        let mut out = [_mm512_setzero_si512(); 2];
        for i in 0..2 {
            let next = input.map_or(rows[i][3], |rows| rows[i]);
            let [a, b, c, d] = if count == 0 { [next; 4] } else { rows[i] };
            out[i] = weights.mix::<R>([a, b, c, d, next]);
            rows[i] = [b, c, d, next];
        }
        count += 1;
        (count > 2).then_some(out)
    }
}

/// Weights of a radius up to 1 in 14 and 10 bits: of a value and its nearest, beside those of the farther two.
#[derive(Clone, Copy)]
struct Weights {
    upper: __m512i,
    lower: __m512i,
}

impl Weights {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn of(filter: &BoxFilter) -> Self {
        let pair = |near: u32, far: u32| _mm512_set1_epi32((near | far << 16) as i32);
        let upper = pair(filter.near >> 10, filter.far >> 10);
        Self { upper, lower: pair(filter.near & 1023, filter.far & 1023) }
    }

    /// (near * (b + c + d) + far * (a + e)) / 2^24, rounded; with a radius of 0, (near * c + far * (b + d)) / 2^24.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn mix<const R: usize>(&self, [a, b, c, d, e]: [__m512i; 5]) -> __m512i {
        let beside = _mm512_add_epi16(b, d);
        let (near, far) = if R == 0 { (c, beside) } else { (_mm512_add_epi16(beside, c), _mm512_add_epi16(a, e)) };
        let low = self.scale(_mm512_unpacklo_epi16(near, far));
        let high = self.scale(_mm512_unpackhi_epi16(near, far));
        _mm512_packus_epi32(low, high)
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn scale(&self, sums: __m512i) -> __m512i {
        // Half of 2^24, as it is before it is moved up.
        let upper = _mm512_dpwssd_epi32(_mm512_set1_epi32(1 << 13), sums, self.upper);
        _mm512_srli_epi32::<24>(_mm512_dpwssd_epi32(_mm512_slli_epi32::<10>(upper), sums, self.lower))
    }
}

/// Every fourth byte, from each of 16 bytes on.
const SPREAD: [[u8; 64]; 4] = {
    let mut table = [[0; 64]; 4];
    let mut at = 0;
    while at < 64 {
        table[at / 16][at % 16 * 4] = at as u8;
        at += 1;
    }
    table
};

/// 64 values as floats from [`BASE`] on.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn floats(bytes: __m512i) -> [__m512i; 4] {
    let base = _mm512_set1_epi32(BASE);
    let mut out = [base; 4];
    for (out, index) in out.iter_mut().zip(&SPREAD) {
        *out = _mm512_mask_permutexvar_epi8(base, 0x1111_1111_1111_1111, load(index), bytes);
    }
    out
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn bytes_of_floats([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let base = _mm512_set1_epi32(BASE);
    let (a, b) = (_mm512_sub_epi32(a, base), _mm512_sub_epi32(b, base));
    let (c, d) = (_mm512_sub_epi32(c, base), _mm512_sub_epi32(d, base));
    let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    _mm512_permutexvar_epi32(in_order, bytes)
}

/// 64 values as 16 bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn words(bytes: __m512i) -> [__m512i; 2] {
    let (low, high) = (_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64::<1>(bytes));
    [_mm512_cvtepu8_epi16(low), _mm512_cvtepu8_epi16(high)]
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn bytes_of_words([a, b]: [__m512i; 2]) -> __m512i {
    let in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_permutexvar_epi64(in_order, _mm512_packus_epi16(a, b))
}
