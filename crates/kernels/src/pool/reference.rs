//! Pooling in plain f64.

use super::cpu::Window;

/// Maximum over each window of `x` `[N, H, W, C]`, padded with -inf.
pub(super) fn max_pool(x: &[f64], images: usize, window: Window) -> Vec<f64> {
    let [height, width, channels] = window.input;
    let mut y = Vec::new();
    for n in 0..images {
        for (i, j) in (0..window.output[0]).flat_map(|i| (0..window.output[1]).map(move |j| (i, j))) {
            for c in 0..channels {
                let mut best = f64::NEG_INFINITY;
                for (a, b) in (0..window.kernel).flat_map(|a| (0..window.kernel).map(move |b| (a, b))) {
                    let row = (i * window.stride + a).wrapping_sub(window.padding);
                    let column = (j * window.stride + b).wrapping_sub(window.padding);
                    if row < height && column < width {
                        best = best.max(x[((n * height + row) * width + column) * channels + c]);
                    }
                }
                y.push(best);
            }
        }
    }
    y
}

/// Mean over the pixels: `[N, pixels, C]` to `[N, C]`.
pub(super) fn average(x: &[f64], pixels: usize, channels: usize) -> Vec<f64> {
    x.chunks(pixels * channels)
        .flat_map(|image| {
            (0..channels)
                .map(|c| image.iter().skip(c).step_by(channels).sum::<f64>() / pixels as f64)
                .collect::<Vec<_>>()
        })
        .collect()
}
