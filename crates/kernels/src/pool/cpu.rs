//! Pooling on slices, channels last, in f32 or bf16: tasks take rows of pixels, inner loops run over channels.
//!
//! Maximum: forward reads x and writes y and one byte per value of y, the place of the maximum in its window. Backward does not
//! read x: each pixel of x gathers from the windows that it lies in, is rounded once and written once.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::dense::Element;
use crate::isa::multiversion;

/// Channels that are worked on at a time: what fits into registers.
const LANES: usize = 64;
/// Least number of values of a task.
const TASK: usize = 1 << 14;

/// The extents of a 2-d pooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Input `[H, W, C]`.
    pub(super) input: [usize; 3],
    /// Output `[H', W']`.
    pub(super) output: [usize; 2],
    /// Side of the square window, at most 15: places in it are bytes.
    pub(super) kernel: usize,
    /// Step between windows.
    pub(super) stride: usize,
    /// Rows and columns of -inf around the input.
    pub(super) padding: usize,
}

impl Window {
    /// First and last + 1 input index under output index `o`, for an input extent.
    fn span(&self, o: usize, extent: usize) -> (usize, usize) {
        let start = (o * self.stride).saturating_sub(self.padding);
        let end = (o * self.stride + self.kernel).saturating_sub(self.padding).min(extent);
        (start, end)
    }

    /// First and last + 1 output index whose window holds input index `i`, for an output extent.
    fn holders(&self, i: usize, extent: usize) -> (usize, usize) {
        let first = (i + self.padding + 1).saturating_sub(self.kernel).div_ceil(self.stride);
        (first, ((i + self.padding) / self.stride + 1).min(extent))
    }

    /// Place in the window of output pixel (i, j) of the input pixel (row, column).
    fn place(&self, i: usize, j: usize, row: usize, column: usize) -> u32 {
        let (a, b) = (row + self.padding - i * self.stride, column + self.padding - j * self.stride);
        (a * self.kernel + b) as u32
    }
}

/// Rows of `row` values each that a task takes.
fn rows_per_task(row: usize) -> usize {
    TASK.div_ceil(row)
}

/// A new vector whose values `fill` has written; it must write all of them.
fn filled<T>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the callers in this file write every row of theirs.
    unsafe { out.set_len(len) };
    out
}

/// Maximum over each window of `x` `[N, H, W, C]`, and its place in the window; a NaN in the window is the result.
pub(super) fn max_pool<T: Element>(x: &[T], window: Window) -> (Vec<T>, Vec<u8>) {
    let [height, width, channels] = window.input;
    let (image, row) = (height * width * channels, window.output[1] * channels);
    let len = x.len() / image * window.output[0] * row;
    let rows = rows_per_task(row);
    let mut y = Vec::new();
    let places = filled(len, |places| {
        y = filled(len, |y| {
            let tasks = y.par_chunks_mut(rows * row).zip(places.par_chunks_mut(rows * row)).enumerate();
            tasks.for_each(|(task, (y, places))| {
                for (k, (y, places)) in y.chunks_exact_mut(row).zip(places.chunks_exact_mut(row)).enumerate() {
                    let (n, i) = ((task * rows + k) / window.output[0], (task * rows + k) % window.output[0]);
                    max_row::<T>(&x[n * image..(n + 1) * image], i, window, y, places);
                }
            });
        });
    });
    (y, places)
}

multiversion! {
    /// One row of y and of places, all of both.
    fn max_row<type T: Element>(
        x: &[T], i: usize, window: Window, y: &mut [MaybeUninit<T>], places: &mut [MaybeUninit<u8>],
    ) {
        let [height, width, channels] = window.input;
        let (top, bottom) = window.span(i, height);
        for (j, (y, places)) in y.chunks_exact_mut(channels).zip(places.chunks_exact_mut(channels)).enumerate() {
            let (left, right) = window.span(j, width);
            for (b, (y, places)) in y.chunks_mut(LANES).zip(places.chunks_mut(LANES)).enumerate() {
                let n = y.len();
                let (mut best, mut place) = ([f32::NEG_INFINITY; LANES], [window.place(i, j, top, left); LANES]);
                for row in top..bottom {
                    for column in left..right {
                        let at = (row * width + column) * channels + b * LANES;
                        let (x, here) = (&x[at..at + n], window.place(i, j, row, column));
                        for ((best, place), x) in best.iter_mut().zip(&mut place).zip(x) {
                            let x = x.widen();
                            // Of several NaNs the last, as in PyTorch.
                            let better = x > *best || x.is_nan();
                            *best = if better { x } else { *best };
                            *place = if better { here } else { *place };
                        }
                    }
                }
                for (((y, places), &best), &place) in y.iter_mut().zip(places).zip(&best).zip(&place) {
                    y.write(T::narrow(best));
                    places.write(place as u8);
                }
            }
        }
    }
}

