//! The operations of a view on f32 pictures of any number of channels.
//!
//! Numbers stay f32 from the crop to the network: there are no 8-bit steps to imitate, and nothing is rounded. Where the picture came from
//! integers, every operation ends in [0, 1], its full scale; f32 pictures have no bounds.

use crate::ops::CropBox;
use crate::raster::Samples;
use crate::recipe::Interpolation;

/// A picture in the making, `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<f32>,
    /// Whether values are cut off to [0, 1].
    pub(super) bounded: bool,
}

impl Canvas {
    /// The crop of a picture of `width` columns, resampled to a width and height with antialiasing, as [`crate::ops::resized_crop`] without its
    /// rounding. The crop lies inside.
    pub(super) fn resized_crop(
        (samples, width, channels): (&Samples, usize, usize),
        crop: CropBox,
        [to_width, to_height]: [usize; 2],
        interpolation: Interpolation,
    ) -> Self {
        let across = weights(crop.width, to_width, interpolation);
        let down = weights(crop.height, to_height, interpolation);
        let mut between = vec![0f32; crop.height * to_width * channels];
        let mut row = vec![0f32; crop.width * channels];
        for (y, out) in between.chunks_exact_mut(to_width * channels).enumerate() {
            samples.scaled_into(((crop.y + y) * width + crop.x) * channels, &mut row);
            for (out, (first, weights)) in out.chunks_exact_mut(channels).zip(&across) {
                for (pixel, weight) in row[first * channels..].chunks_exact(channels).zip(weights) {
                    out.iter_mut().zip(pixel).for_each(|(out, value)| *out += weight * value);
                }
            }
        }
        let mut values = vec![0f32; to_width * to_height * channels];
        for (out, (first, weights)) in values.chunks_exact_mut(to_width * channels).zip(&down) {
            for (row, weight) in between[first * to_width * channels..].chunks_exact(to_width * channels).zip(weights) {
                out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
            }
        }
        let bounded = !matches!(samples, Samples::F32(_));
        // A cubic overshoots.
        Self { width: to_width, height: to_height, channels, values, bounded }.cut_off()
    }

    fn cut_off(mut self) -> Self {
        self.bound();
        self
    }

    fn bound(&mut self) {
        if self.bounded {
            self.values.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
        }
    }

    /// The part under `crop`, which lies inside.
    pub(super) fn cropped(self, crop: CropBox) -> Self {
        let length = self.width * self.channels;
        let rows = self.values.chunks_exact(length).skip(crop.y).take(crop.height);
        let values =
            rows.flat_map(|row| &row[crop.x * self.channels..][..crop.width * self.channels]).copied().collect();
        Self { width: crop.width, height: crop.height, values, ..self }
    }

    /// Mirrors the rows.
    pub(super) fn flip(&mut self) {
        for row in self.values.chunks_exact_mut(self.width * self.channels) {
            for x in 0..self.width / 2 {
                for c in 0..self.channels {
                    row.swap(x * self.channels + c, (self.width - 1 - x) * self.channels + c);
                }
            }
        }
    }

    /// Every number times `factor`. Where there is no full scale, and zero may be anywhere, every channel is moved by `factor - 1` of its own standard
    /// deviations instead: the view does not depend on the unit of measurement.
    pub(super) fn brightness(&mut self, factor: f32) {
        if self.bounded {
            self.values.iter_mut().for_each(|value| *value *= factor);
            return self.bound();
        }
        for c in 0..self.channels {
            let shift = (factor - 1.0) * self.mean_and_std(c)[1];
            self.values.iter_mut().skip(c).step_by(self.channels).for_each(|value| *value += shift);
        }
    }

