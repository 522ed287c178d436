//! From a decoded picture to the bytes of a record.

use diptych_augment::{Depth, Interpolation, Picture, PixelFormat, Samples};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use super::PackFormat;
use super::layout::Encoding;

/// The size at which a picture of `width` x `height` is packed, if it is made smaller: the short side as given and the long one in proportion,
/// rounded down as torchvision's `Resize` does. A short side of 0 leaves every size as it is.
pub(crate) fn fitted(width: usize, height: usize, short_side: usize) -> Option<(usize, usize)> {
    let short = width.min(height);
    if short_side == 0 || short <= short_side {
        return None;
    }
    let scaled = |side: usize| if side == short { short_side } else { side * short_side / short };
    Some((scaled(width), scaled(height)))
}

/// Whether pictures of `pixels` can be packed as `format`.
///
/// # Errors
/// What cannot be done and what can, as a sentence.
pub(crate) fn check_format(format: PackFormat, pixels: PixelFormat) -> Result<(), String> {
    let raw = format!("the images have {pixels}: use --format raw");
    match format {
        PackFormat::Jpeg if pixels != PixelFormat::RGB => Err(format!("JPEG holds 3 channels of 8 bits, {raw}")),
        PackFormat::Png if color(pixels).is_none() => Err(format!("PNG holds 1 to 4 channels of 8 or 16 bits, {raw}")),
        _ => Ok(()),
    }
}

/// The pixels of `picture`, made smaller where the short side asks for it.
pub(crate) fn shrink(picture: &Picture, short_side: usize) -> Option<Picture> {
    let (width, height) = fitted(picture.width(), picture.height(), short_side)?;
    Some(picture.resized(width, height, Interpolation::Bilinear))
}

/// The bytes of `picture` as a record of `format`; `quality` from 1 to 100 is for JPEG.
///
/// # Errors
/// What the format cannot hold, as a sentence.
pub(crate) fn encode(picture: &Picture, format: PackFormat, quality: u8) -> Result<(Encoding, Vec<u8>), String> {
    match format {
        PackFormat::Raw => Ok((Encoding::Raw, numbers(picture, u16::to_le_bytes))),
        PackFormat::Jpeg => jpeg(picture, quality).map(|bytes| (Encoding::Jpeg, bytes)),
        PackFormat::Png => png(picture).map(|bytes| (Encoding::Png, bytes)),
    }
}

/// The numbers of a picture one after the other; those of 16 bits as `order` lays them.
fn numbers(picture: &Picture, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    match picture {
        Picture::Rgb(image) => image.pixels.clone(),
        Picture::Raster(raster) => match raster.samples() {
            Samples::U8(values) => values.clone(),
            Samples::U16(values) => values.iter().flat_map(|value| order(*value)).collect(),
            Samples::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        },
    }
}

fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, String> {
    let image = picture.as_rgb().ok_or("JPEG holds 3 channels of 8 bits only")?;
    let (Ok(width), Ok(height)) = (u16::try_from(image.width), u16::try_from(image.height)) else {
        let (width, height) = (image.width, image.height);
        return Err(format!("{width} x {height} pixels are more than the 65,535 a side that JPEG holds"));
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    // Color at half the resolution, as nearly all photographs have it: a third less to read. Averaged, not picked.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.encode(&image.pixels, width, height, ColorType::Rgb).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// What PNG calls a format, where it holds it.
fn color(format: PixelFormat) -> Option<ExtendedColorType> {
    Some(match (format.channels, format.depth) {
        (1, Depth::U8) => ExtendedColorType::L8,
        (2, Depth::U8) => ExtendedColorType::La8,
        (3, Depth::U8) => ExtendedColorType::Rgb8,
        (4, Depth::U8) => ExtendedColorType::Rgba8,
        (1, Depth::U16) => ExtendedColorType::L16,
        (2, Depth::U16) => ExtendedColorType::La16,
        (3, Depth::U16) => ExtendedColorType::Rgb16,
        (4, Depth::U16) => ExtendedColorType::Rgba16,
        _ => return None,
    })
}

fn png(picture: &Picture) -> Result<Vec<u8>, String> {
    let color = color(picture.format()).ok_or("PNG holds 1 to 4 channels of 8 or 16 bits only")?;
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&numbers(picture, u16::to_ne_bytes), picture.width() as u32, picture.height() as u32, color)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use diptych_augment::{Image, Raster};

    use super::*;
    use crate::decode::{Reading, decode};

    #[test]
    fn the_short_side_is_met_and_nothing_is_enlarged() {
        assert_eq!(fitted(500, 375, 256), Some((341, 256)));
        assert_eq!(fitted(375, 500, 256), Some((256, 341)));
        assert_eq!(fitted(300, 300, 256), Some((256, 256)));
        assert_eq!(fitted(4000, 256, 256), None);
        assert_eq!(fitted(4000, 20, 256), None);
        assert_eq!(fitted(4000, 3000, 0), None);
    }

    fn waves(width: usize, height: usize) -> Image {
        let value = |i: usize| {
            let (x, y) = (i / 3 % width, i / 3 / width);
            128.0 + 60.0 * ((x as f64 * 0.11 + (i % 3) as f64).sin() + (y as f64 * 0.07).cos())
        };
        Image::new(width, height, (0..width * height * 3).map(|i| value(i) as u8).collect()).unwrap()
    }

    #[test]
    fn jpeg_is_near_and_smaller_at_a_lower_quality() {
        for (width, height) in [(64, 48), (1, 1), (17, 33), (341, 256)] {
            let image = waves(width, height);
            let (encoding, bytes) = encode(&image.clone().into(), PackFormat::Jpeg, 95).unwrap();
            let smaller = encode(&image.clone().into(), PackFormat::Jpeg, 50).unwrap().1;
            assert_eq!(encoding, Encoding::Jpeg);
            assert!(smaller.len() <= bytes.len());
            let back = decode("x", &bytes, Reading::Rgb).unwrap();
            let back = back.as_rgb().unwrap();
            let far =
                back.pixels.iter().zip(&image.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>();
            let psnr = 10.0 * (255f64.powi(2) * image.pixels.len() as f64 / far.max(1e-9)).log10();
            assert!(psnr > 40.0, "{width}x{height}: {psnr}");
        }
    }

    #[test]
    fn png_holds_what_it_says() {
        for channels in 1..=4 {
            let wide: Vec<u16> = (0..7 * 5 * channels).map(|i| (i * 257 + i) as u16).collect();
            let narrow = wide.iter().map(|v| (v >> 4) as u8).collect();
            for samples in [Samples::U16(wide), Samples::U8(narrow)] {
                let picture = Picture::from(Raster::new(7, 5, channels, samples).unwrap());
                let (_, bytes) = encode(&picture, PackFormat::Png, 0).unwrap();
                assert_eq!(decode("x", &bytes, Reading::Channels(channels)).unwrap(), picture);
            }
        }
        let real = Picture::from(Raster::new(1, 1, 1, Samples::F32(vec![0.5])).unwrap());
        assert!(encode(&real, PackFormat::Png, 0).is_err() && encode(&real, PackFormat::Jpeg, 90).is_err());
    }

    #[test]
    fn what_a_format_cannot_hold_is_said() {
        let deep = PixelFormat { channels: 5, depth: Depth::U16 };
        assert_eq!(
            check_format(PackFormat::Jpeg, deep).unwrap_err(),
            "JPEG holds 3 channels of 8 bits, the images have 5 channels of 16 bits: use --format raw"
        );
        assert!(check_format(PackFormat::Png, deep).is_err());
        assert!(check_format(PackFormat::Raw, deep).is_ok());
        assert!(check_format(PackFormat::Png, PixelFormat { channels: 4, depth: Depth::U16 }).is_ok());
        assert!(check_format(PackFormat::Jpeg, PixelFormat::RGB).is_ok());
    }
}
