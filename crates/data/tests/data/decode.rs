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
