//! From bytes to floats, without divisions.
//!
//! A quotient is a product with the reciprocal and one correction by what is left (Markstein 1990), which gives the division's own bits wherever nothing overflows and
//! the reciprocal is no unlucky one. Whether it does is found out for all 256 values of each channel, once per mean and deviation; where it does
//! not, there are divisions.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::MaybeUninit;

use super::{load_few, load_some};
use crate::ops::normalized;
use crate::simd::{Isa, places};

/// Writes the normalized bytes; false, and nothing done, where the set has not what it takes. As many numbers as bytes, in whole pixels.
pub(crate) fn normalize(isa: Isa, bytes: &[u8], mean: &[f32; 3], std: &[f32; 3], out: &mut [MaybeUninit<f32>]) -> bool {
    if isa.has_avx512() {
        // SAFETY: the machine has what the functions are compiled for: that is what the set says.
        unsafe {
            // A batch of larger views is larger than the caches: numbers that go past them need not be fetched before they are written.
            match (is_exact(mean, std), out.len() >= PAST_CACHES) {
                (true, true) => normalize_past_caches(bytes, mean, std, out),
                (true, false) => normalize_all::<true, false>(bytes, mean, std, out, 0),
                (false, _) => normalize_all::<false, false>(bytes, mean, std, out, 0),
            }
        }
    }
    isa.has_avx512()
}

/// Numbers of a view from which on its place is not looked for in caches: a side of 128 pixels.
const PAST_CACHES: usize = 3 * 128 * 128;

thread_local! {
    /// The mean and deviation asked for last, and what was found. A run has one or two of them.
    static LAST: Cell<Option<([f32; 6], bool)>> = const { Cell::new(None) };
}

/// Whether products give the quotients' bits for every byte of every channel.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn is_exact(mean: &[f32; 3], std: &[f32; 3]) -> bool {
    let key = std::array::from_fn(|i| if i < 3 { mean[i] } else { std[i - 3] });
    if let Some((last, exact)) = LAST.get()
        && last == key
    {
        return exact;
    }
    let bytes: [u8; 768] = std::array::from_fn(|i| (i / 3) as u8);
    let mut out = [0.0; 768];
    normalize_all::<true, false>(&bytes, mean, std, places(&mut out), 0);
    let same = |i: usize| out[i].to_bits() == normalized(bytes[i], mean[i % 3], std[i % 3]).to_bits();
    let exact = (0..768).all(same);
    LAST.set(Some((key, exact)));
    exact
}

/// What a quotient needs of its divisor.
#[derive(Clone, Copy)]
struct Divisor {
    value: __m512,
    reciprocal: __m512,
}

impl Divisor {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn new(value: __m512) -> Self {
        Self { value, reciprocal: _mm512_div_ps(_mm512_set1_ps(1.0), value) }
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn divide<const FAST: bool>(self, x: __m512) -> __m512 {
        if !FAST {
            return _mm512_div_ps(x, self.value);
        }
        let quotient = _mm512_mul_ps(x, self.reciprocal);
        let rest = _mm512_fnmadd_ps(quotient, self.value, x);
        _mm512_fmadd_ps(rest, self.reciprocal, quotient)
    }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn normalize_past_caches(bytes: &[u8], mean: &[f32; 3], std: &[f32; 3], out: &mut [MaybeUninit<f32>]) {
    // Such stores are of whole aligned cache lines: what lies before the first one is done one by one.
    let head = out.as_ptr().align_offset(64).min(out.len());
    let (to, out) = out.split_at_mut(head);
    for (i, to) in to.iter_mut().enumerate() {
        to.write(normalized(bytes[i], mean[i % 3], std[i % 3]));
    }
    normalize_all::<true, true>(&bytes[head..], mean, std, out, head % 3);
    // Other threads may be told of the batch right after this: it must be there.
    _mm_sfence();
}

/// `first` is the channel of the first byte. With `PAST`, `out` begins at a multiple of 64 bytes.
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn normalize_all<const FAST: bool, const PAST: bool>(
    bytes: &[u8],
    mean: &[f32; 3],
    std: &[f32; 3],
    out: &mut [MaybeUninit<f32>],
    first: usize,
) {
    let full = Divisor::new(_mm512_set1_ps(255.0));
    // Three vectors hold the channels' numbers in three orders.
    let means: [f32; 48] = std::array::from_fn(|i| mean[(i + first) % 3]);
    let deviations: [f32; 48] = std::array::from_fn(|i| std[(i + first) % 3]);
    let mut orders = [(full.value, full); 3];
    let numbers = means.as_chunks().0.iter().zip(deviations.as_chunks().0);
    for (order, (means, deviations)) in orders.iter_mut().zip(numbers) {
        *order = (load_numbers(means), Divisor::new(load_numbers(deviations)));
    }
    let (blocks, rest) = bytes.as_chunks::<48>();
    let (to, to_rest) = out.as_chunks_mut::<48>();
    for (block, to) in blocks.iter().zip(to) {
        let vectors = block.as_chunks::<16>().0.iter().zip(to.as_chunks_mut::<16>().0);
        for ((bytes, to), order) in vectors.zip(&orders) {
            let values = normalized_16::<FAST>(load_few(bytes), full, order);
            if PAST {
                store_past_caches(to, values);
            } else {
                store_numbers(to, values);
            }
        }
    }
    for ((bytes, to), order) in rest.chunks(16).zip(to_rest.chunks_mut(16)).zip(&orders) {
        let mut numbers = [MaybeUninit::new(0.0); 16];
        let bytes = _mm512_castsi512_si128(load_some(bytes));
        store_numbers(&mut numbers, normalized_16::<FAST>(bytes, full, order));
        to.copy_from_slice(&numbers[..to.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn normalized_16<const FAST: bool>(bytes: __m128i, full: Divisor, (mean, std): &(__m512, Divisor)) -> __m512 {
    let x = full.divide::<FAST>(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
    std.divide::<FAST>(_mm512_sub_ps(x, *mean))
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn load_numbers(numbers: &[f32; 16]) -> __m512 {
    // SAFETY: the reference is to 16 floats; unaligned loads need no more.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_numbers(numbers: &mut [MaybeUninit<f32>; 16], values: __m512) {
    // SAFETY: the reference is to 16 places for floats; unaligned stores need no more.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr().cast(), values) }
}

/// # Panics
/// If the place is not at a multiple of 64 bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_past_caches(numbers: &mut [MaybeUninit<f32>; 16], values: __m512) {
    let to: *mut f32 = numbers.as_mut_ptr().cast();
    assert!(to.addr().is_multiple_of(64), "stores past the caches are of whole cache lines");
    // SAFETY: the reference is to 16 places for floats at a multiple of 64 bytes, and the caller of these stores fences them.
    unsafe { _mm512_stream_ps(to, values) }
}
