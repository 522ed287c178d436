//! Files of every kind, whole and broken. The truth is what Pillow reads: tests/files/make_files.py.

use std::path::PathBuf;

use diptych_data::{DataError, Reading, decode, decode_file};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

/// Decodes `name` and compares with the bytes beside it, which may differ by `tolerance` at most and an eighth of it on
/// average: JPEG decoders round in ways of their own.
fn check(name: &str, width: usize, height: usize, tolerance: u8) {
    let image = decode_file(&file(name), None, Reading::Rgb).unwrap().to_rgb();
    let expected = std::fs::read(file(&format!("{name}.rgb"))).unwrap();
    assert_eq!((image.width, image.height, image.pixels.len()), (width, height, expected.len()), "{name}");
    let differences: Vec<u8> = image.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
    let (worst, total) = (*differences.iter().max().unwrap(), differences.iter().map(|&d| f64::from(d)).sum::<f64>());
    let mean = total / differences.len() as f64;
    assert!(worst <= tolerance && mean <= f64::from(tolerance) / 8.0, "{name}: differs by {worst}, on average {mean}");
}

#[test]
fn lossless_files_equal_pillow() {
    let names = [
        "rgb.png",
        "gray.png",
        "palette.png",
        "one_bit.png",
        "lossless.webp",
        "rgb.bmp",
        "rgb.tiff",
        "lzw.tif",
        "animated.gif",
    ];
    names.iter().for_each(|name| check(name, 20, 14, 0));
    check("one_pixel.png", 1, 1, 0);
}

#[test]
fn alpha_is_dropped() {
    ["alpha.png", "gray_alpha.png", "alpha.webp"].iter().for_each(|name| check(name, 20, 14, 0));
}

#[test]
fn sixteen_bits_are_scaled() {
    ["gray16.png", "gray16.tif"].iter().for_each(|name| check(name, 20, 14, 0));
}

#[test]
fn jpegs_equal_pillow_nearly() {
    ["rgb.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg"].iter().for_each(|name| check(name, 20, 14, 8));
}

#[test]
fn exif_orientation_is_applied() {
    check("orientation_3.jpg", 20, 14, 8);
    check("orientation_6.jpg", 14, 20, 8);
    check("orientation_8.jpg", 14, 20, 8);
}

