//! Image files with the channels and the depth that they store: 16-bit PNG, gray pictures, TIFFs of many bands or pages.

use std::io::Cursor;

use diptych_augment::{Depth, MAX_CHANNELS, Picture, PixelFormat, Raster, Samples};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::PlanarConfiguration;

use crate::decode::{MAX_ALLOC, check_pixels, limits};

/// A picture of `channels` channels as its file stores it.
pub(crate) fn decode(bytes: &[u8], format: ImageFormat, channels: usize) -> Result<Picture, String> {
    let raster = if format == ImageFormat::Tiff { of_tiff(bytes)? } else { of_other(bytes, format)? };
    if !raster.is_finite() {
        return Err("it holds numbers that are infinite or not a number".into());
    }
    let found = raster.format().channels;
    if found != channels {
        return Err(format!("it has {}, data.channels says {channels}", counted(found)));
    }
    Ok(raster.into())
}

fn counted(channels: usize) -> String {
    format!("{channels} channel{}", if channels == 1 { "" } else { "s" })
}

/// PNG, JPEG and the others: gray, gray and alpha, RGB or RGBA.
fn of_other(bytes: &[u8], format: ImageFormat) -> Result<Raster, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let channels = usize::from(picture.color().channel_count());
    let samples = match picture {
        DynamicImage::ImageLuma8(image) => Samples::U8(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => Samples::U8(image.into_raw()),
        DynamicImage::ImageRgb8(image) => Samples::U8(image.into_raw()),
        DynamicImage::ImageRgba8(image) => Samples::U8(image.into_raw()),
        DynamicImage::ImageLuma16(image) => Samples::U16(image.into_raw()),
        DynamicImage::ImageLumaA16(image) => Samples::U16(image.into_raw()),
        DynamicImage::ImageRgb16(image) => Samples::U16(image.into_raw()),
        DynamicImage::ImageRgba16(image) => Samples::U16(image.into_raw()),
        DynamicImage::ImageRgb32F(image) => Samples::F32(image.into_raw()),
        DynamicImage::ImageRgba32F(image) => Samples::F32(image.into_raw()),
        other => return Err(format!("pixels of the kind {:?} cannot be read as channels", other.color())),
    };
    Raster::new(width, height, channels, samples).map_err(|error| error.to_string())
}

/// A TIFF: the bands of its one page, or one channel from each of its pages, as microscopes write them.
fn of_tiff(bytes: &[u8]) -> Result<Raster, String> {
    let sentence = |error: tiff::TiffError| error.to_string();
    let mut bounds = Limits::default();
    bounds.decoding_buffer_size = MAX_ALLOC as usize;
    bounds.intermediate_buffer_size = MAX_ALLOC as usize;
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(sentence)?.with_limits(bounds);
    let first = page(&mut decoder)?;
    if !decoder.more_images() || first.format().channels > 1 {
        return Ok(first);
    }
    let (width, height, format) = (first.width(), first.height(), first.format());
    let mut pages = vec![first];
    while decoder.more_images() {
        if pages.len() == MAX_CHANNELS {
            return Err(format!(
                "it has more than {MAX_CHANNELS} pages: stacks of that many are not read as one picture"
            ));
        }
        decoder.next_image().map_err(sentence)?;
        let next = page(&mut decoder)?;
        if (next.width(), next.height(), next.format()) != (width, height, format) {
            return Err(format!(
                "its page {} is {}x{} with {}, the first {width}x{height} with {format}: pages that are channels must be alike",
                pages.len() + 1,
                next.width(),
                next.height(),
                next.format(),
            ));
        }
        pages.push(next);
    }
    let planes: Vec<Samples> = pages.into_iter().map(Raster::into_samples).collect();
    interleaved(width, height, &planes)
}

