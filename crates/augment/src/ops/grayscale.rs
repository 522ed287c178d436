//! Luma after ITU-R 601, as Pillow's mode `L`.

use crate::image::Image;
use crate::simd::{Isa, vectorized};

/// Replaces the color by its luma, in all three channels (torchvision's `rgb_to_grayscale` with three channels).
pub fn grayscale(image: &mut Image) {
    grayscale_on(Isa::detect(), image);
}

fn grayscale_on(isa: Isa, image: &mut Image) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::grayscale(isa, &mut image.pixels) {
        return;
    }
    fade(isa, &mut image.pixels);
}

vectorized! {
    fn fade(isa: Isa, pixels: &mut [u8]) {
        let (pixels, _) = pixels.as_chunks_mut::<3>();
        for pixel in pixels {
            *pixel = [luma(*pixel); 3];
        }
    }
}

/// 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point, rounded.
#[inline(always)]
pub(crate) fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primaries_have_their_known_luma() {
        assert_eq!([luma([255, 0, 0]), luma([0, 255, 0]), luma([0, 0, 255])], [76, 150, 29]);
        assert!((0..=255).all(|v| luma([v; 3]) == v), "gray stays as it is");
    }

    #[test]
    fn the_channels_become_equal() {
        let mut image = Image { width: 1, height: 2, pixels: vec![255, 0, 0, 10, 200, 30] };
        grayscale(&mut image);
        assert_eq!(image.pixels, [76, 76, 76, 124, 124, 124]);
    }

    #[test]
    fn all_paths_give_the_same_bytes() {
        crate::ops::same_on_every_path("grayscale", &grayscale_on);
    }
}
