//! Antialiased resampling, equal to Pillow's `Image.resize` to the byte.
//!
//! Two passes, along the rows and then along the columns, with 8-bit values in between; weights in fixed point with 22
//! bits. (Pillow 13 takes the columns first where the height shrinks more than the width; that rounds differently,
//! mostly by 1. This is the order of all versions before, with which the published results were made.) The crop is read where it lies: a pixel outside of it has no influence (torchvision crops first and then resizes;
//! Pillow's own `resize(box=...)` would look over the edge of the box).
//!
//! Both passes run over [`LANES`] independent sums at once: along the columns those are neighbors in a row, along the rows
//! they are 16 rows side by side, for which the rows are interleaved before and taken apart after.

use super::crop::CropBox;
use crate::image::Image;
use crate::recipe::Interpolation;
use crate::simd::vectorized;

const PRECISION: u32 = 22;
const ROWS: usize = 16;
const LANES: usize = 3 * ROWS;

/// Resizes the whole picture to `width` x `height` (a side of zero is taken as 1).
pub fn resize(image: &Image, width: usize, height: usize, interpolation: Interpolation) -> Image {
    resized_crop(image, CropBox::whole(image), width, height, interpolation)
}

/// Resizes the part of `image` under `crop` to `width` x `height` (a side of zero is taken as 1).
///
/// What of `crop` lies outside the picture is cut off.
pub fn resized_crop(image: &Image, crop: CropBox, width: usize, height: usize, interpolation: Interpolation) -> Image {
    let crop = crop.within(image);
    let mut out = Image::filled(width, height, [0; 3]);
    if crop.width == out.width && crop.height == out.height {
        for (y, row) in out.pixels.chunks_exact_mut(width * 3).enumerate() {
            row.copy_from_slice(crop.row(image, y));
        }
        return out;
    }
    // Rows are padded to whole blocks of lanes, so that no loop has a remainder.
    let stride = (out.width * 3).next_multiple_of(LANES);
    let mut between = vec![0; stride * crop.height.next_multiple_of(ROWS)];
    along_rows(image, crop, &Weights::new(crop.width, out.width, interpolation), &mut between, stride);
    along_columns(&between, stride, &Weights::new(crop.height, out.height, interpolation), &mut out);
    out
}

/// What each output is a weighted sum of, along one direction.
struct Weights {
    /// First input, and number of inputs, of each output.
    spans: Vec<(usize, usize)>,
    /// The weights of output i are at `i * most`.
    weights: Vec<i32>,
    most: usize,
}

impl Weights {
    fn new(from: usize, to: usize, interpolation: Interpolation) -> Self {
        match interpolation {
            Interpolation::Bilinear => Self::sample(from, to, 1.0, triangle),
            Interpolation::Bicubic => Self::sample(from, to, 2.0, cubic),
        }
    }

    /// The filter reaches `reach` inputs far, or as many outputs where the picture shrinks.
    #[inline(always)]
    fn sample(from: usize, to: usize, reach: f64, filter: impl Fn(f64) -> f64) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = reach * stretch;
        let inverse = 1.0 / stretch;
        let most = reach.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(to);
        let mut weights = vec![0; to * most];
        let mut exact = vec![0.0; most];
        for (i, weights) in weights.chunks_exact_mut(most).enumerate() {
            let center = (i as f64 + 0.5) * scale;
            // Casts to unsigned stop at zero.
            let first = (center - reach + 0.5) as usize;
            let last = ((center + reach + 0.5) as usize).min(from);
            let count = last - first;
            let mut sum = 0.0;
            for (k, w) in exact[..count].iter_mut().enumerate() {
                *w = filter(((k + first) as f64 - center + 0.5) * inverse);
                sum += *w;
            }
            for (fixed, w) in weights.iter_mut().zip(&exact[..count]) {
                let w = if sum == 0.0 { *w } else { *w / sum } * f64::from(1 << PRECISION);
                *fixed = (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32;
            }
            spans.push((first, count));
        }
        Self { spans, weights, most }
    }

