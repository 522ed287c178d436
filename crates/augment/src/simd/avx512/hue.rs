//! The turn of the hue in 16-bit integers.
//!
//! The fractions are those that `ops::hue` explains, and tests for every color there is.

use std::arch::x86_64::*;

use super::{load_table, look_up, planes};
use crate::ops::DOWN;
use crate::simd::Isa;

/// Turns the hue of all pixels by `shift` steps; `false`, and nothing done, where the set has not what it takes.
pub(crate) fn turn_hue(isa: Isa, pixels: &mut [u8], shift: i32) -> bool {
    if isa.has_avx512() {
        // SAFETY: the machine has what the function is compiled for: that is what the set says.
        unsafe { turn_all(pixels, shift) };
    }
    isa.has_avx512()
}

/// floor(65536 / d), but 65535 for 1: lower bytes, upper bytes.
const RECIPROCALS: [[u8; 256]; 2] = {
    let mut table = [[0; 256]; 2];
    let mut d = 1;
    while d < 256 {
        let reciprocal = if d == 1 { 65535 } else { 65536 / d };
        table[0][d] = reciprocal as u8;
        table[1][d] = (reciprocal >> 8) as u8;
        d += 1;
    }
    table
};

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn turn_all(pixels: &mut [u8], shift: i32) {
    let shift = _mm512_set1_epi8(shift as i8);
    let reciprocals = [load_table(&RECIPROCALS[0]), load_table(&RECIPROCALS[1])];
    let down = load_table(&DOWN);
    planes(pixels, |rgb| turn(rgb, shift, &reciprocals, &down));
}

/// 64 bytes as twice 32 numbers of 16 bits; [`narrow`] puts them back in order.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn wide(low: __m512i, high: __m512i) -> [__m512i; 2] {
    [_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)]
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn narrow([a, b]: [__m512i; 2]) -> __m512i {
    _mm512_packus_epi16(a, b)
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn turn([r, g, b]: [__m512i; 3], shift: __m512i, reciprocals: &[[__m512i; 4]; 2], down: &[__m512i; 4]) -> [__m512i; 3] {
    let zero = _mm512_setzero_si512();
    let (larger, smaller) = (_mm512_max_epu8(r, g), _mm512_min_epu8(r, g));
    let (max, min) = (_mm512_max_epu8(larger, b), _mm512_min_epu8(smaller, b));
    let mid = _mm512_max_epu8(smaller, _mm512_min_epu8(larger, b));
    let range = _mm512_sub_epi8(max, min);
    let one = _mm512_set1_epi8(1);
    let reciprocal = |d| wide(look_up(&reciprocals[0], d), look_up(&reciprocals[1], d));

    // The hue, from which of the six sectors the color lies in and how far.
    let red = _mm512_cmpeq_epi8_mask(r, max);
    let green = _mm512_cmpeq_epi8_mask(g, max) & !red;
    let (blue_least, red_least) = (_mm512_cmpeq_epi8_mask(b, min), _mm512_cmpeq_epi8_mask(r, min));
    let first = (red | green) & blue_least;
    let middle = (green & !blue_least) | (!(red | green) & red_least);
    let back = (red & blue_least) | (green & !blue_least) | !(red | green | red_least);
    let sector = _mm512_mask_mov_epi8(_mm512_set1_epi8(5), middle, _mm512_set1_epi8(3));
    let sector = wide(_mm512_mask_mov_epi8(sector, first, one), zero);
    let back = _mm512_movm_epi8(back);
    let back = wide(back, back);
    let divisor = _mm512_max_epu8(range, one);
    let (num, recip, divisor) = (wide(_mm512_sub_epi8(max, mid), zero), reciprocal(divisor), wide(divisor, zero));
    let mut hue = [zero; 2];
    let mut whole = [zero; 2];
    for i in 0..2 {
        let (part, rest) = divide(_mm512_mullo_epi16(num[i], _mm512_set1_epi16(85)), divisor[i], recip[i]);
        let even = _mm512_testn_epi16_mask(rest, rest);
        // Backwards: minus the part, rounded up. That is its complement, or one more where nothing was left.
        let signed = _mm512_xor_si512(part, back[i]);
        let signed = _mm512_mask_sub_epi16(signed, even, signed, back[i]);
        let twice = _mm512_add_epi16(signed, _mm512_mullo_epi16(sector[i], _mm512_set1_epi16(85)));
        whole[i] = _mm512_movm_epi16(_mm512_mask_testn_epi16_mask(even, twice, _mm512_set1_epi16(1)));
        hue[i] = _mm512_srli_epi16::<1>(twice);
    }
    let hue = narrow(hue);
    let less = _mm512_and_si512(look_up(down, hue), _mm512_packs_epi16(whole[0], whole[1]));
    let hue = _mm512_add_epi8(_mm512_add_epi8(hue, less), shift);

    // The saturation.
    let divisor = _mm512_max_epu8(max, one);
    let (recip, divisor) = (reciprocal(divisor), wide(divisor, zero));
    let (range_low, range_high) = (wide(range, zero), wide(zero, range));
    let mut saturation = [zero; 2];
    for i in 0..2 {
        (saturation[i], _) = divide(_mm512_sub_epi16(range_high[i], range_low[i]), divisor[i], recip[i]);
    }

    // And back: borders of the sextants, and the distance from the corner that lies in an even and the next odd one.
    let from = |border: u8| _mm512_cmpge_epu8_mask(hue, _mm512_set1_epi8(border as i8));
    let [m1, m2, m3, m4, m5] = [from(43), from(85), from(128), from(170), from(213)];
    let third = _mm512_mask_sub_epi8(hue, m2, hue, _mm512_set1_epi8(85));
    let third = _mm512_mask_sub_epi8(third, m4, third, _mm512_set1_epi8(85));
    let (twice, corner) = (_mm512_add_epi8(third, third), _mm512_set1_epi8(85));
    let distance = _mm512_or_si512(_mm512_subs_epu8(twice, corner), _mm512_subs_epu8(corner, twice));
    let (value, doubled, distance) = (wide(max, zero), wide(max, max), wide(distance, zero));
    let mut least = [zero; 2];
    let mut between = [zero; 2];
    for i in 0..2 {
        // value - round(value * s / 255), the classic way.
        let product = _mm512_add_epi16(_mm512_mullo_epi16(value[i], saturation[i]), _mm512_set1_epi16(128));
        let quotient = _mm512_srli_epi16::<8>(_mm512_add_epi16(product, _mm512_srli_epi16::<8>(product)));
        least[i] = _mm512_sub_epi16(value[i], quotient);
        between[i] = _mm512_sub_epi16(value[i], faded(value[i], doubled[i], saturation[i], distance[i]));
    }
    let (p, x) = (narrow(least), narrow(between));
    let red = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(max, m1, x), m2, p);
    let red = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(red, m4, x), m5, max);
    let green = _mm512_mask_mov_epi8(x, m1, max);
    let green = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(green, m3, x), m4, p);
    let blue = _mm512_mask_mov_epi8(p, m2, x);
    let blue = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(blue, m3, max), m5, x);
    [red, green, blue]
}

