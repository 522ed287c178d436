//! From bytes to the numbers a network takes.

use std::mem::MaybeUninit;

use crate::image::Image;
use crate::simd::{Isa, append_normalized, places, vectorized};

/// Writes `(x / 255 - mean) / std` of every channel to `out`, `[height, width, 3]` f32.
///
/// Where `out` is shorter or longer than the picture, the overlap is written, in whole pixels.
pub fn normalize_into(image: &Image, mean: &[f32; 3], std: &[f32; 3], out: &mut [f32]) {
    normalize_places(Isa::detect(), &image.pixels, mean, std, places(out));
}

/// Appends what [`normalize_into`] writes: a batch that grows picture by picture is not cleared before.
pub fn normalize_onto(image: &Image, mean: &[f32; 3], std: &[f32; 3], out: &mut Vec<f32>) {
    append_normalized(Isa::detect(), &image.pixels, mean, std, out);
}

/// Writes a number into each place that has a byte of a whole pixel.
pub(crate) fn normalize_places(isa: Isa, pixels: &[u8], mean: &[f32; 3], std: &[f32; 3], out: &mut [MaybeUninit<f32>]) {
    let length = pixels.len().min(out.len()) / 3 * 3;
    let (pixels, out) = (&pixels[..length], &mut out[..length]);
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::normalize(isa, pixels, mean, std, out) {
        return;
    }
    scale(isa, pixels, mean, std, out);
}

/// One channel's value. The division first, as torchvision: x / 255 is rounded before the mean is subtracted.
#[inline(always)]
pub(crate) fn normalized(value: u8, mean: f32, std: f32) -> f32 {
    (f32::from(value) / 255.0 - mean) / std
}

vectorized! {
    fn scale(isa: Isa, pixels: &[u8], mean: &[f32; 3], std: &[f32; 3], out: &mut [MaybeUninit<f32>]) {
        let (to, _) = out.as_chunks_mut::<3>();
        let (from, _) = pixels.as_chunks::<3>();
        for (to, from) in to.iter_mut().zip(from) {
            for c in 0..3 {
                to[c].write(normalized(from[c], mean[c], std[c]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_scaled_each_by_its_own() {
        let image = Image { width: 1, height: 2, pixels: vec![0, 51, 255, 255, 102, 0] };
        let mut out = [9.0; 7];
        normalize_into(&image, &[0.5, 0.2, 0.0], &[0.5, 0.1, 2.0], &mut out);
        for (got, expected) in out.iter().zip([-1.0, 0.0, 0.5, 1.0, 2.0, 0.0, 9.0]) {
            assert!((got - expected).abs() < 1e-6, "{out:?}");
        }
    }

    /// Every instruction set gives the bits of the formula, for every value, also where mean and deviation are no usual ones.
    #[test]
    fn all_paths_give_the_same_bits() {
        let pixels: Vec<u8> = (0..256 * 3 * 5).map(|i| (i / 3 * 7 + i % 3 * 85) as u8).collect();
        let mut draws = crate::Stream::keyed(25, &[]);
        for case in 0..400 {
            let mut three = |low, high| std::array::from_fn(|_| draws.range(low, high) as f32);
            let (mean, std) = match case {
                0 => (crate::IMAGENET_MEAN, crate::IMAGENET_STD),
                1 => ([0.0; 3], [1.0; 3]),
                2 => ([1e30, -1e-30, 0.5], [1e30, 1e-38, 1e-3]),
                3 => ([0.2, f32::MIN_POSITIVE, 1.0 / 255.0], [1e-40, 3e38, 0.1]),
                _ => (three(-0.5, 1.5), three(0.01, 2.0)),
            };
            let length = pixels.len() - case * 3;
            let expected: Vec<u32> =
                (0..length).map(|i| normalized(pixels[i], mean[i % 3], std[i % 3]).to_bits()).collect();
            for isa in Isa::available() {
                let mut out = vec![9.0; length + 4];
                normalize_places(isa, &pixels[..length], &mean, &std, places(&mut out[1..]));
                assert!((out[0], out[length + 1], out[length + 3]) == (9.0, 9.0, 9.0));
                let got: Vec<u32> = out[1..=length].iter().map(|v| v.to_bits()).collect();
                assert!(got == expected, "{isa:?}, mean {mean:?}, deviation {std:?}");
                let mut grown = vec![9.0; 5];
                append_normalized(isa, &pixels[..length], &mean, &std, &mut grown);
                assert_eq!(grown[..5], [9.0; 5]);
                assert!(grown[5..].iter().map(|v| v.to_bits()).eq(expected.iter().copied()), "{isa:?}, appended");
            }
        }
    }

    /// Large views are written past the caches, which asks for an alignment: wherever they begin, each number arrives in its place.
    #[test]
    fn large_views_are_written_wherever_they_begin() {
        let pixels: Vec<u8> = (0..3 * 131 * 131usize).map(|i| (i * i % 253) as u8).collect();
        let (mean, std) = (crate::IMAGENET_MEAN, crate::IMAGENET_STD);
        let expected: Vec<f32> = (0..pixels.len()).map(|i| normalized(pixels[i], mean[i % 3], std[i % 3])).collect();
        for isa in Isa::available() {
            for begin in 0..18 {
                let mut out = vec![9.0; pixels.len() + 18];
                normalize_places(isa, &pixels, &mean, &std, places(&mut out[begin..][..pixels.len()]));
                assert!(out[begin..][..pixels.len()] == expected, "{isa:?} from {begin}");
                assert!(out[..begin].iter().chain(&out[begin + pixels.len()..]).all(|&v| v == 9.0));
            }
        }
    }
}
