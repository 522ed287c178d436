//! Horizontal flip.

use crate::image::Image;

/// Mirrors the picture left to right.
pub fn flip(image: &mut Image) {
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
}
