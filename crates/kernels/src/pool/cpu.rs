//! Pooling on slices, channels last: one task per image, inner loops over channels.

use rayon::prelude::*;

use crate::isa::multiversion;

/// The extents of a 2-d pooling.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Input `[H, W, C]`.
    pub input: [usize; 3],
    /// Output `[H', W']`.
    pub output: [usize; 2],
    /// Side of the square window.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Rows and columns of -inf around the input.
    pub padding: usize,
}

impl Window {
    /// First and last + 1 input index under output index `o`, for an input extent.
    fn span(&self, o: usize, extent: usize) -> (usize, usize) {
        let start = (o * self.stride).saturating_sub(self.padding);
        let end = (o * self.stride + self.kernel).saturating_sub(self.padding).min(extent);
        (start, end)
    }

    fn output_len(&self) -> usize {
        self.output[0] * self.output[1] * self.input[2]
    }
}

/// Maximum over each window of `x` `[N, H, W, C]`; a NaN in the window is the result.
pub fn max_pool(x: &[f32], window: Window) -> Vec<f32> {
    let [height, width, channels] = window.input;
    let image = height * width * channels;
    let mut y = vec![f32::NEG_INFINITY; x.len() / image * window.output_len()];
    y.par_chunks_mut(window.output_len()).zip(x.par_chunks(image)).for_each(|(y, x)| max_image(y, x, window));
    y
}

multiversion! {
    fn max_image(y: &mut [f32], x: &[f32], window: Window) {
        let [height, width, channels] = window.input;
        for (i, y) in y.chunks_exact_mut(channels).enumerate() {
            let (top, bottom) = window.span(i / window.output[1], height);
            let (left, right) = window.span(i % window.output[1], width);
            for row in top..bottom {
                for x in x[(row * width + left) * channels..(row * width + right) * channels].chunks_exact(channels) {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = if x > *y || x.is_nan() { x } else { *y };
                    }
                }
            }
        }
    }
}

/// Gradient of x: each output's gradient goes to the first maximum of its window (in a window with NaNs, to the last NaN, as in PyTorch).
pub fn max_pool_backward(dy: &[f32], x: &[f32], window: Window) -> Vec<f32> {
    let [height, width, channels] = window.input;
    let image = height * width * channels;
    let mut dx = vec![0f32; x.len()];
    dx.par_chunks_mut(image).zip(dy.par_chunks(window.output_len())).zip(x.par_chunks(image)).for_each_init(
        || (vec![0f32; channels], vec![0u32; channels]),
        |(best, place), ((dx, dy), x)| {
            for (i, dy) in dy.chunks_exact(channels).enumerate() {
                find_maximum(x, window, i, best, place);
                for (c, (&place, &dy)) in place.iter().zip(dy).enumerate() {
                    dx[place as usize * channels + c] += dy;
                }
            }
        },
    );
    dx
}

multiversion! {
    /// The pixel of each channel's maximum under output pixel `i`.
    fn find_maximum(x: &[f32], window: Window, i: usize, best: &mut [f32], place: &mut [u32]) {
        let [height, width, channels] = window.input;
        let (top, bottom) = window.span(i / window.output[1], height);
        let (left, right) = window.span(i % window.output[1], width);
        best.fill(f32::NEG_INFINITY);
        place.fill((top * width + left) as u32);
        for pixel in (top..bottom).flat_map(|row| row * width + left..row * width + right) {
            let x = &x[pixel * channels..(pixel + 1) * channels];
            for ((best, place), &x) in best.iter_mut().zip(place.iter_mut()).zip(x) {
                let better = x > *best || x.is_nan();
                *best = if better { x } else { *best };
                *place = if better { pixel as u32 } else { *place };
            }
        }
    }
}

/// Mean over the pixels of each image: `[N, pixels, C]` to `[N, C]`, summed in f64.
pub fn average(x: &[f32], pixels: usize, channels: usize) -> Vec<f32> {
    let mut y = vec![0f32; x.len() / pixels];
    y.par_chunks_mut(channels).zip(x.par_chunks(pixels * channels)).for_each_init(
        || vec![0f64; channels],
        |sums, (y, x)| {
            sums.fill(0.0);
            for row in x.chunks_exact(channels) {
                for (sum, &v) in sums.iter_mut().zip(row) {
                    *sum += f64::from(v);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = (*sum / pixels as f64) as f32;
            }
        },
    );
    y
}

/// Gradient of x `[N, pixels, C]` from that of the mean `[N, C]`.
pub fn average_backward(dy: &[f32], pixels: usize, channels: usize) -> Vec<f32> {
    let mut dx = vec![0f32; dy.len() * pixels];
    let share = 1.0 / pixels as f32;
    dx.par_chunks_mut(pixels * channels).zip(dy.par_chunks(channels)).for_each(|(dx, dy)| {
        for row in dx.chunks_exact_mut(channels) {
            for (dx, &dy) in row.iter_mut().zip(dy) {
                *dx = dy * share;
            }
        }
    });
    dx
}
