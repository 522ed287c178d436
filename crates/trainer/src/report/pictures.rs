//! Pictures as data URIs, small enough that the page stays below its limit whatever it is given.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use super::html::escape;
use super::model::Picture;

/// How large and how good pictures are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    /// The longest side in pixels.
    pub(super) side: u32,
    /// JPEG quality, 1 to 100.
    pub(super) jpeg: u8,
}

/// From the best down; the last one fits any budget, given the counts that the galleries allow.
pub(super) const QUALITIES: [Quality; 5] = [
    Quality { side: 160, jpeg: 88 },
    Quality { side: 112, jpeg: 85 },
    Quality { side: 80, jpeg: 80 },
    Quality { side: 56, jpeg: 75 },
    Quality { side: 32, jpeg: 60 },
];

/// An `<img>` with its data, or a sign that the picture is missing. `alt` is plain text.
pub(super) fn img(picture: &Picture, alt: &str, quality: Quality) -> String {
    match data_uri(picture, quality) {
        // Small pictures are shown as the pixels they are: blurred by the browser they look broken.
        Some((uri, width)) => {
            let class = if width <= 64 { " class=\"px\"" } else { "" };
            format!("<img{class} src=\"{uri}\" alt=\"{}\">", escape(alt))
        }
        None => format!("<span class=\"none\" role=\"img\" aria-label=\"{} (missing)\">missing</span>", escape(alt)),
    }
}

/// The picture as a data URI and its width there.
fn data_uri(picture: &Picture, quality: Quality) -> Option<(String, u32)> {
    let small = shrink(picture, quality.side)?;
    let (width, height) = small.dimensions();
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, quality.jpeg);
    encoder.write_image(small.as_raw(), width, height, ExtendedColorType::Rgb8).ok()?;
    let (mut kind, mut bytes) = ("jpeg", jpeg);
    // A small drawn picture is often smaller as PNG, a large photograph never is.
    if width * height <= 96 * 96 {
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(small.as_raw(), width, height, ExtendedColorType::Rgb8).ok()?;
        if png.len() <= bytes.len() {
            (kind, bytes) = ("png", png);
        }
    }
    Some((format!("data:image/{kind};base64,{}", base64(&bytes)), width))
}

/// Thumbnails of one size in one picture.
pub(super) struct Sheet {
    /// The picture as a data URI.
    pub(super) uri: String,
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Whether the thumbnails should be shown as the pixels they are.
    pub(super) small: bool,
}

/// Bytes of a sheet's data URI.
const SHEET: usize = 1_200_000;

/// The pictures as squares, from the left and from the top, as large and as good as fits the budget; `None` where there is none.
pub(super) fn sheet(pictures: &[&Picture]) -> Option<Sheet> {
    let small = pictures.iter().all(|picture| picture.width.max(picture.height) <= 32);
    let columns = (1..=pictures.len()).find(|n| n * n >= pictures.len())?;
    let rows = pictures.len().div_ceil(columns);
    // Sides of whole blocks of JPEG, so that no thumbnail colors its neighbor.
    let qualities: &[(u32, u8)] = if small { &[(32, 92), (32, 60)] } else { &[(64, 80), (48, 75), (32, 60)] };
    let mut uri = String::new();
    for &(side, quality) in qualities {
        let mut all = RgbImage::from_pixel(columns as u32 * side, rows as u32 * side, image::Rgb([128; 3]));
        for (i, picture) in pictures.iter().enumerate() {
            let Some(tile) = square(picture, side) else { continue };
            let at = |place: usize| place as i64 * i64::from(side);
            image::imageops::replace(&mut all, &tile, at(i % columns), at(i / columns));
        }
        let mut jpeg = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut jpeg, quality);
        encoder.write_image(all.as_raw(), all.width(), all.height(), ExtendedColorType::Rgb8).ok()?;
        uri = format!("data:image/jpeg;base64,{}", base64(&jpeg));
        if uri.len() <= SHEET {
            break;
        }
    }
    Some(Sheet { uri, columns, rows, small })
}

/// The middle of the picture, `side` x `side`.
fn square(picture: &Picture, side: u32) -> Option<RgbImage> {
    if !picture.is_valid() {
        return None;
    }
    let (width, height) = (u32::try_from(picture.width).ok()?, u32::try_from(picture.height).ok()?);
    let image = RgbImage::from_raw(width, height, picture.rgb.clone())?;
    let short = width.min(height);
    let middle = image::imageops::crop_imm(&image, (width - short) / 2, (height - short) / 2, short, short).to_image();
    Some(match short == side {
        true => middle,
        false => resize(&middle, side, side, FilterType::CatmullRom),
    })
}

/// The picture with no side longer than `side`.
fn shrink(picture: &Picture, side: u32) -> Option<RgbImage> {
    if !picture.is_valid() {
        return None;
    }
    let (width, height) = (u32::try_from(picture.width).ok()?, u32::try_from(picture.height).ok()?);
    let image = RgbImage::from_raw(width, height, picture.rgb.clone())?;
    let longest = width.max(height);
    if longest <= side {
        return Some(image);
    }
    let scaled = |length: u32| ((u64::from(length) * u64::from(side) / u64::from(longest)) as u32).max(1);
    Some(resize(&image, scaled(width), scaled(height), FilterType::CatmullRom))
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10, and bytes that need the last two digits.
    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases: [(&[u8], &str); 8] = [
            (b"", ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff, 0xbf], "+/+/"),
        ];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn large_pictures_shrink_and_keep_their_shape() {
        let sizes = |w: usize, h: usize, side| {
            let picture = Picture::new(w, h, vec![99; w * h * 3]);
            shrink(&picture, side).map(|image| (image.dimensions(), image.into_raw().iter().all(|v| *v == 99)))
        };
        assert_eq!(sizes(400, 200, 100), Some(((100, 50), true)));
        assert_eq!(sizes(30, 20, 100), Some(((30, 20), true)));
        assert_eq!(sizes(1, 5000, 100), Some(((1, 100), true)));
        assert_eq!(sizes(0, 10, 100), None);
    }

    /// Three thumbnails lie in two columns and two rows, each in its own square; one that is missing is gray.
    #[test]
    fn a_sheet_holds_each_picture_in_its_square() {
        let [red, wide] =
            [Picture::new(20, 20, [250, 0, 0].repeat(400)), Picture::new(90, 30, [0, 0, 250].repeat(2700))];
        let made = sheet(&[&red, &Picture::default(), &wide]).unwrap();
        assert_eq!((made.columns, made.rows, made.small), (2, 2, false));
        assert!(made.uri.starts_with("data:image/jpeg;base64,"));
        assert!(sheet(&[]).is_none());
        let tile = square(&wide, 64).unwrap();
        assert!(tile.dimensions() == (64, 64) && tile.pixels().all(|pixel| pixel.0 == [0, 0, 250]));
    }

    #[test]
    fn a_picture_of_the_wrong_length_is_missing_not_fatal() {
        let html = img(&Picture::new(4, 4, vec![0; 7]), "a \"cat\"", QUALITIES[0]);
        assert_eq!(html, "<span class=\"none\" role=\"img\" aria-label=\"a &quot;cat&quot; (missing)\">missing</span>");
        assert!(!Picture::new(usize::MAX, 3, vec![1]).is_valid());
    }
}
