//! One view of a raster.

use super::ops::Canvas;
use super::{Raster, Samples};
use crate::draw::{JitterOp, ViewParams};
use crate::ops::CropBox;
use crate::recipe::Interpolation;

/// The view of `raster` that the drawn parameters say: as [`crate::apply`], in f32, with brightness and contrast per channel (for f32 pictures brightness is an
/// offset in standard deviations, since their zero may be anywhere). The result's numbers
/// are what a network sees before normalization: integers by their full scale, f32 as they are.
///
/// Saturation, hue and grayscale are about red, green and blue: a recipe that asks for them is refused for other pictures by
/// [`crate::ViewRecipe::check_for`], and here they do nothing.
pub fn apply_raster(raster: &Raster, params: &ViewParams) -> Raster {
    let channels = raster.channels;
    let crop = inside(params.crop, raster);
    let source = (&raster.samples, raster.width, channels);
    let size = params.size.max(1);
    let mut canvas = Canvas::resized_crop(source, crop, [size, size], params.interpolation);
    if params.flip {
        canvas.flip();
    }
    if let Some(jitter) = params.jitter {
        for op in jitter.order {
            match op {
                JitterOp::Brightness if jitter.brightness != 1.0 => canvas.brightness(jitter.brightness),
                JitterOp::Contrast if jitter.contrast != 1.0 => canvas.contrast(jitter.contrast),
                _ => {}
            }
        }
    }
    if let Some(sigma) = params.blur.filter(|sigma| *sigma > 0.0) {
        canvas.blur(sigma);
    }
    if let Some(threshold) = params.solarize {
        canvas.solarize(f32::from(threshold) / 255.0);
    }
    let Canvas { width, height, values, .. } = canvas;
    Raster { width, height, channels, samples: Samples::F32(values) }
}

/// The part of a box that lies in the picture; at least one pixel.
fn inside(crop: CropBox, raster: &Raster) -> CropBox {
    let (x, y) = (crop.x.min(raster.width - 1), crop.y.min(raster.height - 1));
    CropBox { x, y, width: crop.width.clamp(1, raster.width - x), height: crop.height.clamp(1, raster.height - y) }
}

/// The middle of `raster` for evaluation, `size` x `size`, framed as [`crate::center_view`] frames it.
pub(crate) fn center_raster(raster: &Raster, size: usize) -> Raster {
    let size = size.max(1);
    let (width, height) = (raster.width, raster.height);
    let short = width.min(height);
    let wide = (size * 8 + 3) / 7;
    let target = if short >= wide { wide } else { size };
    let scaled = [width, height].map(|side| (target as u64 * side as u64 / short as u64) as usize);
    let source = (&raster.samples, width, raster.channels);
    let all = CropBox { x: 0, y: 0, width, height };
    let canvas = Canvas::resized_crop(source, all, scaled, Interpolation::Bilinear);
    let [x, y] = scaled.map(|side| ((side - size) as f64 / 2.0).round_ties_even() as usize);
    let Canvas { values, .. } = canvas.cropped(CropBox { x, y, width: size, height: size });
    Raster { width: size, height: size, channels: raster.channels, samples: Samples::F32(values) }
}

