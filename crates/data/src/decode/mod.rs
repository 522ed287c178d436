//! From the bytes of a file to an 8-bit RGB picture, whatever the file claims to be.
//!
//! The format is told by the content, not by the name. Dimensions are read from the header and refused before anything
//! of their size is allocated. Conversions follow torchvision's `convert("RGB")` where that is sound:
//!
//! | in the file | becomes |
//! | --- | --- |
//! | gray | three equal channels |
//! | alpha | dropped: the color below transparent pixels stays as stored, nothing is composited |
//! | 16 bits | `round(x / 257)`, where Pillow would cut gray off at 255 |
//! | palette, CMYK and YCCK JPEG | RGB without color management |
//! | EXIF orientation | applied |
//! | GIF, animated WebP and PNG, pages of TIFF | the first picture |
//!
//! A JPEG that ends before its end marker is an error: decoders would fill the missing part with gray. So is, without the feature `turbo`, one
//! whose subsampled colors lie in scans of their own, which the decoder in use gets wrong.
//!
//! JPEGs are decoded by zune-jpeg, or with the feature `turbo` by libjpeg-turbo: 1.3 to 1.4 times as fast, pixels a few steps apart where
//! colors change sharply.

mod jpeg;
#[cfg(feature = "turbo")]
mod turbo;

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use diptych_augment::{Image, Picture};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

pub(crate) use jpeg::upright_jpeg;

use crate::list::{display, path_bytes};
use crate::{DataError, stored};

/// The most pixels a picture may have: 2^27, about 11,500 x 11,500.
pub const MAX_PIXELS: u64 = 1 << 27;
/// The most bytes a decoder may allocate for one picture.
pub(crate) const MAX_ALLOC: u64 = 1 << 30;
/// The most bytes a file may have.
const MAX_FILE: u64 = 1 << 29;

/// As what an image file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// 8-bit RGB, whatever the file holds: see the table of this module.
    #[default]
    Rgb,
    /// As it is stored, which must be this many channels: 8 or 16 bits or f32, alpha a channel like any other, the pages of a TIFF channels where each
    /// has one.
    Channels(usize),
}

/// Decodes the bytes of an image file; `name` is for the error.
///
/// # Errors
/// [`DataError::Decode`] with the reason, if these bytes are not a whole picture of a format that we read, it has more
/// than [`MAX_PIXELS`] pixels, or another number of channels than is asked for.
pub fn decode(name: &str, bytes: &[u8], reading: Reading) -> Result<Picture, DataError> {
    // Decoders are fuzzed, yet a panic in one must not end a run of days.
    catch_unwind(AssertUnwindSafe(|| decode_any(bytes, reading)))
        .unwrap_or_else(|_| Err("the decoder panicked on it".into()))
        .map_err(|reason| if reading == Reading::Rgb { stored::hint(bytes).unwrap_or(reason) } else { reason })
        .map_err(|reason| DataError::Decode { name: name.to_owned(), reason: one_line(&reason) })
}

/// What a decoder complains of, without its line breaks.
fn one_line(reason: &str) -> String {
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads and decodes an image file; `name` is for the error, the path without its folder where `None`.
///
/// # Errors
/// As [`decode`]; a file that cannot be read is an image that cannot be decoded.
pub fn decode_file(path: &Path, name: Option<&str>, reading: Reading) -> Result<Picture, DataError> {
    let shown =
        || name.map_or_else(|| display(&path_bytes(path.file_name().unwrap_or_default().as_ref())), str::to_owned);
    match read(path) {
        Ok(bytes) => decode(&shown(), &bytes, reading),
        Err(reason) => Err(DataError::Decode { name: shown(), reason }),
    }
}

/// The file's bytes, never more than [`MAX_FILE`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    let mut bytes = Vec::with_capacity(size.min(MAX_FILE) as usize + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 {
        0 => Err("the file is empty (0 bytes)".into()),
        n if n > MAX_FILE => Err(format!("the file is larger than {} MiB", MAX_FILE >> 20)),
        _ => Ok(bytes),
    }
}

/// What a decoder may use.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOC);
    limits
}

pub(crate) fn check_pixels(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Err(format!("its header says {width} x {height} pixels, more than the {MAX_PIXELS} that are read"));
    }
    Ok(())
}

fn decode_any(bytes: &[u8], reading: Reading) -> Result<Picture, String> {
    let format = image::guess_format(bytes)
        .map_err(|_| "it is no JPEG, PNG, WebP, BMP, TIFF or GIF file, whatever its name says".to_owned())?;
    let jpeg = if format == ImageFormat::Jpeg { Some(jpeg::inspect(bytes)?) } else { None };
    if let Reading::Channels(channels) = reading {
        return stored::decode(bytes, format, channels);
    }
    #[cfg(feature = "turbo")]
    if let Some(jpeg) = &jpeg
        && let Some(image) = turbo::decode(bytes, jpeg.orientation)?
    {
        return Ok(image.into());
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height)?;
    let orientation = match jpeg {
        // It was found on the way; asking the decoder would have it read the headers again.
        Some(jpeg) => jpeg.orientation,
        None => decoder.orientation().unwrap_or(Orientation::NoTransforms),
    };
    let picture = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    turned(picture, orientation).map(Picture::from)
}

/// The 8-bit RGB pixels of a picture that is to be shown turned.
fn turned(mut picture: DynamicImage, orientation: Orientation) -> Result<Image, String> {
    picture.apply_orientation(orientation);
    let picture = picture.into_rgb8();
    let (width, height) = picture.dimensions();
    Image::new(width as usize, height as usize, picture.into_raw()).map_err(|error| error.to_string())
}