/// Gradient of x from that of y and the places of the maxima: each pixel's windows are added in row-major order.
pub(super) fn max_pool_backward<T: Element>(dy: &[T], places: &[u8], window: Window) -> Vec<T> {
    let [height, width, channels] = window.input;
    let (image, row) = (window.output[0] * window.output[1] * channels, width * channels);
    let rows = rows_per_task(row);
    filled(dy.len() / image * height * row, |dx| {
        dx.par_chunks_mut(rows * row).enumerate().for_each(|(task, dx)| {
            for (k, dx) in dx.chunks_exact_mut(row).enumerate() {
                let (n, i) = ((task * rows + k) / height, (task * rows + k) % height);
                let range = n * image..(n + 1) * image;
                gather_row::<T>(&dy[range.clone()], &places[range], i, window, dx);
            }
        });
    })
}

multiversion! {
    /// One row of dx, all of it.
    fn gather_row<type T: Element>(dy: &[T], places: &[u8], row: usize, window: Window, dx: &mut [MaybeUninit<T>]) {
        let [_, _, channels] = window.input;
        let (top, bottom) = window.holders(row, window.output[0]);
        for (column, dx) in dx.chunks_exact_mut(channels).enumerate() {
            let (left, right) = window.holders(column, window.output[1]);
            for (b, dx) in dx.chunks_mut(LANES).enumerate() {
                let n = dx.len();
                let mut sum = [0f32; LANES];
                for i in top..bottom {
                    for j in left..right {
                        let at = (i * window.output[1] + j) * channels + b * LANES;
                        let (dy, places, here) = (&dy[at..at + n], &places[at..at + n], window.place(i, j, row, column));
                        for ((sum, dy), &place) in sum.iter_mut().zip(dy).zip(places) {
                            *sum += if u32::from(place) == here { dy.widen() } else { 0.0 };
                        }
                    }
                }
                for (dx, &sum) in dx.iter_mut().zip(&sum) {
                    dx.write(T::narrow(sum));
                }
            }
        }
    }
}

/// Mean over the pixels of each image: `[N, pixels, C]` to `[N, C]`, summed in f64.
pub(super) fn average<T: Element>(x: &[T], pixels: usize, channels: usize) -> Vec<T> {
    let images = rows_per_task(pixels * channels);
    filled(x.len() / pixels, |y| {
        let tasks = y.par_chunks_mut(images * channels).zip(x.par_chunks(images * pixels * channels));
        tasks.for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(pixels * channels)) {
                average_image::<T>(x, y);
            }
        });
    })
}

multiversion! {
    /// All of `y` `[C]`.
    fn average_image<type T: Element>(x: &[T], y: &mut [MaybeUninit<T>]) {
        let channels = y.len();
        let pixels = (x.len() / channels) as f64;
        for (b, y) in y.chunks_mut(LANES).enumerate() {
            let mut sums = [0f64; LANES];
            for row in x.chunks_exact(channels) {
                for (sum, x) in sums.iter_mut().zip(&row[b * LANES..b * LANES + y.len()]) {
                    *sum += f64::from(x.widen());
                }
            }
            for (y, sum) in y.iter_mut().zip(&sums) {
                y.write(T::narrow((sum / pixels) as f32));
            }
        }
    }
}

/// Gradient of x `[N, pixels, C]` from that of the mean `[N, C]`.
pub(super) fn average_backward<T: Element>(dy: &[T], pixels: usize, channels: usize) -> Vec<T> {
    let share = 1.0 / pixels as f32;
    filled(dy.len() * pixels, |dx| {
        dx.par_chunks_mut(pixels * channels).zip(dy.par_chunks(channels)).for_each(|(dx, dy)| {
            let (first, rest) = dx.split_at_mut(channels);
            for (dx, dy) in first.iter_mut().zip(dy) {
                dx.write(T::narrow(dy.widen() * share));
            }
            for row in rest.chunks_exact_mut(channels) {
                row.copy_from_slice(first);
            }
        });
    })
}
