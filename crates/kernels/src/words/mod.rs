//! Products for AVX-512 on 32-bit words, 16 to a register: f32 values, or pairs of bf16 values that are multiplied together.
//!
//! What multiplies, a [`Unit`], decides what a word holds and takes one instruction of its own; all else is shared by
//! bf16 convolution and the linear layer: copies into words here, micro-kernels in [`kernels`], weights in [`weights`].

pub(crate) mod kernels;
pub(crate) mod unit;
pub(crate) mod weights;

use std::arch::x86_64::*;

use half::bf16;

/// Outputs side by side in packed weights: four registers.
pub(crate) const BLOCK: usize = 64;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    /// f32 multiply-adds on f32 values.
    F32,
    /// f32 multiply-adds on bf16 values; a word is one value, widened.
    Fma,
    /// `vdpbf16ps`; a word is two values, which two others are multiplied with and added.
    Dot,
}

impl Unit {
    /// Values in a word.
    pub(crate) fn values(self) -> usize {
        if self == Self::Dot { 2 } else { 1 }
    }
}

/// A register's words, aligned as its loads like it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u32; 16]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; 16]);
}

/// A row of zeros, for padding.
pub(crate) static ZEROS: [Line; 512] = [Line::ZERO; 512];

/// The lanes of the last of the vectors that `count` values fill.
pub(crate) fn last_mask(count: usize) -> __mmask16 {
    0xFFFF >> ((16 - count % 16) % 16)
}

/// The lanes that hold values when `left` values are left, all or fewer than 16.
pub(crate) fn mask(left: usize) -> __mmask16 {
    if left >= 16 { 0xFFFF } else { (1 << left) - 1 }
}

/// The bits of the nearest bf16, ties to even, in the upper halves; the lower are 0. A NaN stays one.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn rounded(v: __m512) -> __m512i {
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
pub(crate) fn upper(v: __m512) -> __m256i {
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
pub(crate) unsafe fn widen(from: *const bf16, lanes: __mmask16) -> __m512 {
    // SAFETY: handed on from this function's contract.
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(unsafe { low(from, lanes) }))
}

/// Widens `count` values.
///
/// # Safety
/// The machine has the features; `from` begins and `to` has room for `count` values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn widen_row(from: *const bf16, to: *mut f32, count: usize) {
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
pub(crate) unsafe fn step(unit: Unit, rows: [*const bf16; 2], to: *mut Line, count: usize) {
    for i in (0..count).step_by(16) {
        let lanes = mask(count - i);
        // SAFETY: the lanes lie in the rows, the line in the panel.
        unsafe {
            let words = match unit {
                Unit::F32 | Unit::Fma => _mm512_slli_epi32::<16>(low(rows[0].add(i), lanes)),
                Unit::Dot => {
                    let second = _mm512_slli_epi32::<16>(low(rows[1].add(i), lanes));
                    _mm512_or_si512(low(rows[0].add(i), lanes), second)
                }
            };
            _mm512_store_si512(to.add(i / 16).cast(), words);
        }
    }
}

/// f32 or bf16 values in memory.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Writes the words of `count` consecutive values, the last line padded with zeros.
    ///
    /// # Panics
    /// If `values` are not there, or `to` has no room.
    pub(crate) fn along(self, unit: Unit, first: usize, count: usize, to: &mut [Line]) {
        assert!(first + count <= self.len() && count.div_ceil(16 * unit.values()) <= to.len(), "words: lengths");
        let to: *mut Line = to.as_mut_ptr();
        // SAFETY: kernels on words are chosen on machines with AVX-512 only; reads and writes lie inside, as asserted.
        unsafe {
            match (self, unit) {
                (Self::F32(values), _) => {
                    std::ptr::copy_nonoverlapping(values.as_ptr().add(first), to.cast(), count);
                    pad::<f32>(to, count);
                }
                (Self::Bf16(values), Unit::Dot) => {
                    std::ptr::copy_nonoverlapping(values.as_ptr().add(first), to.cast(), count);
                    pad::<bf16>(to, count);
                }
                (Self::Bf16(values), _) => step(unit, [values.as_ptr().add(first); 2], to, count),
            }
        }
    }

    /// Writes the words of `count` columns from `column` of row `row` of `[.., width]`, or of pairs from it and the next row,
    /// which is zeros from `rows` on; the last line padded with zeros.
    ///
    /// # Panics
    /// As [`Values::along`].
    pub(crate) fn across(self, unit: Unit, at: [usize; 2], [rows, width]: [usize; 2], count: usize, to: &mut [Line]) {
        let [row, column] = at;
        match (self, unit) {
            (Self::Bf16(values), Unit::Dot) => {
                assert!(column + count <= width && rows * width <= values.len() && row < rows, "words: lengths");
                assert!(count.div_ceil(16) <= to.len() && count <= ZEROS.len() * 32, "words: lengths");
                let first = values[row * width + column..].as_ptr();
                let second = match row + 1 < rows {
                    true => values[(row + 1) * width + column..].as_ptr(),
                    false => ZEROS.as_ptr().cast(),
                };
                // SAFETY: as above.
                unsafe { step(unit, [first, second], to.as_mut_ptr(), count) };
            }
            _ => self.along(unit, row * width + column, count, to),
        }
    }
}

/// Zeros from value `count` to the end of its line.
///
/// # Safety
/// The lines from `to` that `count` values fill can be written.
unsafe fn pad<T>(to: *mut Line, count: usize) {
    let per_line = 64 / size_of::<T>();
    let rest = count.next_multiple_of(per_line) - count;
    // SAFETY: this ends where the last line does; all bits 0 is a value of f32 and of bf16.
    unsafe { to.cast::<T>().add(count).write_bytes(0, rest) };
}
