//! ReLU on slices: one pass forward, one backward.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::dense::Element;
use crate::isa::multiversion;

/// Values a task takes: large enough to pay for its start, small enough to share among threads.
const CHUNK: usize = 1 << 16;

/// `max(x, 0)` for each value.
pub(super) fn forward<T: Element>(x: &[T]) -> Vec<T> {
    write(x.len(), |start, out| rectify::<T>(&x[start..start + out.len()], out))
}

/// dy where y is above 0 or NaN, else 0.
pub(super) fn backward<T: Element>(y: &[T], dy: &[T]) -> Vec<T> {
    write(y.len(), |start, out| {
        let range = start..start + out.len();
        mask::<T>(&y[range.clone()], &dy[range], out);
    })
}

multiversion! {
    /// Writes all of `out`; so does `mask`.
    fn rectify<type T: Element>(x: &[T], out: &mut [MaybeUninit<T>]) {
        for (&x, out) in x.iter().zip(out) {
            let v = x.widen();
            // Written so that NaN, which is not <= 0, passes through.
            out.write(T::narrow(if v <= 0.0 { 0.0 } else { v }));
        }
    }

    fn mask<type T: Element>(y: &[T], dy: &[T], out: &mut [MaybeUninit<T>]) {
        for ((&y, &dy), out) in y.iter().zip(dy).zip(out) {
            out.write(T::narrow(if y.widen() <= 0.0 { 0.0 } else { dy.widen() }));
        }
    }
}

/// A new vector that `fill(start, part)` writes chunk by chunk; each call must write its whole part.
fn write<T: Element>(len: usize, fill: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    let parts = out.spare_capacity_mut()[..len].par_chunks_mut(CHUNK).enumerate();
    parts.for_each(|(i, part)| fill(i * CHUNK, part));
    // SAFETY: the parts cover 0..len, and both callers write all of each.
    unsafe { out.set_len(len) };
    out
}
