//! Weights as words: `[steps][vectors]` lines, a step a word of inputs, a lane an output.

use std::arch::x86_64::*;

use super::{BLOCK, Line, Unit, mask, rounded};

/// Packs the weights of a block where an output's inputs are contiguous, outputs `apart`.
///
/// # Safety
/// The machine has AVX-512F; `from` holds `used` rows of `inputs` values; `out` is `[steps][used.div_ceil(16)]`.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn by_input(unit: Unit, from: &[f32], inputs: usize, used: usize, apart: usize, out: &mut [Line]) {
    let (vectors, steps) = (used.div_ceil(16), inputs.div_ceil(unit.values()));
    for step in (0..steps).step_by(16) {
        let first = step * unit.values();
        for v in 0..vectors {
            let mut t = [_mm512_setzero_si512(); 16];
            for (row, t) in t.iter_mut().enumerate().take(used - 16 * v) {
                // SAFETY: the row holds `inputs - first` values from here.
                *t = unsafe { line(unit, from.as_ptr().add((16 * v + row) * apart + first), inputs - first) };
            }
            transpose(&mut t);
            for (k, t) in t.into_iter().enumerate().take(steps - step) {
                let to: *mut Line = &mut out[(step + k) * vectors + v];
                // SAFETY: a line is 16 aligned words.
                unsafe { _mm512_store_si512(to.cast(), t) };
            }
        }
    }
}

/// Packs the weights of `used` outputs where an input's outputs are contiguous, inputs `apart`: one block of [`BLOCK`] outputs
/// after the other.
///
/// # Safety
/// As [`by_input`], for each block.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn by_output(unit: Unit, from: &[f32], inputs: usize, used: usize, apart: usize, out: &mut [Line]) {
    const VECTORS: usize = BLOCK / 16;
    let (vectors, steps) = (used.div_ceil(16), inputs.div_ceil(unit.values()));
    for step in 0..steps {
        for v in 0..vectors {
            let row = |i: usize| (i < inputs).then(|| from[i * apart + 16 * v..].as_ptr());
            let rows = [row(step * unit.values()), row(step * unit.values() + 1)];
            let block = v / VECTORS * VECTORS;
            let to: *mut Line = &mut out[block * steps + step * (vectors - block).min(VECTORS) + v - block];
            // SAFETY: the mask keeps the loads inside the rows; a line is 16 aligned words.
            unsafe { _mm512_store_si512(to.cast(), line_across(rows, unit, mask(used - 16 * v))) };
        }
    }
}

/// 16 words of weights: of each lane `values()` consecutive inputs, rounded to bf16 for units of bf16.
///
/// # Safety
/// The machine has the features; `left` values (at most 16 words of them) can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line(unit: Unit, from: *const f32, left: usize) -> __m512i {
    // SAFETY: masks keep the loads to `left` values.
    unsafe {
        let first = _mm512_maskz_loadu_ps(mask(left), from);
        match unit {
            Unit::F32 => _mm512_castps_si512(first),
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

/// 16 words of weights: of each lane one value from the first row, or one of each, rounded to bf16 for units of bf16.
///
/// # Safety
/// The machine has the features; the lanes of each row that is there can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn line_across(rows: [Option<*const f32>; 2], unit: Unit, lanes: __mmask16) -> __m512i {
    // SAFETY: handed on from this function's contract.
    let [first, second] =
        rows.map(|row| row.map_or(_mm512_setzero_ps(), |row| unsafe { _mm512_maskz_loadu_ps(lanes, row) }));
    match unit {
        Unit::F32 => _mm512_castps_si512(first),
        Unit::Fma => rounded(first),
        Unit::Dot => _mm512_or_si512(_mm512_srli_epi32::<16>(rounded(first)), rounded(second)),
    }
}

/// Rows for columns of 16 x 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(t: &mut [__m512i; 16]) {
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
