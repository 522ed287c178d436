//! Antialiased resampling, equal to Pillow's `Image.resize` to the byte.
//!
//! Two passes, along the rows and then along the columns, with 8-bit values in between; weights in fixed point with 22
//! bits. (Pillow 13 takes the columns first where the height shrinks more than the width; that rounds differently,
//! mostly by 1. This is the order of all versions before, with which the published results were made.) The crop is read where it lies: a pixel outside of it has no influence (torchvision crops first and then resizes;
//! Pillow's own `resize(box=...)` would look over the edge of the box).
//!
//! Both passes run over [`LANES`] independent sums at once: along the columns those are neighbors in a row, along the rows
//! they are 16 rows side by side, for which the rows are interleaved before and taken apart after.

mod weights;

use std::cell::RefCell;

pub(crate) use weights::{PRECISION, Weights};

use super::crop::CropBox;
use crate::image::Image;
use crate::recipe::Interpolation;
use crate::simd::{Isa, vectorized};

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
    resample(Isa::detect(), image, crop, [width, height], interpolation, false)
}

/// What a resampling keeps from picture to picture, one per thread: memory only, no value outlives a call.
#[derive(Default)]
struct Scratch {
    across: Weights,
    down: Weights,
    /// The rows after the first pass.
    between: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    plan: crate::simd::avx512::Plan,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// [`resized_crop`], mirrored if `flip`.
pub(crate) fn resample(
    isa: Isa,
    image: &Image,
    crop: CropBox,
    [width, height]: [usize; 2],
    interpolation: Interpolation,
    flip: bool,
) -> Image {
    let crop = crop.within(image);
    let (width, height) = (width.max(1), height.max(1));
    let mut out = Image { width, height, pixels: vec![0; width * height * 3] };
    if crop.width == width && crop.height == height {
        for (y, row) in out.pixels.chunks_exact_mut(width * 3).enumerate() {
            row.copy_from_slice(crop.row(image, y));
        }
        if flip {
            super::flip(&mut out);
        }
        return out;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch { across, down, between, .. } = scratch;
        across.set(isa, crop.width, width, interpolation, flip);
        down.set(isa, crop.height, height, interpolation, false);
        #[cfg(target_arch = "x86_64")]
        if crate::simd::avx512::resample(isa, image, crop, across, down, between, &mut scratch.plan, &mut out) {
            return;
        }
        // Rows are padded to whole blocks of lanes, so that no loop has a remainder.
        let stride = (width * 3).next_multiple_of(LANES);
        between.resize(stride * crop.height.next_multiple_of(ROWS), 0);
        along_rows(isa, image, crop, across, between, stride);
        along_columns(isa, between, stride, down, &mut out);
    });
    out
}

vectorized! {
    /// The crop, resampled along its rows, to `out` with `stride` bytes a row.
    fn along_rows(isa: Isa, image: &Image, crop: CropBox, weights: &Weights, out: &mut [u8], stride: usize) {
        let mut interleaved = vec![[0u8; LANES]; crop.width];
        for (block, out) in out.chunks_exact_mut(stride * ROWS).enumerate() {
            let rows = ROWS.min(crop.height - block * ROWS);
            for r in 0..rows {
                let (row, _) = crop.row(image, block * ROWS + r).as_chunks::<3>();
                for (lanes, pixel) in interleaved.iter_mut().zip(row) {
                    lanes[3 * r..3 * r + 3].copy_from_slice(pixel);
                }
            }
            for x in 0..weights.len() {
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
    fn along_columns(isa: Isa, source: &[u8], stride: usize, weights: &Weights, out: &mut Image) {
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

    /// Every instruction set gives the portable path's bytes, whatever the sizes; a flip is a flip of the result.
    #[test]
    fn all_paths_give_the_same_bytes() {
        let mut draws = crate::Stream::keyed(21, &[]);
        let mut below = |n: u64| draws.below(n) as usize;
        for case in 0..400 {
            let most = [8, 40, 90, 600][case % 4];
            let (width, height) = (1 + below(most), 1 + below(most));
            let image = Image { width, height, pixels: (0..width * height * 3).map(|_| below(256) as u8).collect() };
            let (x, y) = (below(width as u64), below(height as u64));
            let crop = CropBox { x, y, width: 1 + below((width - x) as u64), height: 1 + below((height - y) as u64) };
            let size = [1 + below(70), 1 + below(70)];
            let interpolation = [Interpolation::Bilinear, Interpolation::Bicubic][case / 4 % 2];
            let expected = resample(Isa::portable(), &image, crop, size, interpolation, false);
            let mut flipped = expected.clone();
            crate::ops::flip(&mut flipped);
            for isa in Isa::available() {
                let got = |flip| resample(isa, &image, crop, size, interpolation, flip);
                assert!(got(false) == expected, "{isa:?}, {width}x{height}, {crop:?} to {size:?}");
                assert!(got(true) == flipped, "{isa:?}, {width}x{height}, {crop:?} to {size:?}, flipped");
            }
        }
    }
}
