//! A square picture of linear floats, and what is done to it: paint, light, blur, noise, and the way to bytes.

use diptych_augment::Image;
use diptych_random::Stream;

/// Red, green, blue; 0 is black, 1 is white.
pub(super) type Color = [f32; 3];

/// A picture under the brush.
pub(super) struct Canvas {
    size: usize,
    /// `[size, size, 3]`.
    pixels: Vec<f32>,
}

impl Canvas {
    /// A smooth background: the four corners' colors, blended, on a grid of random shades.
    pub(super) fn background(size: usize, corners: &[Color; 4], clouds: f32, stream: &mut Stream) -> Self {
        const GRID: usize = 5;
        let shades: [[f32; GRID]; GRID] =
            std::array::from_fn(|_| std::array::from_fn(|_| clouds * stream.range(-1.0, 1.0) as f32));
        let mut pixels = Vec::with_capacity(size * size * 3);
        let places: Vec<_> =
            (0..size).map(|i| (i as f32 + 0.5) / size as f32).map(|t| (t, cell(t, GRID - 1))).collect();
        for &(v, (i, fy)) in &places {
            let [left, right]: [Color; 2] =
                std::array::from_fn(|side| std::array::from_fn(|c| mix(corners[side][c], corners[side + 2][c], v)));
            let shades: [f32; GRID] = std::array::from_fn(|j| mix(shades[i][j], shades[i + 1][j], fy));
            for &(u, (j, fx)) in &places {
                let shade = mix(shades[j], shades[j + 1], fx);
                pixels.extend((0..3).map(|c| mix(left[c], right[c], u) + shade));
            }
        }
        Self { size, pixels }
    }

    /// Blends `color` in where `cover(x, y)` (coordinates in [0, 1], result in [0, 1]) says so, within the square of
    /// half side `reach` around `center`.
    pub(super) fn paint(&mut self, center: [f32; 2], reach: f32, color: Color, cover: impl Fn(f32, f32) -> f32) {
        let side = self.size as f32;
        let span = |c: f32| {
            let first = ((c - reach) * side).floor().max(0.0) as usize;
            let last = ((c + reach) * side).ceil().clamp(0.0, side) as usize;
            first.min(last)..last
        };
        for row in span(center[1]) {
            let y = (row as f32 + 0.5) / side;
            for column in span(center[0]) {
                let share = cover((column as f32 + 0.5) / side, y);
                if share > 0.0 {
                    let at = (row * self.size + column) * 3;
                    for (pixel, paint) in self.pixels[at..at + 3].iter_mut().zip(color) {
                        *pixel = mix(*pixel, paint, share);
                    }
                }
            }
        }
    }

    /// Multiplies by a plane of brightness that grows by `slope` from edge to edge.
    pub(super) fn light(&mut self, slope: [f32; 2]) {
        let side = self.size as f32;
        for (row, pixels) in self.pixels.chunks_exact_mut(self.size * 3).enumerate() {
            let down = 1.0 + slope[1] * ((row as f32 + 0.5) / side - 0.5);
            for (column, pixel) in pixels.chunks_exact_mut(3).enumerate() {
                let gain = down + slope[0] * ((column as f32 + 0.5) / side - 0.5);
                for value in pixel {
                    *value *= gain;
                }
            }
        }
    }

    /// Blurs with the kernel (w, 1 - 2w, w) along both axes; the border repeats.
    pub(super) fn blur(&mut self, weight: f32) {
        let stride = self.size * 3;
        let smooth = |a: f32, b: f32, c: f32| b + weight * (a - 2.0 * b + c);
        for row in self.pixels.chunks_exact_mut(stride) {
            let mut before = [row[0], row[1], row[2]];
            for at in 0..stride {
                let after = if at + 3 < stride { row[at + 3] } else { row[at] };
                let here = row[at];
                row[at] = smooth(before[at % 3], here, after);
                before[at % 3] = here;
            }
        }
        let mut before = self.pixels[..stride].to_vec();
        for row in 0..self.size {
            let start = row * stride;
            for (at, before) in before.iter_mut().enumerate() {
                let here = self.pixels[start + at];
                let after = if row + 1 < self.size { self.pixels[start + stride + at] } else { here };
                self.pixels[start + at] = smooth(*before, here, after);
                *before = here;
            }
        }
    }

    /// Adds noise of standard deviation `sigma` to each value and rounds to bytes.
    ///
    /// Noise is a sum of four uniforms (close to normal, and without a logarithm).
    pub(super) fn finish(self, sigma: f32, stream: &mut Stream) -> Image {
        // Four 16-bit uniforms have mean 2 * 65535 and standard deviation 65536 / sqrt(3).
        let scale = sigma * 1.732_050_8 / 65536.0;
        let bytes = self.pixels.iter().map(|&value| {
            let bits = stream.next_u64();
            let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
            let noisy = value + (sum as f32 - 131_070.0) * scale;
            (noisy * 255.0 + 0.5).clamp(0.0, 255.0) as u8
        });
        Image { width: self.size, height: self.size, pixels: bytes.collect() }
    }
}

/// The cell, of `cells` in [0, 1), that `t` lies in, and where in it, eased so that shades have no creases.
fn cell(t: f32, cells: usize) -> (usize, f32) {
    let t = t * cells as f32;
    let index = t as usize;
    let f = t - index as f32;
    (index, f * f * (3.0 - 2.0 * f))
}

fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}
