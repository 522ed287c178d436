//! Horizontal flip.

use crate::image::Image;
use crate::simd::Isa;

/// Mirrors the picture left to right.
pub fn flip(image: &mut Image) {
    flip_on(Isa::detect(), image);
}

fn flip_on(isa: Isa, image: &mut Image) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::flip(isa, &mut image.pixels, image.width * 3) {
        return;
    }
    let _ = isa;
    for row in image.pixels.chunks_exact_mut(image.width * 3) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_mirrored_and_channels_kept() {
        let first: Vec<u8> = (0..18).collect();
        let mut image = Image { width: 3, height: 2, pixels: first.clone() };
        flip(&mut image);
        assert_eq!(image.pixels, [6, 7, 8, 3, 4, 5, 0, 1, 2, 15, 16, 17, 12, 13, 14, 9, 10, 11]);
        flip(&mut image);
        assert_eq!(image.pixels, first, "flipping twice changes nothing");
    }

    #[test]
    fn all_paths_give_the_same_bytes() {
        crate::ops::same_on_every_path("flip", &flip_on);
    }
}
