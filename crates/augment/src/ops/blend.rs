//! Brightness, contrast and saturation: a blend of the picture with a duller one.
//!
//! As in Pillow's `ImageEnhance`: out = dull + factor * (picture - dull), in f32, cut off to [0, 255] and **truncated**,
//! not rounded. A factor of 1 changes nothing, of 0 gives the dull picture, above 1 exaggerates.

use super::{look_up, luma};
use crate::image::Image;

/// Blends with black (torchvision's `adjust_brightness`).
pub fn brightness(image: &mut Image, factor: f32) {
    blend_with_level(image, 0, factor);
}

/// Blends with an even gray, the rounded mean luma of the picture (torchvision's `adjust_contrast`).
pub fn contrast(image: &mut Image, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let (pixels, _) = image.pixels.as_chunks::<3>();
    let sum: u64 = pixels.iter().map(|&p| u64::from(luma(p))).sum();
    let mean = (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8;
    blend_with_level(image, mean, factor);
}

/// Blends with the picture's own luma (torchvision's `adjust_saturation`).
pub fn saturation(image: &mut Image, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let (pixels, _) = image.pixels.as_chunks_mut::<3>();
    for pixel in pixels {
        let dull = luma(*pixel);
        *pixel = pixel.map(|v| blend(dull, v, factor));
    }
}

/// Every value depends on itself alone: a table of 256.
fn blend_with_level(image: &mut Image, level: u8, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let table = std::array::from_fn(|v| blend(level, v as u8, factor));
    look_up(image, &table);
}

#[inline(always)]
fn blend(dull: u8, value: u8, factor: f32) -> u8 {
    // Rust's `as` cuts off and truncates, which is what Pillow spells out.
    (f32::from(dull) + factor * (f32::from(value) - f32::from(dull))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Image {
        Image { width: 2, height: 2, pixels: vec![10, 20, 30, 200, 100, 50, 255, 255, 255, 0, 0, 1] }
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        for op in [brightness, contrast, saturation] {
            let mut image = picture();
            op(&mut image, 1.0);
            assert_eq!(image, picture());
        }
    }

    #[test]
    fn a_factor_of_zero_gives_the_dull_picture() {
        let after = |op: fn(&mut Image, f32)| {
            let mut image = picture();
            op(&mut image, 0.0);
            image.pixels
        };
        assert_eq!(after(brightness), [0; 12]);
        assert_eq!(after(contrast), [99; 12], "luma 18, 124, 255, 0 have the mean 99.25");
        assert_eq!(after(saturation), [18, 18, 18, 124, 124, 124, 255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn values_are_truncated_and_cut_off() {
        let mut image = picture();
        brightness(&mut image, 1.55);
        assert_eq!(image.pixels, [15, 31, 46, 255, 155, 77, 255, 255, 255, 0, 0, 1]);
    }
}
