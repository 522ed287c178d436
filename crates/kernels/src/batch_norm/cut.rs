//! How a `[R, C]` array is cut into tasks, and where per-channel vectors are repeated. Everything is a function of the
//! shape, never of the number of threads.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

/// Values that one task works on: enough to pay for the task, few enough to stay in the second-level cache.
const CHUNK: usize = 1 << 16;
/// Wide rows that are summed in f32 before the sums move to f64.
const BLOCK: usize = 64;
/// Least width of a wide row.
const WIDTH: usize = 256;
/// Least number of wide rows of a task: below that the sums per channel would cost as much as the rows.
const ROWS: usize = 32;

/// Few channels would make short inner loops, so `[R, C]` is read as `[R / g, g C]` with the per-channel vectors repeated g times.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    channels: usize,
    /// A multiple of `channels`, at least [`WIDTH`].
    pub(super) wide: usize,
    /// Values per task, a multiple of `wide`.
    pub(super) chunk: usize,
}

impl Cut {
    pub(super) fn new(channels: usize) -> Self {
        let wide = channels * WIDTH.div_ceil(channels);
        Self { channels, wide, chunk: wide * (CHUNK / wide).max(ROWS) }
    }

    /// Values of a block of [`BLOCK`] wide rows.
    pub(super) fn block(self) -> usize {
        self.wide * BLOCK
    }

    /// A per-channel vector repeated to the width of a wide row.
    pub(super) fn tile(self, per_channel: &[f32]) -> Vec<f32> {
        per_channel.iter().copied().cycle().take(self.wide).collect()
    }

    /// Runs `task(start, part)` on each chunk of `values`, in parallel.
    pub(super) fn each<T: Send>(self, values: &mut [T], task: impl Fn(usize, &mut [T]) + Sync + Send) {
        values.par_chunks_mut(self.chunk).enumerate().for_each(|(i, part)| task(i * self.chunk, part));
    }

    /// `task(start, len)` of each chunk of an array of `len` values, in parallel; the results in order.
    pub(super) fn map<R: Send>(self, len: usize, task: impl Fn(usize, usize) -> R + Sync + Send) -> Vec<R> {
        let tasks = len.div_ceil(self.chunk);
        (0..tasks)
            .into_par_iter()
            .with_max_len(1)
            .map(|i| task(i * self.chunk, self.chunk.min(len - i * self.chunk)))
            .collect()
    }

    /// `task(start, part)` of each chunk of `values`, in parallel; the results in order.
    pub(super) fn map_mut<T: Send, R: Send>(
        self,
        values: &mut [T],
        task: impl Fn(usize, &mut [T]) -> R + Sync + Send,
    ) -> Vec<R> {
        let parts = values.par_chunks_mut(self.chunk).enumerate();
        parts.map(|(i, part)| task(i * self.chunk, part)).collect()
    }

    pub(super) fn channels(self) -> usize {
        self.channels
    }

    /// Adds each lane of a wide vector of sums to its channel's sum.
    pub(super) fn fold(self, wide: &[f32], into: &mut [f64]) {
        for lane in wide.chunks_exact(self.channels) {
            for (sum, &v) in into.iter_mut().zip(lane) {
                *sum += f64::from(v);
            }
        }
    }
}

/// A new vector of `len` values that `fill` has written without their being zeroed first.
///
/// # Safety
/// `fill` must write every element.
pub(super) unsafe fn filled<T>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller promises that `fill` wrote all of it.
    unsafe { out.set_len(len) };
    out
}

/// How far ahead of their use values are asked for, in bytes: the hardware's own prefetching stops at the end of a page.
const AHEAD: usize = 4096;
/// Values that are worked on between two prefetches: more at once than a core has buffers for would stall it.
const STRIP: usize = 256;

/// The parts of a row of `len` values that are worked on at a time.
#[inline(always)]
pub(super) fn strips(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(STRIP).map(move |start| start..len.min(start + STRIP))
}

/// Asks for the memory [`AHEAD`] of some values.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(values)).step_by(64) {
        let address = values.as_ptr().wrapping_byte_add(AHEAD + line);
        // SAFETY: a prefetch reads nothing that the program could see, and never faults, whatever the address.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