/// Quotient and rest, by a reciprocal that gives the quotient or one less.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn divide(n: __m512i, divisor: __m512i, reciprocal: __m512i) -> (__m512i, __m512i) {
    let quotient = _mm512_mulhi_epu16(n, reciprocal);
    let rest = _mm512_sub_epi16(n, _mm512_mullo_epi16(quotient, divisor));
    let over = _mm512_cmpge_epu16_mask(rest, divisor);
    let quotient = _mm512_mask_add_epi16(quotient, over, quotient, _mm512_set1_epi16(1));
    (quotient, _mm512_mask_sub_epi16(rest, over, rest, divisor))
}

/// round(value * s * distance / 21675); `doubled` is 257 * value.
///
/// An estimate that is right or off by one, and the rest that it leaves, which tells and fits into 16 bits.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn faded(value: __m512i, doubled: __m512i, s: __m512i, distance: __m512i) -> __m512i {
    let one = _mm512_set1_epi16(1);
    let product = _mm512_mullo_epi16(s, distance);
    let triple = _mm512_add_epi16(product, _mm512_add_epi16(product, product));
    let estimate = _mm512_add_epi16(_mm512_mulhi_epu16(doubled, triple), _mm512_set1_epi16(128));
    let estimate = _mm512_mulhi_epu16(estimate, _mm512_set1_epi16(257));
    let exact = _mm512_mullo_epi16(value, product);
    let rest = _mm512_sub_epi16(exact, _mm512_mullo_epi16(estimate, _mm512_set1_epi16(21675)));
    let more = _mm512_cmpgt_epi16_mask(rest, _mm512_set1_epi16(10837));
    let less = _mm512_cmplt_epi16_mask(rest, _mm512_set1_epi16(-10837));
    let estimate = _mm512_mask_add_epi16(estimate, more, estimate, one);
    _mm512_mask_sub_epi16(estimate, less, estimate, one)
}
