//! Folders as they are in the world: files that are no images, images of every kind, names that are not UTF-8.

use std::path::Path;

use diptych_tests::Folder;
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};

use crate::{tiny, with};

/// Twenty drawn images in one folder.
fn drawn(folder: &Folder) {
    folder.run(["draw", "--out", "images", "--train-size", "40", "--flat"]).ended_with(0);
}

const DATA: &str = "--data images --set data.train_size=0 --set data.test_size=0 --epochs 1";

fn save(image: impl Into<DynamicImage>, path: &Path, format: ImageFormat) {
    image.into().save_with_format(path, format).unwrap();
}

#[test]
fn every_kind_of_image_is_decoded() {
    let folder = Folder::new();
    drawn(&folder);
    let at = |name: &str| folder.path("images").join(name);
    save(ImageBuffer::from_pixel(40, 30, Luma([9u8])), &at("gray.png"), ImageFormat::Png);
    save(ImageBuffer::from_pixel(40, 30, LumaA([9u8, 0])), &at("gray-alpha.png"), ImageFormat::Png);
    save(ImageBuffer::from_pixel(40, 30, Rgba([9u8, 8, 7, 0])), &at("alpha.png"), ImageFormat::Png);
    save(ImageBuffer::from_pixel(40, 30, Rgb([900u16, 80, 7])), &at("16-bit.png"), ImageFormat::Png);
    save(ImageBuffer::from_pixel(40, 30, Luma([900u16])), &at("16-bit-gray.tiff"), ImageFormat::Tiff);
    save(ImageBuffer::from_pixel(1, 1, Rgb([9u8, 8, 7])), &at("1x1.png"), ImageFormat::Png);
    save(ImageBuffer::from_pixel(500, 2, Rgb([9u8, 8, 7])), &at("long.bmp"), ImageFormat::Bmp);
    save(ImageBuffer::from_pixel(40, 30, Rgba([9u8, 8, 7, 255])), &at("still.gif"), ImageFormat::Gif);
    save(ImageBuffer::from_pixel(40, 30, Luma([9u8])), &at("gray.jpg"), ImageFormat::Jpeg);
    save(ImageBuffer::from_pixel(40, 30, Rgb([9u8, 8, 7])), &at("picture.webp"), ImageFormat::WebP);
    // An ending that says another format than the file has.
    save(ImageBuffer::from_pixel(40, 30, Rgb([9u8, 8, 7])), &at("really-a-png.jpg"), ImageFormat::Png);
    folder.run(with(tiny("run"), DATA)).ended_with(0);
    assert!(!folder.path("run/skipped.log").exists(), "{:?}", std::fs::read_to_string(folder.path("run/skipped.log")));
}

/// Adds files that claim to be images.
fn spoil(folder: &Folder) -> [&'static str; 4] {
    let at = |name: &str| folder.path("images").join(name);
    let whole = std::fs::read_dir(folder.path("images")).unwrap().next().unwrap().unwrap().path();
    save(image::open(whole).unwrap(), &at("truncated.jpg"), ImageFormat::Jpeg);
    let bytes = std::fs::read(at("truncated.jpg")).unwrap();
    std::fs::write(at("truncated.jpg"), &bytes[..200]).unwrap();
    std::fs::write(at("empty.png"), b"").unwrap();
    std::fs::write(at("text.png"), b"this is a text file\n").unwrap();
    // A PNG header that promises 2^31 - 1 pixels a side.
    let mut absurd = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    absurd.extend([0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 8, 2, 0, 0, 0, 0, 0, 0, 0]);
    std::fs::write(at("absurd.png"), absurd).unwrap();
    ["truncated.jpg", "empty.png", "text.png", "absurd.png"]
}

#[test]
fn what_is_no_image_is_skipped_and_named() {
    let folder = Folder::new();
    drawn(&folder);
    let names = spoil(&folder);
    folder.run(with(tiny("run"), &format!("{DATA} --set data.max_error_share=0.5"))).ended_with(0);
    let log = std::fs::read_to_string(folder.path("run/skipped.log")).expect("a log of skipped files");
    for name in names {
        assert!(log.contains(name), "{name} is not in the log:\n{log}");
    }
}

#[test]
fn too_many_of_them_stop_the_run() {
    let folder = Folder::new();
    drawn(&folder);
    spoil(&folder);
    let ran = folder.run(with(tiny("run"), &format!("{DATA} --set data.max_error_share=0.01"))).ended_with(2);
    let sentence = ran.stderr.lines().last().unwrap_or_default();
    assert!(sentence.starts_with("error: ") && sentence.contains("data.max_error_share"), "{}", ran.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_read() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    drawn(&folder);
    let first = std::fs::read_dir(folder.path("images")).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&first, first.with_file_name(std::ffi::OsStr::from_bytes(b"f\xff\xfe.png"))).unwrap();
    folder.run(with(tiny("run"), DATA)).ended_with(0);
}
