//! Crop boxes and the middle crop of evaluation.

use super::resize::{resize, resized_crop};
use crate::image::Image;
use crate::recipe::Interpolation;

/// A part of a picture, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// Left column.
    pub x: usize,
    /// Upper row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl CropBox {
    /// All of `image`.
    pub fn whole(image: &Image) -> Self {
        Self { x: 0, y: 0, width: image.width, height: image.height }
    }

    /// The part of this box that lies in `image`; at least one pixel.
    pub fn within(self, image: &Image) -> Self {
        let (x, y) = (self.x.min(image.width - 1), self.y.min(image.height - 1));
        let width = self.width.clamp(1, image.width - x);
        let height = self.height.clamp(1, image.height - y);
        Self { x, y, width, height }
    }

    /// Row `y` of the box.
    #[inline(always)]
    pub(crate) fn row(self, image: &Image, y: usize) -> &[u8] {
        let start = ((self.y + y) * image.width + self.x) * 3;
        &image.pixels[start..start + self.width * 3]
    }
}

/// The middle `size` x `size` of a picture that is at least as large (torchvision's `center_crop`); else what there is.
pub fn center_crop(image: &Image, size: usize) -> Image {
    let (width, height) = (size.min(image.width).max(1), size.min(image.height).max(1));
    // Python's round: an odd pixel goes to the even side.
    let half = |room: usize| (room as f64 / 2.0).round_ties_even() as usize;
    let crop = CropBox { x: half(image.width - width), y: half(image.height - height), width, height };
    resized_crop(image, crop, width, height, Interpolation::Bilinear)
}

/// The view of evaluation: the shorter side is resized to 8/7 of `size` (256 for 224), the middle `size` x `size` is kept.
///
/// A picture whose shorter side is less than 8/7 of `size` would be enlarged only to be cropped: its shorter side is resized
/// to exactly `size` instead, so that a 32-pixel picture at size 32 is taken whole and unchanged. Bilinear, as torchvision.
pub fn center_view(image: &Image, size: usize) -> Image {
    let size = size.max(1);
    let short = image.width.min(image.height);
    let wide = (size * 8 + 3) / 7;
    let target = if short >= wide { wide } else { size };
    if short == target {
        return center_crop(image, size);
    }
    let long = |side: usize| (target as u64 * side as u64 / short as u64) as usize;
    let (width, height) = (long(image.width), long(image.height));
    center_crop(&resize(image, width, height, Interpolation::Bilinear), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose pixels say where they are.
    fn ramp(width: usize, height: usize) -> Image {
        let pixels = (0..width * height).flat_map(|i| [(i % width) as u8, (i / width) as u8, 0]).collect();
        Image { width, height, pixels }
    }

    #[test]
    fn the_middle_is_kept() {
        let out = center_crop(&ramp(10, 7), 4);
        assert_eq!((out.width, out.height), (4, 4));
        // (7 - 4) / 2 = 1.5 goes to 2, as in torchvision.
        assert_eq!(out.pixel(0, 0), Some([3, 2, 0]));
        assert_eq!(center_crop(&ramp(3, 9), 4).height, 4);
        assert_eq!(center_crop(&ramp(3, 9), 4).width, 3);
    }

    #[test]
    fn a_picture_of_the_views_size_is_taken_whole() {
        assert_eq!(center_view(&ramp(32, 32), 32), ramp(32, 32));
        assert_eq!(center_view(&ramp(40, 32), 32), center_crop(&ramp(40, 32), 32));
    }

    #[test]
    fn every_size_gives_a_square_of_it() {
        for (width, height) in [(1, 1), (1, 50), (300, 7), (48, 48), (36, 37), (64, 33)] {
            for size in [1, 7, 32, 224] {
                let out = center_view(&ramp(width, height), size);
                assert_eq!((out.width, out.height), (size, size), "{width}x{height} at {size}");
            }
        }
    }

    #[test]
    fn a_box_is_cut_off_at_the_border() {
        let image = ramp(4, 5);
        let inside = CropBox { x: 9, y: 2, width: 9, height: 0 }.within(&image);
        assert_eq!(inside, CropBox { x: 3, y: 2, width: 1, height: 1 });
        assert_eq!(CropBox::whole(&image).within(&image), CropBox { x: 0, y: 0, width: 4, height: 5 });
    }
}
