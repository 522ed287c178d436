//! Loops written for AVX-512 with byte permutes (VBMI) and byte products (VNNI).
//!
//! Every function that is called from outside takes an [`Isa`](super::Isa) and says whether the set has what it needs; where it has not, nothing was done, and the
//! caller's portable loop does it.

mod resize;

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

/// Writes a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store(bytes: &mut [u8; 64], vector: __m512i) {
    // SAFETY: the reference is to 64 bytes; unaligned stores need no more.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
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
