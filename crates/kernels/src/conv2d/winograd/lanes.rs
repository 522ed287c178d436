//! Sixteen channels at a time: the arithmetic of the transforms, on AVX-512 registers and on plain arrays.

// Loops of known length over arrays that must stay in registers are written with their indices.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// The channels of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen values.
pub(super) trait Lanes: Copy {
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

    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, factor: f32) -> Self;
    /// `self + other * factor`.
    fn plus_times(self, other: Self, factor: f32) -> Self;
}

// SAFETY (of every block in this implementation): only functions that enable AVX-512F use this type, and inline it.
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
