//! A sheet of pictures in rows, with a label above each picture and a title before each row.

use diptych::augment::Image;

use super::font;

/// Dots of the letters, in pixels.
const SCALE: usize = 2;
/// White around everything, in pixels.
const GAP: usize = 6;
/// Pictures are enlarged, by a whole number, until they are as wide as this: room for a label.
const LEAST_WIDTH: usize = 96;

const WHITE: [u8; 3] = [255; 3];
const BLACK: [u8; 3] = [20; 3];
const GRAY: [u8; 3] = [165; 3];

/// A picture with its label.
#[derive(Clone)]
pub(crate) struct Tile {
    pub(crate) label: String,
    /// A label that is not strong is printed in gray.
    pub(crate) strong: bool,
    pub(crate) image: Image,
}

/// A row of pictures.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) tiles: Vec<Tile>,
}

/// All rows below one another, under `heading`, above `footing`; every tile has the room of the largest picture.
pub(crate) fn sheet(heading: &str, rows: &[Row], footing: &str) -> Image {
    let tiles = || rows.iter().flat_map(|row| &row.tiles);
    let largest = |side: fn(&Image) -> usize| tiles().map(|tile| side(&tile.image)).max().unwrap_or(1);
    let (width, height) = (largest(|i| i.width), largest(|i| i.height));
    let zoom = LEAST_WIDTH.div_ceil(width).max(1);
    let (width, height) = (width * zoom, height * zoom);
    let text = font::height(SCALE);
    let before = rows.iter().map(|row| font::width(&row.title, SCALE)).max().unwrap_or(0) + 2 * GAP;
    let columns = rows.iter().map(|row| row.tiles.len()).max().unwrap_or(0);
    let row_height = text + GAP / 2 + height + 2 * GAP;
    let words = font::width(heading, SCALE).max(font::width(footing, SCALE)) + 2 * GAP;
    let mut sheet = Image::filled(
        (before + columns * (width + GAP) + GAP).max(words),
        4 * GAP + 2 * text + rows.len() * row_height,
        WHITE,
    );
    font::write(&mut sheet, heading, GAP, GAP, SCALE, BLACK);
    for (r, row) in rows.iter().enumerate() {
        let top = 3 * GAP + text + r * row_height;
        let middle = top + text + GAP / 2 + height.saturating_sub(text) / 2;
        font::write(&mut sheet, &row.title, GAP, middle, SCALE, BLACK);
        for (c, tile) in row.tiles.iter().enumerate() {
            let left = before + c * (width + GAP);
            let ink = if tile.strong { BLACK } else { GRAY };
            font::write(&mut sheet, &tile.label, left, top, SCALE, ink);
            sheet.paste(&enlarged(&tile.image, zoom), left, top + text + GAP / 2);
        }
    }
    let bottom = 3 * GAP + text + rows.len() * row_height;
    font::write(&mut sheet, footing, GAP, bottom, SCALE, GRAY);
    sheet
}

/// Every pixel as a square of `zoom` pixels: what the network sees stays countable.
fn enlarged(image: &Image, zoom: usize) -> Image {
    let width = image.width * zoom;
    let mut out = Image::filled(width, image.height * zoom, WHITE);
    for (y, row) in out.pixels.chunks_exact_mut(width * 3).enumerate() {
        let from = &image.pixels[y / zoom * image.width * 3..][..image.width * 3];
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&from[x / zoom * 3..][..3]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(color: u8) -> Tile {
        Tile { label: format!("{color}"), strong: color < 100, image: Image::filled(40, 30, [color, 0, 0]) }
    }

    #[test]
    fn every_picture_is_on_the_sheet_enlarged() {
        let rows = [
            Row { title: "first".into(), tiles: vec![tile(1), tile(2), tile(200)] },
            Row { title: "x".into(), tiles: vec![tile(3)] },
        ];
        let sheet = sheet("a heading", &rows, "a footing");
        let count = |color: [u8; 3]| sheet.pixels.as_chunks::<3>().0.iter().filter(|&&p| p == color).count();
        for color in [1, 2, 200, 3] {
            assert_eq!(count([color, 0, 0]), 120 * 90, "picture {color}, three times as large");
        }
        assert!(count(BLACK) > 100 && count(GRAY) > 100);
    }

    #[test]
    fn nothing_is_a_sheet_too() {
        let sheet = sheet("none", &[], "");
        assert!(sheet.width > 40 && sheet.height > 14);
    }
}
