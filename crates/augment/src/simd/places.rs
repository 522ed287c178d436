//! Places for numbers that need not hold any yet: a batch is written once, not cleared first.

use std::mem::MaybeUninit;

use super::Isa;
use crate::ops::normalize_places;

/// The places of numbers that are about to be written over.
pub(crate) fn places(numbers: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    let all: *mut [f32] = numbers;
    // SAFETY: both types have the same layout, and this crate writes nothing but numbers into places.
    unsafe { &mut *(all as *mut [MaybeUninit<f32>]) }
}

/// Appends the normalized bytes of whole pixels, see [`normalize_places`].
pub(crate) fn append_normalized(isa: Isa, bytes: &[u8], mean: &[f32; 3], std: &[f32; 3], numbers: &mut Vec<f32>) {
    let count = bytes.len() / 3 * 3;
    numbers.reserve(count);
    normalize_places(isa, bytes, mean, std, &mut numbers.spare_capacity_mut()[..count]);
    // SAFETY: that many numbers were just written behind the vector's end, into room that was reserved.
    unsafe { numbers.set_len(numbers.len() + count) }
}
