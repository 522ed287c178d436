//! The picture all operations work on: 8-bit RGB, rows from top to bottom.

use std::fmt;

/// An 8-bit RGB picture, `[height, width, 3]`.
///
/// Made by [`Image::new`], which checks the length; whoever fills the fields by hand keeps
/// `pixels.len() == width * height * 3` with `width` and `height` at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue of each pixel, row by row.
    pub pixels: Vec<u8>,
}

/// Why bytes are not a picture of the given width and height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageError {
    width: usize,
    height: usize,
    bytes: usize,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, bytes } = self;
        if *width == 0 || *height == 0 {
            return write!(f, "an image of {width}x{height} has no pixels: both sides must be at least 1");
        }
        write!(f, "an RGB image of {width}x{height} needs width * height * 3 bytes, got {bytes}")
    }
}

impl std::error::Error for ImageError {}

impl Image {
    /// A picture from its bytes, `[height, width, 3]`.
    ///
    /// # Errors
    /// If a side is zero, or the number of bytes is not `width * height * 3`.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, ImageError> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if width == 0 || height == 0 || expected != Some(pixels.len()) {
            return Err(ImageError { width, height, bytes: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// A picture of one color. A side of zero is taken as 1.
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let mut pixels = Vec::with_capacity(width * height * 3);
        for _ in 0..width * height {
            pixels.extend_from_slice(&color);
        }
        Self { width, height, pixels }
    }

    /// Red, green, blue at column `x` and row `y`; `None` outside.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y * self.width + x) * 3;
        self.pixels.get(at..at + 3).map(|p| [p[0], p[1], p[2]])
    }

    /// Copies `other` into this picture with its upper left corner at (`x`, `y`); what lies outside is cut off.
    pub fn paste(&mut self, other: &Image, x: usize, y: usize) {
        let columns = other.width.min(self.width.saturating_sub(x));
        let rows = other.height.min(self.height.saturating_sub(y));
        for row in 0..rows {
            let from = row * other.width * 3;
            let to = ((y + row) * self.width + x) * 3;
            self.pixels[to..to + columns * 3].copy_from_slice(&other.pixels[from..from + columns * 3]);
        }
    }
}

/// One picture that shows all of `images`, row by row in `columns` columns, `gap` white pixels around each.
///
/// Every cell has the size of the largest picture, smaller ones sit in its upper left corner. For previews and reports.
/// Without images, or with zero columns, a single white pixel.
pub fn grid(images: &[Image], columns: usize, gap: usize) -> Image {
    const WHITE: [u8; 3] = [255; 3];
    let width = images.iter().map(|i| i.width).max();
    let height = images.iter().map(|i| i.height).max();
    let (Some(width), Some(height), true) = (width, height, columns > 0) else {
        return Image::filled(1, 1, WHITE);
    };
    let columns = columns.min(images.len());
    let rows = images.len().div_ceil(columns);
    let mut sheet = Image::filled(columns * (width + gap) + gap, rows * (height + gap) + gap, WHITE);
    for (i, image) in images.iter().enumerate() {
        sheet.paste(image, gap + i % columns * (width + gap), gap + i / columns * (height + gap));
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_checked() {
        assert!(Image::new(2, 3, vec![0; 18]).is_ok());
        let error = Image::new(2, 3, vec![0; 17]).unwrap_err().to_string();
        assert_eq!(error, "an RGB image of 2x3 needs width * height * 3 bytes, got 17");
        assert!(Image::new(0, 3, vec![]).is_err());
        assert!(Image::new(usize::MAX, 2, vec![]).is_err());
    }

    #[test]
    fn a_grid_shows_every_picture_in_its_cell() {
        let images: Vec<Image> = (1..=5u8).map(|i| Image::filled(4, 2, [i; 3])).collect();
        let sheet = grid(&images, 3, 1);
        assert_eq!((sheet.width, sheet.height), (16, 7));
        for (i, x, y) in [(1, 1, 1), (2, 6, 1), (3, 14, 2), (4, 1, 4), (5, 9, 5)] {
            assert_eq!(sheet.pixel(x, y), Some([i; 3]), "picture {i}");
        }
        assert_eq!(sheet.pixel(0, 0), Some([255; 3]));
        assert_eq!(sheet.pixel(11, 4), Some([255; 3]), "the sixth cell stays white");
        assert_eq!(sheet.pixel(16, 0), None);
        assert_eq!(grid(&[], 3, 1), Image::filled(1, 1, [255; 3]));
    }

    #[test]
    fn pasting_cuts_off_what_lies_outside() {
        let mut sheet = Image::filled(3, 3, [0; 3]);
        sheet.paste(&Image::filled(2, 2, [9; 3]), 2, 2);
        sheet.paste(&Image::filled(2, 2, [7; 3]), 5, 0);
        assert_eq!(sheet.pixels.iter().filter(|&&v| v != 0).count(), 3);
        assert_eq!(sheet.pixel(2, 2), Some([9; 3]));
    }
}