    /// First input and weights of output `i`.
    #[inline(always)]
    fn of(&self, i: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[i];
        (first, &self.weights[i * self.most..i * self.most + count])
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys 1981 with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

vectorized! {
    /// The crop, resampled along its rows, to `out` with `stride` bytes a row.
    fn along_rows(image: &Image, crop: CropBox, weights: &Weights, out: &mut [u8], stride: usize) {
        if weights.spans.len() == crop.width {
            for y in 0..crop.height {
                let row = crop.row(image, y);
                out[y * stride..y * stride + row.len()].copy_from_slice(row);
            }
            return;
        }
        let mut interleaved = vec![[0u8; LANES]; crop.width];
        for (block, out) in out.chunks_exact_mut(stride * ROWS).enumerate() {
            let rows = ROWS.min(crop.height - block * ROWS);
            for r in 0..rows {
                let (row, _) = crop.row(image, block * ROWS + r).as_chunks::<3>();
                for (lanes, pixel) in interleaved.iter_mut().zip(row) {
                    lanes[3 * r..3 * r + 3].copy_from_slice(pixel);
                }
            }
            for x in 0..weights.spans.len() {
                let (first, weights) = weights.of(x);
                let mixed = mix(interleaved[first..].iter(), weights);
                for r in 0..rows {
                    out[r * stride + 3 * x..r * stride + 3 * x + 3].copy_from_slice(&mixed[3 * r..3 * r + 3]);
                }
            }
        }
    }
}

vectorized! {
    /// `source`, rows of `stride` bytes, resampled along its columns.
    fn along_columns(source: &[u8], stride: usize, weights: &Weights, out: &mut Image) {
        let length = out.width * 3;
        for (y, row) in out.pixels.chunks_exact_mut(length).enumerate() {
            let (first, weights) = weights.of(y);
            for (block, to) in row.chunks_mut(LANES).enumerate() {
                let inputs = source[first * stride..].chunks_exact(stride).map(|r| {
                    let (lanes, _) = r[block * LANES..].as_chunks::<LANES>();
                    &lanes[0]
                });
                to.copy_from_slice(&mix(inputs, weights)[..to.len()]);
            }
        }
    }
}

/// The weighted sum of `inputs`, rounded and cut off to bytes (a cubic overshoots).
#[inline(always)]
fn mix<'a>(inputs: impl Iterator<Item = &'a [u8; LANES]>, weights: &[i32]) -> [u8; LANES] {
    let mut sums = [1i32 << (PRECISION - 1); LANES];
    for (input, &weight) in inputs.zip(weights) {
        for lane in 0..LANES {
            sums[lane] += i32::from(input[lane]) * weight;
        }
    }
    sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_picture_stays_even() {
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (width, height) in [(1, 1), (7, 5), (40, 33), (17, 23)] {
                let out = resize(&Image::filled(17, 23, [200, 0, 255]), width, height, interpolation);
                assert_eq!(out, Image::filled(width, height, [200, 0, 255]), "{width}x{height}");
            }
        }
    }

    /// By hand: the halves of a pair of pixels, and Pillow's triangle over four.
    #[test]
    fn a_line_is_resampled_as_by_hand() {
        let line = |values: &[u8]| Image {
            width: values.len(),
            height: 1,
            pixels: values.iter().flat_map(|&v| [v; 3]).collect(),
        };
        let out = resize(&line(&[0, 100]), 4, 1, Interpolation::Bilinear);
        assert_eq!(out, line(&[0, 25, 75, 100]));
        let out = resize(&line(&[0, 100, 200, 100]), 2, 1, Interpolation::Bilinear);
        assert_eq!(out, line(&[71, 143]), "weights 3, 3, 1 and 1, 3, 3 of 7");
    }

    #[test]
    fn pixels_outside_the_crop_have_no_influence() {
        let mut image = Image::filled(9, 9, [255, 0, 0]);
        image.paste(&Image::filled(4, 3, [1, 2, 3]), 2, 5);
        let crop = CropBox { x: 2, y: 5, width: 4, height: 3 };
        assert_eq!(resized_crop(&image, crop, 7, 7, Interpolation::Bicubic), Image::filled(7, 7, [1, 2, 3]));
        let too_large = CropBox { x: 8, y: 0, width: 400, height: 3 };
        assert_eq!(resized_crop(&image, too_large, 2, 2, Interpolation::Bicubic), Image::filled(2, 2, [255, 0, 0]));
    }
}
