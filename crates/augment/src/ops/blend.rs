//! Brightness, contrast and saturation: a blend of the picture with a duller one.
//!
//! As in Pillow's `ImageEnhance`: out = dull + factor * (picture - dull), in f32, cut off to [0, 255] and **truncated**,
//! not rounded. A factor of 1 changes nothing, of 0 gives the dull picture, above 1 exaggerates.

use super::{look_up, luma};
use crate::image::Image;
use crate::simd::{Isa, vectorized};

/// Blends with black (torchvision's `adjust_brightness`).
pub fn brightness(image: &mut Image, factor: f32) {
    blend_with_level(Isa::detect(), image, 0, factor);
}

/// Blends with an even gray, the rounded mean luma of the picture (torchvision's `adjust_contrast`).
pub fn contrast(image: &mut Image, factor: f32) {
    contrast_on(Isa::detect(), image, factor);
}

/// Blends with the picture's own luma (torchvision's `adjust_saturation`).
pub fn saturation(image: &mut Image, factor: f32) {
    saturation_on(Isa::detect(), image, factor);
}

fn contrast_on(isa: Isa, image: &mut Image, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let sum = luma_sum(isa, &image.pixels);
    let mean = (sum as f64 / (image.pixels.len() / 3).max(1) as f64 + 0.5) as u8;
    blend_with_level(isa, image, mean, factor);
}

fn luma_sum(isa: Isa, pixels: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(sum) = crate::simd::avx512::luma_sum(isa, pixels) {
        return sum;
    }
    let mut sum = 0;
    sum_luma(isa, pixels, &mut sum);
    sum
}

vectorized! {
    fn sum_luma(isa: Isa, pixels: &[u8], sum: &mut u64) {
        // Sums of 32 bits, which are wide enough for that many, run over more pixels at once.
        for block in pixels.chunks(3 << 16) {
            let (pixels, _) = block.as_chunks::<3>();
            *sum += u64::from(pixels.iter().map(|&p| u32::from(luma(p))).sum::<u32>());
        }
    }
}

fn saturation_on(isa: Isa, image: &mut Image, factor: f32) {
    if factor == 1.0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::saturation(isa, &mut image.pixels, factor) {
        return;
    }
    saturate(isa, &mut image.pixels, factor);
}

/// Pixels per block: taken apart into channels, so that many are blended side by side.
const BLOCK: usize = 64;

vectorized! {
    fn saturate(isa: Isa, pixels: &mut [u8], factor: f32) {
        let (pixels, _) = pixels.as_chunks_mut::<3>();
        let mut channels = [[0u8; BLOCK]; 3];
        for block in pixels.chunks_mut(BLOCK) {
            for (i, pixel) in block.iter().enumerate() {
                for c in 0..3 {
                    channels[c][i] = pixel[c];
                }
            }
            let [r, g, b] = &mut channels;
            for i in 0..BLOCK {
                let dull = luma([r[i], g[i], b[i]]);
                [r[i], g[i], b[i]] = [r[i], g[i], b[i]].map(|v| blend(dull, v, factor));
            }
            for (i, pixel) in block.iter_mut().enumerate() {
                *pixel = [channels[0][i], channels[1][i], channels[2][i]];
            }
        }
    }
}

/// Every value depends on itself alone: a table of 256.
fn blend_with_level(isa: Isa, image: &mut Image, level: u8, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let table = std::array::from_fn(|v| blend(level, v as u8, factor));
    look_up(isa, image, &table);
}

#[inline(always)]
fn blend(dull: u8, value: u8, factor: f32) -> u8 {
    let out = f32::from(dull) + factor * (f32::from(value) - f32::from(dull));
    // Cut off and truncated, as Pillow spells out and a cast would do one by one: adding 1.5 * 2^23 gives the nearest integer, which is in the lower bits.
    const WHOLE: f32 = 12_582_912.0;
    let cut = out.clamp(0.0, 255.0);
    let nearest = (cut + WHOLE) - WHOLE;
    let whole = nearest - if nearest > cut { 1.0 } else { 0.0 };
    (whole + WHOLE).to_bits() as u8
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

    #[test]
    fn all_paths_give_the_same_bytes() {
        for factor in [0.0, 0.2, 0.999, 1.37, 1.8, 7.5, 3e9, f32::INFINITY] {
            let same = crate::ops::same_on_every_path;
            same("brightness", &|isa, image| blend_with_level(isa, image, 0, factor));
            same("contrast", &|isa, image| contrast_on(isa, image, factor));
            same("saturation", &|isa, image| saturation_on(isa, image, factor));
        }
    }

    /// Every difference between a value and its luma, at factors with all bits used.
    #[test]
    fn saturation_is_the_same_for_every_luma_and_value() {
        let colors = (0..256usize).flat_map(|v| (0..256usize).map(move |g| [v as u8, g as u8, (v * 7 + g * 13) as u8]));
        let image = Image { width: 256, height: 256, pixels: colors.flatten().collect() };
        let mut draws = crate::Stream::keyed(23, &[]);
        for _ in 0..100 {
            let factor = draws.range(0.0, 2.0) as f32;
            let on = |isa| {
                let mut image = image.clone();
                saturation_on(isa, &mut image, factor);
                image
            };
            let expected = on(Isa::portable());
            for isa in Isa::available() {
                assert!(on(isa) == expected, "{isa:?}, factor {factor}");
            }
        }
    }

    #[test]
    fn blends_are_those_of_a_cast() {
        let mut draws = crate::Stream::keyed(27, &[]);
        let drawn: Vec<f32> = (0..60).map(|_| draws.range(0.0, 2.0) as f32).collect();
        for factor in drawn.into_iter().chain([0.0, 0.5, 1.0, 2.0, 1e30, f32::INFINITY]) {
            for (dull, value) in (0..=255).flat_map(|dull| (0..=255).map(move |value| (dull, value))) {
                let expected = (f32::from(dull) + factor * (f32::from(value) - f32::from(dull))) as u8;
                assert_eq!(blend(dull, value, factor), expected, "{dull}, {value}, {factor}");
            }
        }
    }
}