    fn mean_and_std(&self, channel: usize) -> [f32; 2] {
        let count = (self.width * self.height) as f64;
        let values = || self.values.iter().skip(channel).step_by(self.channels).map(|value| f64::from(*value));
        let mean = values().sum::<f64>() / count;
        [mean as f32, (values().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt() as f32]
    }

    /// Every channel's distance from its own mean times `factor`.
    pub(super) fn contrast(&mut self, factor: f32) {
        for c in 0..self.channels {
            let [mean, _] = self.mean_and_std(c);
            for value in self.values.iter_mut().skip(c).step_by(self.channels) {
                *value = mean + factor * (*value - mean);
            }
        }
        self.bound();
    }

    /// Convolves with a Gaussian of standard deviation `sigma` pixels, cut off at three of them and scaled to a sum of 1; beyond the border
    /// the border's value is repeated.
    pub(super) fn blur(&mut self, sigma: f32) {
        let radius = (3.0 * sigma).ceil() as usize;
        let mut kernel: Vec<f32> = (0..=2 * radius)
            .map(|i| (-0.5 * ((i as f64 - radius as f64) / f64::from(sigma)).powi(2)).exp() as f32)
            .collect();
        let sum: f32 = kernel.iter().sum();
        kernel.iter_mut().for_each(|weight| *weight /= sum);
        let (width, height, channels) = (self.width, self.height, self.channels);
        let inside = |at: usize, tap: usize, end: usize| (at + tap).saturating_sub(radius).min(end - 1);
        let mut across = vec![0f32; self.values.len()];
        for (row, out) in self.values.chunks_exact(width * channels).zip(across.chunks_exact_mut(width * channels)) {
            for (x, out) in out.chunks_exact_mut(channels).enumerate() {
                for (tap, weight) in kernel.iter().enumerate() {
                    let from = &row[inside(x, tap, width) * channels..][..channels];
                    out.iter_mut().zip(from).for_each(|(out, value)| *out += weight * value);
                }
            }
        }
        for (y, out) in self.values.chunks_exact_mut(width * channels).enumerate() {
            out.fill(0.0);
            for (tap, weight) in kernel.iter().enumerate() {
                let from = &across[inside(y, tap, height) * width * channels..][..width * channels];
                out.iter_mut().zip(from).for_each(|(out, value)| *out += weight * value);
            }
        }
    }

    /// Inverts the numbers from `threshold` (a share of full scale) up.
    pub(super) fn solarize(&mut self, threshold: f32) {
        self.values.iter_mut().filter(|value| **value >= threshold).for_each(|value| *value = 1.0 - *value);
    }
}

/// First input and weights of each output; the weights of an output sum to 1.
fn weights(from: usize, to: usize, interpolation: Interpolation) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = interpolation.reach() * stretch;
    let of_output = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - reach + 0.5).max(0.0) as usize;
        let last = ((center + reach + 0.5) as usize).min(from);
        let exact: Vec<f64> =
            (first..last).map(|k| interpolation.weight((k as f64 + 0.5 - center) / stretch)).collect();
        let sum: f64 = exact.iter().sum();
        (first, exact.iter().map(|weight| (weight / sum) as f32).collect())
    };
    (0..to).map(of_output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: usize, height: usize, channels: usize) -> Canvas {
        let values = (0..width * height * channels).map(|i| (i * i * 31 % 251) as f32 / 250.0).collect();
        Canvas { width, height, channels, values, bounded: true }
    }

    #[test]
    fn a_crop_of_the_views_size_is_copied() {
        let Canvas { values, .. } = noise(9, 7, 5);
        let crop = CropBox { x: 2, y: 1, width: 4, height: 4 };
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let out = Canvas::resized_crop((&Samples::F32(values.clone()), 9, 5), crop, [4, 4], interpolation);
            for (y, row) in out.values.chunks_exact(4 * 5).enumerate() {
                let start = ((1 + y) * 9 + 2) * 5;
                let close = row.iter().zip(&values[start..]).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(close, "{interpolation:?}, row {y}");
            }
        }
    }

    #[test]
    fn integers_are_taken_by_their_full_scale_and_stay_inside() {
        let steps: Vec<u16> = (0..64).map(|i| if i % 8 < 4 { 0 } else { 65535 }).collect();
        let crop = CropBox { x: 0, y: 0, width: 8, height: 8 };
        let out = Canvas::resized_crop((&Samples::U16(steps), 8, 1), crop, [19, 19], Interpolation::Bicubic);
        assert!(out.values.iter().all(|v| (0.0..=1.0).contains(v)), "the overshoot is cut off");
        assert!(out.values.contains(&0.0) && out.values.contains(&1.0));
    }

    #[test]
    fn flipping_twice_is_nothing() {
        let (mut once, before) = (noise(5, 3, 2), noise(5, 3, 2));
        once.flip();
        assert_eq!(once.values[..2], before.values[8..10]);
        once.flip();
        assert_eq!(once, before);
    }

    #[test]
    fn contrast_keeps_the_mean_of_every_channel() {
        let mut canvas = Canvas { bounded: false, ..noise(16, 16, 4) };
        let means = |canvas: &Canvas| -> Vec<f32> {
            (0..4).map(|c| canvas.values.iter().skip(c).step_by(4).sum::<f32>() / 256.0).collect()
        };
        let before = means(&canvas);
        canvas.contrast(1.7);
        assert!(means(&canvas).iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-4));
        canvas.contrast(0.0);
        assert!(canvas.values.chunks(4).all(|p| p.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-4)));
    }

    /// Kelvin or Celsius, meters or feet: the same view.
    #[test]
    fn without_a_full_scale_the_unit_does_not_matter() {
        let plain = Canvas { bounded: false, ..noise(12, 9, 3) };
        let mut changed = plain.clone();
        changed.values.iter_mut().for_each(|value| *value = 40.0 * *value - 300.0);
        let jittered = |mut canvas: Canvas| {
            canvas.brightness(1.3);
            canvas.contrast(0.7);
            canvas.values
        };
        let (plain, changed) = (jittered(plain), jittered(changed));
        assert!(plain.iter().zip(&changed).all(|(a, b)| (40.0 * a - 300.0 - b).abs() < 1e-3));
    }

    #[test]
    fn a_point_spreads_with_the_variance_asked_for() {
        for sigma in [0.8f32, 2.0, 3.5] {
            let mut canvas = Canvas { width: 41, height: 41, channels: 1, values: vec![0.0; 41 * 41], bounded: true };
            canvas.values[20 * 41 + 20] = 1.0;
            canvas.blur(sigma);
            assert!((canvas.values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let variance = |at: fn(usize) -> usize| -> f32 {
                canvas.values.iter().enumerate().map(|(i, v)| v * (at(i) as f32 - 20.0).powi(2)).sum()
            };
            for spread in [variance(|i| i % 41), variance(|i| i / 41)] {
                assert!((spread.sqrt() - sigma).abs() < 0.03 * sigma, "sigma {sigma}: {}", spread.sqrt());
            }
        }
    }

    #[test]
    fn bright_numbers_are_inverted() {
        let mut canvas = Canvas { width: 4, height: 1, channels: 1, values: vec![0.1, 0.5, 0.9, 0.49], bounded: true };
        canvas.solarize(0.5);
        assert!(canvas.values.iter().zip([0.1, 0.5, 0.1, 0.49]).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
