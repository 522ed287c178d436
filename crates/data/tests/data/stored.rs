//! Pictures that are not 8-bit RGB, from image files and from arrays. The truth is NumPy's: tests/stored/make_stored.py.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_augment::{Depth, Image, PerChannel, Picture, PixelFormat, Recipe, Samples, ViewOverrides, ViewRecipe};
use diptych_data::{
    ArrayImages, Channels, DataError, Dataset, ImageFolder, Loader, LoaderConfig, OpenOptions, Reading, decode_file,
    open,
};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stored").join(name)
}

/// The numbers of `NAME.npy`, read by hand: what follows the header's line break.
fn expected<const W: usize>(name: &str) -> Vec<[u8; W]> {
    let bytes = std::fs::read(file(name)).unwrap();
    let start = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[start..].as_chunks::<W>().0.to_vec()
}

fn check(name: &str, ending: &str, channels: usize, depth: Depth) {
    let picture = decode_file(&file(&format!("{name}.{ending}")), None, Reading::Channels(channels)).unwrap();
    assert_eq!((picture.width(), picture.height()), (13, 9), "{name}");
    assert_eq!(picture.format(), PixelFormat { channels, depth }, "{name}");
    let Picture::Raster(raster) = picture else { panic!("{name} is no RGB picture") };
    let numbers = format!("{name}.npy");
    match raster.samples() {
        Samples::U8(values) => assert_eq!(*values, expected::<1>(&numbers).as_flattened(), "{name}"),
        Samples::U16(values) => {
            let truth: Vec<u16> = expected::<2>(&numbers).into_iter().map(u16::from_le_bytes).collect();
            assert_eq!(*values, truth, "{name}");
        }
        Samples::F32(values) => {
            let truth: Vec<f32> = expected::<4>(&numbers).into_iter().map(f32::from_le_bytes).collect();
            assert_eq!(*values, truth, "{name}");
        }
    }
}

#[test]
fn channels_are_read_as_they_are_stored() {
    check("bands5_u16", "tif", 5, Depth::U16);
    check("planes4_u8", "tif", 4, Depth::U8);
    check("pages3_u16", "tif", 3, Depth::U16);
    check("bands2_f32", "tif", 2, Depth::F32);
    check("gray_i16", "tif", 1, Depth::F32);
    check("gray_u16", "png", 1, Depth::U16);
    check("rgba_u8", "png", 4, Depth::U8);
}

#[test]
fn what_cannot_be_read_as_channels_is_told_in_words() {
    let reason = |name: &str, channels| match decode_file(&file(name), None, Reading::Channels(channels)) {
        Err(DataError::Decode { reason, .. }) => reason,
        other => panic!("{name}: expected a refusal, got {other:?}"),
    };
    assert_eq!(reason("bands5_u16.tif", 4), "it has 5 channels, data.channels says 4");
    assert_eq!(reason("bands17_u8.tif", 4), "it has 17 channels: 1 to 16 are read");
    assert!(reason("uneven_pages.tif", 2).starts_with("its page 2 is 13x8 with 1 channel of 8 bits, the first 13x9"));
    assert_eq!(reason("not_a_number.tif", 2), "it holds numbers that are infinite or not a number");
    assert!(!reason("images_u16.npy", 2).is_empty());
}

/// Every beginning of every file, and thousands of damaged ones: a picture or a sentence, never a panic.
#[test]
fn damaged_files_are_refused_or_read_but_never_fatal() {
    for name in ["bands5_u16.tif", "planes4_u8.tif", "pages3_u16.tif", "bands2_f32.tif", "gray_u16.png"] {
        let whole = std::fs::read(file(name)).unwrap();
        for len in 0..whole.len() {
            let _ = diptych_data::decode(name, &whole[..len], Reading::Channels(5));
        }
        let mut stream = diptych_augment::Stream::keyed(4, &[whole.len() as u64]);
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                let at = stream.below(bytes.len() as u64) as usize;
                bytes[at] = stream.next_u64() as u8;
            }
            let _ = diptych_data::decode(name, &bytes, Reading::Channels(5));
        }
    }
}

#[test]
fn an_array_is_a_labeled_data_set() {
    let set = ArrayImages::open(&file("images_u16.npy")).unwrap();
    assert_eq!((set.len(), set.format()), (7, PixelFormat { channels: 5, depth: Depth::U16 }));
    assert_eq!(set.classes(), ["class 0", "class 1", "class 2"]);
    assert_eq!((0..7).map(|i| set.label(i).unwrap()).collect::<Vec<_>>(), [0, 2, 1, 1, 0, 2, 2]);
    let truth: Vec<u16> = expected::<2>("images_u16.npy").into_iter().map(u16::from_le_bytes).collect();
    for i in 0..7 {
        let Picture::Raster(raster) = set.get(i).unwrap() else { panic!("five channels") };
        assert_eq!(*raster.samples(), Samples::U16(truth[i * 120..(i + 1) * 120].to_vec()));
        assert_eq!((raster.width(), raster.height()), (6, 4));
    }
    let other = ArrayImages::open(&file("images_u16_big.npy")).unwrap();
    assert_eq!(other.get(3).unwrap(), set.get(3).unwrap(), "the other byte order");
    let gray = ArrayImages::open(&file("images_gray_u8.npy")).unwrap();
    assert_eq!(
        (gray.len(), gray.format(), gray.classes().len()),
        (3, PixelFormat { channels: 1, depth: Depth::U8 }, 0)
    );
}

