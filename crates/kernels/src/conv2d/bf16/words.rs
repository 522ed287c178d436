//! 32-bit words for the inner loops, 16 to a register: f32 values, or pairs of bf16 values that are multiplied together.
//!
//! The two kinds of multiplier, [`Unit`], differ in what a word holds and in one instruction; all else is shared.

use std::arch::x86_64::*;

use half::bf16;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// f32 multiply-adds; a word is one value, widened.
    Fma,
    /// `vdpbf16ps`; a word is two values, which two others are multiplied with and added.
    Dot,
}

impl Unit {
    /// Values in a word.
    pub(super) fn values(self) -> usize {
        if self == Self::Dot { 2 } else { 1 }
    }
}

/// A register's words, aligned as its loads like it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u32; 16]);

impl Line {
    pub(super) const ZERO: Self = Self([0; 16]);
}

/// A row of zeros, for padding.
pub(super) static ZEROS: [Line; 512] = [Line::ZERO; 512];

/// The lanes of the last of the vectors that `count` values fill.
pub(super) fn last_mask(count: usize) -> __mmask16 {
    0xFFFF >> ((16 - count % 16) % 16)
}

/// The lanes that hold values when `left` values are left, all or fewer than 16.
pub(super) fn mask(left: usize) -> __mmask16 {
    if left >= 16 { 0xFFFF } else { (1 << left) - 1 }
}

/// The bits of the nearest bf16, ties to even, in the upper halves; the lower are 0. A NaN stays one.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn rounded(v: __m512) -> __m512i {
    let bits = _mm512_castps_si512(v);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
    let result = _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x0040_0000));
    _mm512_and_si512(result, _mm512_set1_epi32(0xFFFF_0000u32 as i32))
}

/// The upper halves of 16 values: bf16, if they were [`rounded`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn upper(v: __m512) -> __m256i {
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(v)))
}

/// The values of these lanes in the lower halves, 0 elsewhere.
///
/// # Safety
/// The masked lanes can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn low(from: *const bf16, lanes: __mmask16) -> __m512i {
    // SAFETY: handed on from this function's contract.
    _mm512_cvtepu16_epi32(unsafe { _mm256_maskz_loadu_epi16(lanes, from.cast()) })
}

/// The values of these lanes as f32, 0 elsewhere.
///
/// # Safety
/// The masked lanes can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn widen(from: *const bf16, lanes: __mmask16) -> __m512 {
    // SAFETY: handed on from this function's contract.
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(unsafe { low(from, lanes) }))
}

/// Widens `count` values.
///
/// # Safety
/// The machine has the features; `from` begins and `to` has room for `count` values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn widen_row(from: *const bf16, to: *mut f32, count: usize) {
    for i in (0..count).step_by(16) {
        let lanes = mask(count - i);
        // SAFETY: the lanes lie in both rows.
        unsafe { _mm512_mask_storeu_ps(to.add(i), lanes, widen(from.add(i), lanes)) };
    }
}

/// Writes one step of the weight gradient's panel: `count` words, the last line padded with zeros. A word holds a value of
/// the first row, or one of each row.
///
/// # Safety
/// The machine has the features; the rows begin `count` values; `to` has room for every line.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn step(unit: Unit, rows: [*const bf16; 2], to: *mut Line, count: usize) {
    for i in (0..count).step_by(16) {
        let lanes = mask(count - i);
        // SAFETY: the lanes lie in the rows, the line in the panel.
        unsafe {
            let words = match unit {
                Unit::Fma => _mm512_slli_epi32::<16>(low(rows[0].add(i), lanes)),
                Unit::Dot => {
                    let second = _mm512_slli_epi32::<16>(low(rows[1].add(i), lanes));
                    _mm512_or_si512(low(rows[0].add(i), lanes), second)
                }
            };
            _mm512_store_si512(to.add(i / 16).cast(), words);
        }
    }
}

/// 16 words of weights: of each lane `values()` consecutive inputs, rounded to bf16.
///
/// # Safety
/// The machine has the features; `left` values (at most 16 words of them) can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn weights(unit: Unit, from: *const f32, left: usize) -> __m512i {
    // SAFETY: masks keep the loads to `left` values.
    unsafe {
        let first = _mm512_maskz_loadu_ps(mask(left), from);
        match unit {
            Unit::Fma => rounded(first),
            Unit::Dot => {
                let second = _mm512_maskz_loadu_ps(mask(left.saturating_sub(16)), from.wrapping_add(16));
                let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
                let (first, second) = (rounded(first), rounded(second));
                let low = _mm512_permutex2var_epi32(first, even, second);
                let high = _mm512_permutex2var_epi32(first, odd, second);
                _mm512_or_si512(_mm512_srli_epi32::<16>(low), high)
            }
        }
    }
}

/// 16 words of weights: of each lane one value from the first row, or one of each, rounded to bf16.
///
/// # Safety
/// The machine has the features; the lanes of each row that is there can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn weights_across(rows: [Option<*const f32>; 2], unit: Unit, lanes: __mmask16) -> __m512i {
    // SAFETY: handed on from this function's contract.
    let [first, second] = rows.map(|row| match row {
        Some(row) => rounded(unsafe { _mm512_maskz_loadu_ps(lanes, row) }),
        None => _mm512_setzero_si512(),
    });
    match unit {
        Unit::Fma => first,
        Unit::Dot => _mm512_or_si512(_mm512_srli_epi32::<16>(first), second),
    }
}

/// Rows for columns of 16 x 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(t: &mut [__m512i; 16]) {
    let mut s = *t;
    for i in (0..16).step_by(2) {
        s[i] = _mm512_unpacklo_epi32(t[i], t[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 1]);
    }
    // t[4 g + k]: of rows 4 g..4 g + 4 the columns k, k + 4, k + 8, k + 12.
    for g in (0..16).step_by(4) {
        t[g] = _mm512_unpacklo_epi64(s[g], s[g + 2]);
        t[g + 1] = _mm512_unpackhi_epi64(s[g], s[g + 2]);
        t[g + 2] = _mm512_unpacklo_epi64(s[g + 1], s[g + 3]);
        t[g + 3] = _mm512_unpackhi_epi64(s[g + 1], s[g + 3]);
    }
    for k in 0..4 {
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(t[k], t[k + 4]);
        let high = _mm512_shuffle_i32x4::<0b10_00_10_00>(t[k + 8], t[k + 12]);
        let low_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(t[k], t[k + 4]);
        let high_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(t[k + 8], t[k + 12]);
        s[k] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high);
        s[k + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high);
        s[k + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low_odd, high_odd);
        s[k + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low_odd, high_odd);
    }
    *t = s;
}