/// The reason why `bytes` are refused.
fn refusal(bytes: &[u8]) -> String {
    match decode("x.png", bytes, Reading::Rgb) {
        Err(DataError::Decode { name, reason }) if name == "x.png" => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn every_cut_of_a_jpeg_is_refused() {
    for name in ["rgb.jpg", "progressive.jpg", "cmyk.jpg", "orientation_6.jpg"] {
        let bytes = std::fs::read(file(name)).unwrap();
        (0..bytes.len()).for_each(|end| drop(refusal(&bytes[..end])));
    }
    let bytes = std::fs::read(file("rgb.jpg")).unwrap();
    assert_eq!(refusal(&bytes[..bytes.len() - 60]), "the JPEG data ends before the picture does (truncated file)");
}

/// A camera's preview holds an end marker of its own, which must not be taken for the picture's.
#[test]
fn a_cut_jpeg_with_a_whole_thumbnail_is_refused() {
    let jpeg = std::fs::read(file("rgb.jpg")).unwrap();
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1];
    bytes.extend((jpeg.len() as u16 + 2).to_be_bytes());
    bytes.extend(&jpeg);
    bytes.extend(&jpeg[2..]);
    assert_eq!(decode("x", &bytes, Reading::Rgb).unwrap(), decode("x", &jpeg, Reading::Rgb).unwrap());
    assert!(refusal(&bytes[..bytes.len() - 60]).contains("truncated"));
}

#[test]
fn bytes_after_the_picture_do_no_harm() {
    let mut bytes = std::fs::read(file("rgb.jpg")).unwrap();
    let image = decode("x", &bytes, Reading::Rgb).unwrap();
    bytes.extend(b"a note from the camera");
    assert_eq!(decode("x", &bytes, Reading::Rgb).unwrap(), image);
}

#[test]
fn cut_files_of_the_other_formats_are_refused() {
    for name in ["rgb.png", "lossless.webp", "rgb.bmp", "rgb.tiff", "lzw.tif", "animated.gif", "palette.png"] {
        let bytes = std::fs::read(file(name)).unwrap();
        // The second half of the animation is its second frame.
        refusal(&bytes[..if name == "animated.gif" { bytes.len() / 3 } else { bytes.len() / 2 }]);
    }
}

#[test]
fn what_is_no_image_is_refused() {
    assert_eq!(refusal(b"These are words."), "it is no JPEG, PNG, WebP, BMP, TIFF or GIF file, whatever its name says");
    refusal(b"");
    refusal(&[0; 4096]);
    refusal(b"\x89PNG\r\n\x1a\n");
    refusal(b"\xff\xd8\xff\xd9");
    refusal(b"GIF89a");
    refusal(b"BM");
}

/// A file of 100 bytes that claims 60,000 x 60,000 pixels is refused by its header, before 10 GB are asked for.
#[test]
fn absurd_dimensions_are_refused_by_the_header() {
    let png = |width: u32, height: u32| {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut header = b"IHDR".to_vec();
        header.extend(width.to_be_bytes());
        header.extend(height.to_be_bytes());
        header.extend([8, 2, 0, 0, 0]);
        bytes.extend(13u32.to_be_bytes());
        bytes.extend(&header);
        bytes.extend(crc32(&header).to_be_bytes());
        // An empty picture, so that the header is looked at.
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(b"IDAT");
        bytes.extend(crc32(b"IDAT").to_be_bytes());
        bytes
    };
    assert!(refusal(&png(60_000, 60_000)).contains("60000 x 60000"), "{}", refusal(&png(60_000, 60_000)));
    refusal(&png(u32::MAX, u32::MAX));
    refusal(&png(0, 5));

    let mut jpeg = std::fs::read(file("rgb.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert!(refusal(&jpeg).contains("60000 x 60000"), "{}", refusal(&jpeg));

    let mut bmp = std::fs::read(file("rgb.bmp")).unwrap();
    bmp[18..26].copy_from_slice(&[0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0]);
    assert!(refusal(&bmp).contains("60000 x 60000"), "{}", refusal(&bmp));
    let mut gif = std::fs::read(file("animated.gif")).unwrap();
    gif[6..10].copy_from_slice(&[0x60, 0xea, 0x60, 0xea]);
    assert!(refusal(&gif).contains("60000 x 60000"), "{}", refusal(&gif));
    let mut tiff = std::fs::read(file("rgb.tiff")).unwrap();
    for tag in [0, 1] {
        // The entry of ImageWidth or ImageLength: the tag, its type, one value.
        let entry = |at: &[u8]| at[..2] == [tag, 1] && at[3..8] == [0, 1, 0, 0, 0];
        let at = tiff.windows(8).position(entry).unwrap();
        tiff[at + 8..at + 10].copy_from_slice(&[0x60, 0xea]);
    }
    // Its strips do not fit the dimensions, which is found out first.
    assert!(refusal(&tiff).contains("inconsistent sizes"), "{}", refusal(&tiff));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Random damage gives a picture or a refusal, never a panic out of the function.
#[test]
fn damaged_files_do_not_panic() {
    let mut stream = diptych_random::Stream::keyed(1, &[]);
    let mut refused = 0;
    for name in ["rgb.jpg", "progressive.jpg", "rgb.png", "lossless.webp", "rgb.bmp", "lzw.tif", "animated.gif"] {
        let whole = std::fs::read(file(name)).unwrap();
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..=stream.below(8) {
                let at = stream.below(bytes.len() as u64) as usize;
                bytes[at] = stream.next_u64() as u8;
            }
            refused += usize::from(decode("damaged", &bytes, Reading::Rgb).is_err());
        }
    }
    assert!((50..410).contains(&refused), "{refused} of 420 refused");
}

#[test]
fn a_file_that_is_not_there_is_an_image_that_cannot_be_decoded() {
    let error = decode_file(&file("nowhere.jpg"), Some("a/nowhere.jpg"), Reading::Rgb).unwrap_err();
    assert!(error.is_about_one_image());
    assert!(error.to_string().starts_with("image a/nowhere.jpg: cannot be read: "), "{error}");
}

/// Waves as a JPEG of 4:2:0, with the colors in scans of their own if `apart`; and the pixels.
fn waves(width: usize, height: usize, apart: bool) -> (Vec<u8>, Vec<u8>) {
    let value = |i: usize| {
        let (x, y) = ((i / 3 % width) as f64, (i / 3 / width) as f64);
        128.0 + 60.0 * ((x * 0.11 + (i % 3) as f64).sin() + (y * 0.07).cos())
    };
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| value(i) as u8).collect();
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    // Its way to measure the tables is to write one component after the other.
    encoder.set_optimized_huffman_tables(apart);
    encoder.encode(&pixels, width as u16, height as u16, jpeg_encoder::ColorType::Rgb).unwrap();
    (bytes, pixels)
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// A decoder that reads such a file wrongly says nothing; so it must be refused, or read rightly.
#[test]
fn subsampled_colors_in_scans_of_their_own_never_become_noise() {
    let (together, pixels) = waves(64, 48, false);
    let near = |bytes: &[u8]| mean_difference(&decode("x", bytes, Reading::Rgb).unwrap().to_rgb().pixels, &pixels);
    assert!(near(&together) < 3.0, "{}", near(&together));
    let (apart, _) = waves(64, 48, true);
    if cfg!(feature = "turbo") {
        assert!(near(&apart) < 3.0, "{}", near(&apart));
    } else {
        assert!(refusal(&apart).contains("its colors lie in scans of their own"), "{}", refusal(&apart));
    }
}

/// Whatever decodes JPEG in this build, the pixels are nearly those of zune-jpeg: the same transform, colors smoothed a little differently.
#[test]
fn jpeg_decoders_agree() {
    for (width, height) in [(500, 375), (33, 17), (8, 1), (1, 1)] {
        let (bytes, _) = waves(width, height, false);
        let ours = decode("x", &bytes, Reading::Rgb).unwrap().to_rgb().pixels;
        let other = image::load_from_memory(&bytes).unwrap().into_rgb8().into_raw();
        let worst = ours.iter().zip(&other).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(
            worst <= 8 && mean_difference(&ours, &other) < 0.6,
            "{width}x{height}: {worst}, {}",
            mean_difference(&ours, &other)
        );
        assert!(cfg!(feature = "turbo") || worst == 0);
    }
}

/// Files with any bytes in the place of some of theirs, cut anywhere, read both ways: a picture of a size within bounds, or a sentence.
#[test]
fn no_bytes_make_decoding_panic() {
    let names = [
        "rgb.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "orientation_6.jpg",
        "gray16.png",
        "alpha.webp",
        "lzw.tif",
        "animated.gif",
        "rgb.bmp",
    ];
    let files: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(file(name)).unwrap()).collect();
    bolero::check!().with_iterations(1500).with_type::<(u8, Vec<(u16, u8)>, u16, u8)>().for_each(
        |(which, edits, cut, reading)| {
            let mut bytes = files[usize::from(*which) % files.len()].clone();
            let len = bytes.len();
            edits.iter().for_each(|(at, value)| bytes[usize::from(*at) % len] = *value);
            if cut % 4 == 0 {
                bytes.truncate(usize::from(*cut) % len);
            }
            let reading = if *reading < 128 { Reading::Rgb } else { Reading::Channels(usize::from(reading % 5)) };
            match decode("damaged", &bytes, reading) {
                Ok(picture) => {
                    let pixels = (picture.width() * picture.height()) as u64;
                    assert!((1..=diptych_data::MAX_PIXELS).contains(&pixels) && picture.bytes() > 0);
                }
                Err(error) => assert!(error.is_about_one_image() && !error.to_string().contains('\n'), "{error}"),
            }
        },
    );
}