#[test]
fn arrays_that_are_no_images_are_told_what_to_do() {
    let said = |path: &Path| ArrayImages::open(path).err().expect("a refusal").to_string();
    assert!(said(&file("images_f64.npy")).contains("of the type <f8: images are u8, u16 or f32"));
    assert!(said(&file("images_fortran.npy")).contains("numpy.ascontiguousarray"));
    assert!(said(&file("images_first.npy")).contains("it looks like [N, C, H, W]"));
    assert!(said(&file("images_u16.labels.npy")).contains("images are [N, H, W, C] or [N, H, W]"));

    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(file("images_u16.npy")).unwrap();
    let path = folder.path().join("cut.npy");
    for len in [0, 5, 9, 60, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(ArrayImages::open(&path).is_err(), "{len} bytes");
    }
    assert!(said(&path).contains("is it complete?"));
    // A header that promises 2^60 images.
    let mut lies = whole.clone();
    let at = lies.windows(4).position(|bytes| bytes == b"(7, ").unwrap();
    lies.splice(at + 1..at + 2, b"1152921504606846976".iter().copied());
    lies.drain(70..88);
    std::fs::write(&path, &lies).unwrap();
    assert!(ArrayImages::open(&path).is_err());
    // Labels of other images.
    std::fs::write(&path, &whole).unwrap();
    std::fs::copy(file("images_gray_u8.npy"), folder.path().join("cut.labels.npy")).unwrap();
    assert!(said(&path).contains("expected [7], one label for each image"));
}

#[test]
fn a_folder_is_read_with_the_channels_that_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..6 {
        std::fs::copy(file("bands5_u16.tif"), folder.path().join(format!("{i}.tif"))).unwrap();
    }
    let options = |channels| OpenOptions { channels, ..OpenOptions::default() };
    let splits = open(folder.path(), &options(Channels::Stored(5))).unwrap();
    assert_eq!(splits.train.format(), PixelFormat { channels: 5, depth: Depth::U16 });
    assert_eq!(splits.train.get(0).unwrap().format(), splits.train.format());
    let error = open(folder.path(), &options(Channels::Stored(3))).unwrap_err().to_string();
    assert_eq!(error, "data.channels = 3, but image 0.tif has 5 channels of 16 bits");
    let as_rgb = decode_file(&folder.path().join("0.tif"), None, Reading::Rgb).unwrap_err().to_string();
    assert_eq!(
        as_rgb,
        "image 0.tif: it has 5 channels of 16 bits, which are not RGB: data.channels = 5 reads them as they are"
    );
    let error = open(file("images_u16.npy"), &options(Channels::Rgb)).unwrap_err().to_string();
    assert_eq!(error, "data.channels = \"rgb\", but the images have 5 channels of 16 bits");
    for (text, channels) in [("auto", Channels::Auto), ("rgb", Channels::Rgb), ("16", Channels::Stored(16))] {
        assert_eq!(text.parse(), Ok(channels));
    }
    assert!(["0", "17", "gray", ""].iter().all(|text| text.parse::<Channels>().is_err()));
    // Another depth among them is an image that cannot be used.
    std::fs::copy(file("bands2_f32.tif"), folder.path().join("7.tif")).unwrap();
    let (set, _) = ImageFolder::open_as(folder.path(), Reading::Channels(5)).unwrap();
    assert!(set.get(6).unwrap_err().is_about_one_image());
}

/// 16-bit RGB of equal bytes is the 8-bit picture, so its views are the same up to rounding.
#[test]
fn the_loader_makes_batches_of_any_channels() {
    let splits = open(file("images_u16.npy"), &OpenOptions::default()).unwrap();
    assert_eq!(splits.train.len() + splits.test.map_or(0, |test| test.len()), 7);
    let set: Arc<dyn Dataset> = Arc::new(ArrayImages::open(&file("images_u16.npy")).unwrap());
    let numbers = PerChannel::new(&[0.5, 0.4, 0.3, 0.2, 0.1]).unwrap();
    let plain = ViewRecipe {
        saturation: 0.0,
        hue: 0.0,
        grayscale: 0.0,
        mean: numbers,
        std: numbers,
        ..Recipe::simclr(4).shared()
    };
    let recipe = Recipe::of(plain, vec![ViewOverrides::default(); 2]);
    let config =
        LoaderConfig { batch_size: 3, workers: 2, recipe: recipe.clone(), end: Some(4), ..LoaderConfig::default() };
    let values = |workers| -> Vec<Vec<u32>> {
        let config = LoaderConfig { workers, ..config.clone() };
        Loader::new(set.clone(), config)
            .unwrap()
            .map(|batch| {
                let view = &batch.unwrap().views.0[1];
                assert_eq!(view.dims(), [3, 4, 4, 5]);
                view.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            })
            .collect()
    };
    assert_eq!(values(1), values(3));
    let wrong = LoaderConfig { recipe: Recipe::simclr(4), ..config };
    let error = Loader::new(set, wrong).err().expect("three numbers for five channels").to_string();
    assert!(error.contains("augment.mean has 3 numbers, the images have 5 channels of 16 bits"), "{error}");
    assert!(Picture::from(Image::filled(2, 2, [1; 3])).as_rgb().is_some());
}