/// The page that the decoder is at.
fn page(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Raster, String> {
    let sentence = |error: tiff::TiffError| error.to_string();
    let (width, height) = decoder.dimensions().map_err(sentence)?;
    check_pixels(width, height)?;
    let color = decoder.colortype().map_err(sentence)?;
    let channels = usize::from(color.num_samples());
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(format!("it has {channels} channels: 1 to {MAX_CHANNELS} are read"));
    }
    if matches!(color, tiff::ColorType::Palette(_)) {
        return Err("its pixels are indices into a palette: save it as gray or RGB".into());
    }
    let (width, height) = (width as usize, height as usize);
    let planar = decoder.find_tag_unsigned::<u16>(tiff::tags::Tag::PlanarConfiguration).map_err(sentence)?;
    let planes = planar == Some(PlanarConfiguration::Planar.to_u16());
    let mut read = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut read).map_err(sentence)?;
    let mut samples = match read {
        DecodingResult::U8(values) => Samples::U8(values),
        DecodingResult::U16(values) => Samples::U16(values),
        DecodingResult::F32(values) => Samples::F32(values),
        DecodingResult::F16(values) => Samples::F32(values.iter().map(|value| value.to_f32()).collect()),
        DecodingResult::F64(values) => Samples::F32(values.iter().map(|value| *value as f32).collect()),
        DecodingResult::I8(values) => Samples::F32(values.iter().map(|value| f32::from(*value)).collect()),
        DecodingResult::I16(values) => Samples::F32(values.iter().map(|value| f32::from(*value)).collect()),
        DecodingResult::U32(values) => Samples::F32(values.iter().map(|value| *value as f32).collect()),
        DecodingResult::I32(values) => Samples::F32(values.iter().map(|value| *value as f32).collect()),
        DecodingResult::U64(_) | DecodingResult::I64(_) => return Err("its 64-bit integers are not read".into()),
    };
    let size = width * height;
    if planes && channels > 1 {
        let planes = split(&samples, size);
        if planes.len() != channels || planes.iter().any(|plane| plane.len() != size) {
            return Err(format!("its {channels} planes of {width}x{height} are not all there"));
        }
        return interleaved(width, height, &planes);
    }
    truncate(&mut samples, size * channels);
    Raster::new(width, height, channels, samples).map_err(|error| error.to_string())
}

fn truncate(samples: &mut Samples, len: usize) {
    match samples {
        Samples::U8(values) => values.truncate(len),
        Samples::U16(values) => values.truncate(len),
        Samples::F32(values) => values.truncate(len),
    }
}

/// Parts of `size` numbers each.
fn split(samples: &Samples, size: usize) -> Vec<Samples> {
    match samples {
        Samples::U8(values) => values.chunks(size).map(|part| Samples::U8(part.to_vec())).collect(),
        Samples::U16(values) => values.chunks(size).map(|part| Samples::U16(part.to_vec())).collect(),
        Samples::F32(values) => values.chunks(size).map(|part| Samples::F32(part.to_vec())).collect(),
    }
}

/// Planes of the same depth and size as one picture, channels last.
fn interleaved(width: usize, height: usize, planes: &[Samples]) -> Result<Raster, String> {
    fn woven<T: Copy + Default>(planes: &[&[T]], size: usize) -> Vec<T> {
        let mut out = vec![T::default(); size * planes.len()];
        for (c, plane) in planes.iter().enumerate() {
            out.iter_mut().skip(c).step_by(planes.len()).zip(*plane).for_each(|(to, from)| *to = *from);
        }
        out
    }
    let size = width * height;
    let mixed = || "its channels have different depths".to_owned();
    let samples = match planes.first().map(Samples::depth) {
        None => return Err("it has no channels".into()),
        Some(Depth::U8) => {
            let all = planes.iter().map(|plane| if let Samples::U8(values) = plane { Some(&values[..]) } else { None });
            Samples::U8(woven(&all.collect::<Option<Vec<_>>>().ok_or_else(mixed)?, size))
        }
        Some(Depth::U16) => {
            let all =
                planes.iter().map(|plane| if let Samples::U16(values) = plane { Some(&values[..]) } else { None });
            Samples::U16(woven(&all.collect::<Option<Vec<_>>>().ok_or_else(mixed)?, size))
        }
        Some(Depth::F32) => {
            let all =
                planes.iter().map(|plane| if let Samples::F32(values) = plane { Some(&values[..]) } else { None });
            Samples::F32(woven(&all.collect::<Option<Vec<_>>>().ok_or_else(mixed)?, size))
        }
    };
    Raster::new(width, height, planes.len(), samples).map_err(|error| error.to_string())
}

/// What to do with a TIFF that is no RGB picture; `None` where that is not what is wrong with it.
pub(crate) fn hint(bytes: &[u8]) -> Option<String> {
    if image::guess_format(bytes).ok()? != ImageFormat::Tiff {
        return None;
    }
    let format = std::panic::catch_unwind(|| of_tiff(bytes)).ok()?.ok()?.format();
    Some(format!("it has {format}, which are not RGB: data.channels = {} reads them as they are", format.channels))
}

/// Channels and depth that the header of an image file tells, without the cost of decoding where the format allows it.
pub(crate) fn format_of(bytes: &[u8]) -> Result<PixelFormat, String> {
    let format = image::guess_format(bytes).map_err(|_| "it is no image file that is read here".to_owned())?;
    if format == ImageFormat::Tiff {
        return Ok(of_tiff(bytes)?.format());
    }
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let color = reader.into_decoder().map_err(|error| error.to_string())?.color_type();
    let channels = usize::from(color.channel_count());
    let depth = match color.bytes_per_pixel() as usize / channels.max(1) {
        1 => Depth::U8,
        2 => Depth::U16,
        _ => Depth::F32,
    };
    Ok(PixelFormat { channels, depth })
}
