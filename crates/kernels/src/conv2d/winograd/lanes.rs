//! Sixteen channels at a time: the arithmetic of the transforms, on AVX-512 registers and on plain arrays.

// Loops of known length over arrays that must stay in registers are written with their indices.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;

use crate::dense::Element;

/// The channels of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen values.
pub(in crate::conv2d) trait Lanes: Copy {
    fn splat(value: f32) -> Self;

    /// # Safety
    /// `from` begins 16 values.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count` values, then zeros.
    ///
    /// # Safety
    /// `from` begins `count` values, 1 to 15.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;

    /// # Safety
    /// `to` begins 16 values.
    unsafe fn store(self, to: *mut f32);

    /// Stores the first `count` values.
    ///
    /// # Safety
    /// `to` begins `count` values, 1 to 15.
    unsafe fn store_part(self, to: *mut f32, count: usize);

    /// Sixteen bf16 values.
    ///
    /// # Safety
    /// `from` begins 16 values.
    unsafe fn widen(from: *const bf16) -> Self;

    /// The first `count` bf16 values, then zeros.
    ///
    /// # Safety
    /// `from` begins `count` values, 1 to 15.
    unsafe fn widen_part(from: *const bf16, count: usize) -> Self;

    /// Stores the nearest bf16 values, ties to even.
    ///
    /// # Safety
    /// `to` begins 16 values.
    unsafe fn narrow(self, to: *mut bf16);

    /// [`Self::narrow`] for the first `count` values.
    ///
    /// # Safety
    /// `to` begins `count` values, 1 to 15.
    unsafe fn narrow_part(self, to: *mut bf16, count: usize);

    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, factor: f32) -> Self;
    /// `self + other * factor`.
    fn plus_times(self, other: Self, factor: f32) -> Self;
}

/// Sixteen f32 values as bf16 in the low halves of 32-bit words, by the rule of [`Element::narrow`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn rounded(values: __m512) -> __m256i {
    let bits = _mm512_castps_si512(values);
    let high = _mm512_srli_epi32::<16>(bits);
    let even = _mm512_and_si512(high, _mm512_set1_epi32(1));
    let sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), even);
    let quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(sum), nan, quiet))
}

// SAFETY (of every block in this implementation): only functions that enable AVX-512F, BW and VL use this type, and inline it.
#[cfg(target_arch = "x86_64")]
impl Lanes for __m512 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above; the contract is the same.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: see above; lanes past `count` are not read.
        unsafe { _mm512_maskz_loadu_ps(0xFFFF >> (LANES - count), from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above; the contract is the same.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: see above; lanes past `count` are not written.
        unsafe { _mm512_mask_storeu_ps(to, 0xFFFF >> (LANES - count), self) }
    }

    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        // SAFETY: see above; the contract is the same.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    #[inline(always)]
    unsafe fn widen_part(from: *const bf16, count: usize) -> Self {
        // SAFETY: see above; lanes past `count` are not read.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(0xFFFF >> (LANES - count), from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    #[inline(always)]
    unsafe fn narrow(self, to: *mut bf16) {
        // SAFETY: see above; the contract is the same.
        unsafe { _mm256_storeu_si256(to.cast(), rounded(self)) }
    }

    #[inline(always)]
    unsafe fn narrow_part(self, to: *mut bf16, count: usize) {
        // SAFETY: see above; lanes past `count` are not written.
        unsafe { _mm256_mask_storeu_epi16(to.cast(), 0xFFFF >> (LANES - count), rounded(self)) }
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(self, _mm512_set1_ps(factor)) }
    }

    #[inline(always)]
    fn plus_times(self, other: Self, factor: f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(other, _mm512_set1_ps(factor), self) }
    }
}

impl Lanes for [f32; LANES] {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the contract is the same; an array of f32 is aligned as an f32 is.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut all = [0.0; LANES];
        for (i, value) in all.iter_mut().enumerate().take(count) {
            // SAFETY: `i` is less than `count`.
            *value = unsafe { from.add(i).read() };
        }
        all
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the contract is the same.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for (i, value) in self.iter().enumerate().take(count) {
            // SAFETY: `i` is less than `count`.
            unsafe { to.add(i).write(*value) };
        }
    }

    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        // SAFETY: the contract is the same; an array of bf16 is aligned as a bf16 is.
        unsafe { from.cast::<[bf16; LANES]>().read() }.map(Element::widen)
    }

    #[inline(always)]
    unsafe fn widen_part(from: *const bf16, count: usize) -> Self {
        let mut all = [0.0; LANES];
        for (i, value) in all.iter_mut().enumerate().take(count) {
            // SAFETY: `i` is less than `count`.
            *value = unsafe { from.add(i).read() }.widen();
        }
        all
    }

    #[inline(always)]
    unsafe fn narrow(self, to: *mut bf16) {
        // SAFETY: the contract is the same.
        unsafe { to.cast::<[bf16; LANES]>().write(self.map(Element::narrow)) }
    }

    #[inline(always)]
    unsafe fn narrow_part(self, to: *mut bf16, count: usize) {
        for (i, value) in self.iter().enumerate().take(count) {
            // SAFETY: `i` is less than `count`.
            unsafe { to.add(i).write(Element::narrow(*value)) };
        }
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        let mut all = self;
        for i in 0..LANES {
            all[i] += other[i];
        }
        all
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        let mut all = self;
        for i in 0..LANES {
            all[i] -= other[i];
        }
        all
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        let mut all = self;
        for value in &mut all {
            *value *= factor;
        }
        all
    }

    #[inline(always)]
    fn plus_times(self, other: Self, factor: f32) -> Self {
        let mut all = self;
        for i in 0..LANES {
            all[i] += other[i] * factor;
        }
        all
    }
}

/// What pixels are stored as.
pub(in crate::conv2d) trait Pixel: Element {
    /// Channels `at..` of a pixel, at most 16, zero past `end`.
    ///
    /// # Safety
    /// `from` begins `end` channels; `at` is less than `end`.
    unsafe fn load<L: Lanes>(from: *const Self, at: usize, end: usize) -> L;

    /// Stores channels `at..` of a pixel, at most 16, none past `end`.
    ///
    /// # Safety
    /// `to` begins `end` channels; `at` is less than `end`.
    unsafe fn store<L: Lanes>(values: L, to: *mut Self, at: usize, end: usize);
}

impl Pixel for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self, at: usize, end: usize) -> L {
        // SAFETY: the channels `at..end` exist, and no more than those are read.
        unsafe {
            match end - at >= LANES {
                true => L::load(from.add(at)),
                false => L::load_part(from.add(at), end - at),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(values: L, to: *mut Self, at: usize, end: usize) {
        // SAFETY: the channels `at..end` exist, and no more than those are written.
        unsafe {
            match end - at >= LANES {
                true => values.store(to.add(at)),
                false => values.store_part(to.add(at), end - at),
            }
        }
    }
}

impl Pixel for bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self, at: usize, end: usize) -> L {
        // SAFETY: the channels `at..end` exist, and no more than those are read.
        unsafe {
            match end - at >= LANES {
                true => L::widen(from.add(at)),
                false => L::widen_part(from.add(at), end - at),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(values: L, to: *mut Self, at: usize, end: usize) {
        // SAFETY: the channels `at..end` exist, and no more than those are written.
        unsafe {
            match end - at >= LANES {
                true => values.narrow(to.add(at)),
                false => values.narrow_part(to.add(at), end - at),
            }
        }
    }
}