/// The whole of `raster` resampled to `width` x `height` (a side of zero is taken as 1), in f32, and rounded to the depth that it had.
pub(crate) fn resized_raster(raster: &Raster, width: usize, height: usize, interpolation: Interpolation) -> Raster {
    let crop = CropBox { x: 0, y: 0, width: raster.width, height: raster.height };
    let source = (&raster.samples, raster.width, raster.channels);
    let canvas = Canvas::resized_crop(source, crop, [width.max(1), height.max(1)], interpolation);
    let Canvas { width, height, channels, values, .. } = canvas;
    let samples = match raster.samples {
        Samples::U8(_) => Samples::U8(values.iter().map(|value| (value * 255.0 + 0.5) as u8).collect()),
        Samples::U16(_) => Samples::U16(values.iter().map(|value| (value * 65535.0 + 0.5) as u16).collect()),
        Samples::F32(_) => Samples::F32(values),
    };
    Raster { width, height, channels, samples }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Recipe, ViewRecipe};
    use crate::{Image, Stream, apply};

    fn waves(width: usize, height: usize) -> Image {
        let value = |i: usize| ((i % (width * 3)) as f64 * 0.04).sin() + ((i / (width * 3)) as f64 * 0.1).cos();
        Image::new(width, height, (0..width * height * 3).map(|i| (128.0 + 50.0 * value(i)) as u8).collect()).unwrap()
    }

    fn raster(image: &Image) -> Raster {
        Raster::new(image.width, image.height, 3, Samples::U8(image.pixels.clone())).unwrap()
    }

    fn values(raster: &Raster) -> &[f32] {
        let Samples::F32(values) = &raster.samples else { panic!("views are f32") };
        values
    }

    /// Crop, flip, brightness, solarizing and blur are the same operations as on 8-bit RGB, but for its rounding (Pillow's blur is a
    /// Gaussian's approximation by boxes).
    #[test]
    fn a_view_of_three_channels_is_that_of_the_8_bit_picture_up_to_rounding() {
        let image = waves(61, 47);
        let base = Recipe::byol(24).shared();
        let plain = ViewRecipe { saturation: 0.0, hue: 0.0, contrast: 0.0, grayscale: 0.0, solarize: 0.0, ..base };
        for (blur, bound) in [(0.0, 3.0), (1.0, 8.0)] {
            let recipe = ViewRecipe { blur, blur_sigma: [1.0, 2.0], ..plain.clone() };
            for key in 0..40 {
                let params = ViewParams::draw(&recipe, 61, 47, &mut Stream::keyed(5, &[key]));
                let (ours, expected) = (apply_raster(&raster(&image), &params), apply(&image, &params));
                let worst = values(&ours).iter().zip(&expected.pixels).map(|(a, b)| (a * 255.0 - f32::from(*b)).abs());
                let worst = worst.fold(0.0, f32::max);
                assert!(worst <= bound, "view {key}: {worst} of 255 apart");
            }
        }
    }

    #[test]
    fn every_depth_gives_the_same_view() {
        let image = waves(40, 33);
        let wide: Vec<u16> = image.pixels.iter().map(|v| u16::from(*v) * 257).collect();
        let real: Vec<f32> = image.pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
        let recipe = Recipe::simclr(16).shared();
        let params = ViewParams::draw(&recipe, 40, 33, &mut Stream::keyed(1, &[2]));
        let first = apply_raster(&raster(&image), &params);
        for samples in [Samples::U16(wide), Samples::F32(real)] {
            let params = ViewParams { jitter: None, ..params };
            let expected = apply_raster(&raster(&image), &params);
            let other = apply_raster(&Raster::new(40, 33, 3, samples).unwrap(), &params);
            assert!(values(&other).iter().zip(values(&expected)).all(|(a, b)| (a - b).abs() < 0.05));
        }
        assert_eq!(first, apply_raster(&raster(&image), &params), "the same parameters, the same numbers");
    }

    #[test]
    fn the_middle_is_that_of_8_bit_pictures() {
        for (width, height, size) in [(64, 48, 32), (32, 32, 32), (90, 33, 32), (20, 31, 32), (256, 256, 64)] {
            let image = waves(width, height);
            let (ours, expected) = (center_raster(&raster(&image), size), crate::center_view(&image, size));
            assert_eq!((ours.width, ours.height), (size, size));
            let difference: f32 =
                values(&ours).iter().zip(&expected.pixels).map(|(a, b)| (a * 255.0 - f32::from(*b)).abs()).sum();
            let mean = difference / expected.pixels.len() as f32;
            assert!(mean < 0.6, "{width}x{height} at {size}: {mean} of 255 apart");
        }
    }

    #[test]
    fn any_picture_gives_a_view() {
        let recipe = ViewRecipe { interpolation: Interpolation::Bicubic, ..Recipe::byol(7).shared() };
        for (width, height, channels) in [(1, 1, 1), (1, 30, 2), (200, 3, 16)] {
            let numbers = Samples::F32((0..width * height * channels).map(|i| i as f32 - 50.0).collect());
            let raster = Raster::new(width, height, channels, numbers).unwrap();
            for key in 0..30 {
                let params = ViewParams::draw(&recipe, width, height, &mut Stream::keyed(1, &[key]));
                let out = apply_raster(&raster, &params);
                assert_eq!((out.width, out.height, out.channels, out.samples.len()), (7, 7, channels, 49 * channels));
                assert!(values(&out).iter().all(|v| v.is_finite()));
            }
            assert_eq!(center_raster(&raster, 5).samples.len(), 25 * channels);
        }
    }

    /// As the 8-bit operation, up to its rounding between the passes; and every depth keeps its numbers.
    #[test]
    fn a_picture_is_made_smaller_in_its_own_depth() {
        let image = waves(61, 47);
        let expected = crate::ops::resize(&image, 30, 20, Interpolation::Bilinear);
        let small = resized_raster(&raster(&image), 30, 20, Interpolation::Bilinear);
        let Samples::U8(pixels) = &small.samples else { panic!("8 bits stay 8 bits") };
        assert_eq!((small.width, small.height, small.channels), (30, 20, 3));
        assert!(pixels.iter().zip(&expected.pixels).all(|(a, b)| a.abs_diff(*b) <= 1));
        let wide = Raster::new(4, 2, 1, Samples::U16(vec![0, 65535, 1, 1, 3, 65535, 5, 65533])).unwrap();
        assert_eq!(resized_raster(&wide, 4, 2, Interpolation::Bilinear), wide, "the same size, the same numbers");
        let real = Raster::new(2, 1, 1, Samples::F32(vec![-4.0, 8.0])).unwrap();
        let Samples::F32(values) = resized_raster(&real, 1, 1, Interpolation::Bilinear).samples else { panic!("f32") };
        assert_eq!(values, [2.0]);
    }
}
