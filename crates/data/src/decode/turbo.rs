//! JPEG by libjpeg-turbo, with the feature `turbo`.

use std::cell::RefCell;

use diptych_augment::Image;
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use turbojpeg::{Decompressor, PixelFormat};

use super::{check_pixels, turned};

thread_local! {
    /// One per thread: it keeps its tables from picture to picture.
    static DECODER: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// The picture in these bytes; `None` where libjpeg-turbo has something to say against it, or cannot make RGB of it (CMYK): the other decoder
/// then has the last word, so that both builds read the same files.
///
/// # Errors
/// If it has more pixels than are read.
pub(super) fn decode(bytes: &[u8], orientation: Orientation) -> Result<Option<Image>, String> {
    DECODER.with_borrow_mut(|decoder| {
        if decoder.is_none() {
            *decoder = Decompressor::new().ok();
        }
        let Some(decoder) = decoder else { return Ok(None) };
        let Ok(header) = decoder.read_header(bytes) else { return Ok(None) };
        let (Ok(width), Ok(height)) = (u32::try_from(header.width), u32::try_from(header.height)) else {
            return Ok(None);
        };
        check_pixels(width, height)?;
        let mut pixels = vec![0; header.width * header.height * 3];
        let view = turbojpeg::Image {
            pixels: &mut pixels[..],
            width: header.width,
            pitch: header.width * 3,
            height: header.height,
            format: PixelFormat::RGB,
        };
        if decoder.decompress(bytes, view).is_err() {
            return Ok(None);
        }
        if orientation == Orientation::NoTransforms {
            return Image::new(header.width, header.height, pixels).map(Some).map_err(|error| error.to_string());
        }
        let picture = RgbImage::from_raw(width, height, pixels).ok_or("its size does not fit its pixels")?;
        turned(DynamicImage::ImageRgb8(picture), orientation).map(Some)
    })
}
