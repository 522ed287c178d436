//! Packed files: what comes out of them is what went in, by every road that leads into one.

use std::path::{Path, PathBuf};

use diptych_augment::{Depth, Picture, PixelFormat, Recipe, ops};
use diptych_data::{
    Channels, Dataset, FileFormat, FileLayout, Loader, LoaderConfig, OpenOptions, PackFormat, PackOptions, PackSummary,
    Splits, Synthetic, open, pack, synthetic::Split, write_folder,
};
use tempfile::TempDir;

pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

/// A folder of drawn pictures, 40 a side.
pub(crate) fn drawn(folder: &Path, images: usize, format: FileFormat, layout: FileLayout) {
    write_folder(&Synthetic::new(1, Split::Train, images, 40), folder, format, layout).unwrap();
}

pub(crate) fn packed(source: &Path, out: &Path, options: &PackOptions) -> PackSummary {
    pack(source, out, options, &mut |_, _| ()).unwrap()
}

pub(crate) fn opened(path: &Path) -> Splits {
    open(path, &OpenOptions::default()).unwrap()
}

fn as_it_is(format: PackFormat) -> PackOptions {
    PackOptions { short_side: 0, format, ..PackOptions::default() }
}

/// Everything but the pixels.
fn same_list(a: &dyn Dataset, b: &dyn Dataset) {
    assert_eq!((a.len(), a.classes(), a.format()), (b.len(), b.classes(), b.format()));
    for i in 0..a.len() {
        assert_eq!((a.name(i), a.key(i), a.label(i)), (b.name(i), b.key(i), b.label(i)));
    }
}

fn same_pixels(a: &dyn Dataset, b: &dyn Dataset) {
    for i in 0..a.len() {
        assert_eq!(a.get(i).unwrap(), b.get(i).unwrap(), "{}", a.name(i));
    }
}

fn same_splits(source: &Splits, packed: &Splits) {
    let sets = |splits: &Splits| [Some(splits.train.clone()), splits.test.clone(), splits.labeled_train.clone()];
    for pair in sets(source).into_iter().zip(sets(packed)) {
        match pair {
            (Some(a), Some(b)) => {
                same_list(&*a, &*b);
                same_pixels(&*a, &*b);
            }
            (a, b) => assert!(a.is_none() && b.is_none()),
        }
    }
    let mut notes = packed.notes.iter();
    assert!(source.notes.iter().all(|note| notes.any(|other| other == note)), "{:?} {:?}", source.notes, packed.notes);
}

fn folder() -> (TempDir, PathBuf, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let (source, out) = (root.path().join("source"), root.path().join("set.pack"));
    (root, source, out)
}

#[test]
fn a_pack_of_the_same_pixels_opens_as_its_source_with_the_same_hold_out() {
    for (layout, format) in [(FileLayout::Classes, PackFormat::Raw), (FileLayout::Flat, PackFormat::Png)] {
        let (_root, source, out) = folder();
        drawn(&source, 43, FileFormat::Png, layout);
        let summary = packed(&source, &out, &as_it_is(format));
        assert_eq!((summary.images, summary.shrunk, summary.copied, summary.pixel_bytes), (43, 0, 0, 43 * 40 * 40 * 3));
        assert_eq!(summary.bytes, out.metadata().unwrap().len());
        let (a, b) = (opened(&source), opened(&out));
        assert_eq!(b.test.as_ref().unwrap().len(), 8);
        same_splits(&a, &b);
        let some = OpenOptions { train_size: Some(10), test_size: Some(5), ..OpenOptions::default() };
        same_splits(&open(&source, &some).unwrap(), &open(&out, &some).unwrap());
    }
}

#[test]
fn splits_and_classes_are_those_of_the_source() {
    let (_root, source, out) = folder();
    drawn(&source.join("train"), 20, FileFormat::Png, FileLayout::Classes);
    drawn(&source.join("val"), 12, FileFormat::Png, FileLayout::Classes);
    // The test split lacks the training split's first class, so that labels are matched by name.
    let first = opened(&source).train.classes()[0].clone();
    std::fs::remove_dir_all(source.join("val").join(first)).unwrap();
    packed(&source, &out, &as_it_is(PackFormat::Raw));
    same_splits(&opened(&source), &opened(&out));
    assert!(opened(&out).labeled());

    // One folder alone is no class; and test images may be given apart, when packing as when opening.
    let (_root, alone, out) = folder();
    drawn(&alone.join("all"), 20, FileFormat::Png, FileLayout::Flat);
    let apart = OpenOptions { test: Some(source.join("val")), ..OpenOptions::default() };
    packed(&alone, &out, &PackOptions { open: apart.clone(), ..as_it_is(PackFormat::Raw) });
    same_splits(&open(&alone, &apart).unwrap(), &opened(&out));
    packed(&alone, &out, &PackOptions { force: true, ..as_it_is(PackFormat::Raw) });
    same_splits(&open(&alone, &apart).unwrap(), &open(&out, &apart).unwrap());
    assert_eq!(opened(&out).train.classes(), [""; 0]);
}

#[test]
fn a_small_labeled_set_beside_many_unlabeled_images_stays_one() {
    let (_root, source, out) = folder();
    std::fs::create_dir_all(&source).unwrap();
    let images = |n: usize, first: usize| (0..n * 96 * 96 * 3).map(|i| (i / 7 + first) as u8).collect::<Vec<_>>();
    for (name, bytes) in
        [("unlabeled_X.bin", images(9, 0)), ("train_X.bin", images(6, 5)), ("train_y.bin", vec![1, 2, 3, 10, 2, 2])]
    {
        std::fs::write(source.join(name), bytes).unwrap();
    }
    packed(&source, &out, &as_it_is(PackFormat::Raw));
    same_splits(&opened(&source), &opened(&out));
    assert_eq!(opened(&out).labeled_train.unwrap().len(), 5, "one of six is held out");
}

#[test]
fn the_file_does_not_depend_on_the_number_of_threads_or_on_when_it_is_made() {
    let (root, source, _) = folder();
    drawn(&source, 60, FileFormat::Png, FileLayout::Classes);
    std::fs::write(source.join("airplane.png"), b"no picture").ok();
    for format in [PackFormat::Jpeg, PackFormat::Raw] {
        let files = [1, 4, 4].map(|threads| {
            let out = root.path().join(format!("{threads}.pack"));
            let options = PackOptions { short_side: 24, format, threads, force: true, ..PackOptions::default() };
            packed(&source, &out, &options);
            std::fs::read(out).unwrap()
        });
        assert!(files[0] == files[1] && files[1] == files[2], "{format:?}");
    }
}

#[test]
fn large_images_are_made_smaller_as_resize_does_it_and_small_jpegs_taken_as_they_are() {
    let (_root, source, out) = folder();
    drawn(&source, 4, FileFormat::Png, FileLayout::Flat);
    for name in ["rgb.jpg", "orientation_6.jpg", "progressive.jpg"] {
        std::fs::copy(sample(name), source.join(name)).unwrap();
    }
    let splits = opened(&source);
    let summary =
        packed(&source, &out, &PackOptions { short_side: 24, format: PackFormat::Raw, ..PackOptions::default() });
    let wide = |i: usize| splits.train.get(i).unwrap();
    let large = (0..splits.train.len()).filter(|&i| wide(i).width().min(wide(i).height()) > 24).count();
    assert!(summary.shrunk >= large as u64 && summary.images == 7);
    let small = opened(&out);
    for i in 0..small.train.len() {
        let (from, to) = (wide(i), small.train.get(i).unwrap());
        let short = from.width().min(from.height());
        let expected = match from.as_rgb() {
            Some(image) if short > 24 => {
                let (width, height) = (from.width() * 24 / short, from.height() * 24 / short);
                Picture::Rgb(ops::resize(image, width, height, diptych_augment::Interpolation::Bilinear))
            }
            _ => from,
        };
        assert_eq!(to, expected, "{}", small.train.name(i));
    }

    // At their own sizes, two of the three JPEGs need no turning: their very bytes are taken.
    let summary = packed(&source, &out, &PackOptions { force: true, ..as_it_is(PackFormat::Jpeg) });
    assert_eq!((summary.copied, summary.shrunk), (2, 0));
    let same = opened(&out);
    let all = |splits: &Splits| [splits.train.clone(), splits.test.clone().unwrap()];
    for (set, from) in all(&same).iter().zip(all(&splits)) {
        for i in 0..set.len() {
            let name = set.name(i);
            let copied = set.encoded(i).unwrap().unwrap() == std::fs::read(source.join(&name)).unwrap();
            assert_eq!(copied, name == "rgb.jpg" || name == "progressive.jpg", "{name}");
            let (a, b) = (set.get(i).unwrap(), from.get(i).unwrap());
            assert_eq!((a.width(), a.height()), (b.width(), b.height()), "{name}");
        }
    }
}

#[test]
fn unreadable_images_are_left_out_and_named_and_too_many_are_an_error() {
    let (root, source, out) = folder();
    drawn(&source, 19, FileFormat::Png, FileLayout::Classes);
    let class = opened(&source).train.classes()[3].clone();
    std::fs::write(source.join(&class).join("000000.png"), b"no picture").unwrap();
    let names = |splits: &Splits| -> Vec<String> {
        let all = [&splits.train, splits.test.as_ref().unwrap()];
        let mut names: Vec<_> = all.iter().flat_map(|set| (0..set.len()).map(|i| set.name(i))).collect();
        names.sort();
        names
    };
    let bad = format!("{class}/000000.png");
    let summary = packed(&source, &out, &as_it_is(PackFormat::Raw));
    assert_eq!((summary.images, summary.skipped.len(), &summary.skipped[0].name), (19, 1, &bad));
    let mut expected = names(&opened(&source));
    expected.retain(|name| *name != bad);
    assert_eq!(names(&opened(&out)), expected);
    assert!(opened(&out).notes.iter().any(|note| note.contains("1 unreadable image left out")));

    let strict = PackOptions { max_error_share: 0.01, force: true, ..as_it_is(PackFormat::Raw) };
    let before = std::fs::read(&out).unwrap();
    let error = pack(&source, &out, &strict, &mut |_, _| ()).unwrap_err().to_string();
    assert!(
        error.starts_with("1 of 20 images could not be read, more than the 1.0 % that --max-error-share allows"),
        "{error}"
    );
    assert!(error.contains(&bad), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), before, "what was there stays");
    let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let (root, source, out) = folder();
    drawn(&source, 6, FileFormat::Png, FileLayout::Flat);
    let refused =
        |out: &Path, options: PackOptions| pack(&source, out, &options, &mut |_, _| ()).unwrap_err().to_string();
    let plain = PackOptions::default;
    assert!(refused(root.path(), plain()).contains("is a folder: give the name of the file to make"));
    assert!(refused(&out, PackOptions { quality: 0, ..plain() }).contains("--quality is 0, expected 1 to 100"));
    assert!(refused(&out, PackOptions { threads: 0, ..plain() }).contains("--threads must be at least 1"));
    assert!(refused(&out, PackOptions { short_side: 70_000, ..plain() }).contains("--short-side is 70000"));
    assert!(refused(&out, PackOptions { max_error_share: 1.5, ..plain() }).contains("--max-error-share is 1.5"));
    let missing = pack(root.path().join("nowhere"), &out, &plain(), &mut |_, _| ()).unwrap_err().to_string();
    assert!(missing.contains("does not exist"), "{missing}");
    assert!(!out.exists());
    packed(&source, &out, &plain());
    assert!(refused(&out, plain()).contains("is there already: give another name, or --force to replace it"));
    packed(&source, &out, &PackOptions { force: true, ..plain() });
    // Its own source, which stays readable while it is replaced.
    packed(&out, &out, &PackOptions { force: true, ..plain() });
}

#[test]
fn every_depth_and_number_of_channels_survives() {
    let (_root, source, out) = folder();
    std::fs::create_dir_all(&source).unwrap();
    for i in 0..6 {
        std::fs::copy(sample("gray16.png"), source.join(format!("{i}.png"))).unwrap();
    }
    let channels = OpenOptions { channels: Channels::Stored(1), ..OpenOptions::default() };
    for format in [PackFormat::Raw, PackFormat::Png] {
        packed(&source, &out, &PackOptions { open: channels.clone(), force: true, ..as_it_is(format) });
        let splits = opened(&out);
        assert_eq!(splits.train.format(), PixelFormat { channels: 1, depth: Depth::U16 });
        same_splits(&open(&source, &channels).unwrap(), &splits);
    }
    let jpeg = PackOptions { open: channels, force: true, ..as_it_is(PackFormat::Jpeg) };
    let error = pack(&source, &out, &jpeg, &mut |_, _| ()).unwrap_err().to_string();
    assert_eq!(error, "JPEG holds 3 channels of 8 bits, the images have 1 channel of 16 bits: use --format raw");
    let three = OpenOptions { channels: Channels::Stored(3), ..OpenOptions::default() };
    assert!(open(&out, &three).unwrap_err().to_string().contains("data.channels = 3, but the images have 1 channel"));
}

#[test]
fn a_pack_can_be_packed_again() {
    let (root, source, out) = folder();
    drawn(&source, 20, FileFormat::Png, FileLayout::Classes);
    let again = root.path().join("again.pack");
    packed(&source, &out, &as_it_is(PackFormat::Jpeg));
    let summary = packed(&out, &again, &as_it_is(PackFormat::Jpeg));
    assert_eq!((summary.copied, summary.images), (20, 20), "no JPEG is encoded twice");
    same_splits(&opened(&out), &opened(&again));
}

/// The batches of two steps.
fn batches(set: &Splits, start: u64) -> Vec<(Vec<u32>, Vec<f32>)> {
    let config = LoaderConfig {
        batch_size: 4,
        recipe: Recipe::simclr(16),
        start,
        end: Some(start + 2),
        ..LoaderConfig::default()
    };
    let batches = Loader::new(set.train.clone(), config).unwrap();
    let numbers = |batch: diptych_nn::Batch| batch.views.0[1].flatten_all().unwrap().to_vec1().unwrap();
    batches.map(|batch| batch.unwrap()).map(|batch| (batch.index.clone(), numbers(batch))).collect()
}

#[test]
fn training_sees_what_it_would_see_of_the_source_and_resumes() {
    let (root, source, out) = folder();
    drawn(&source, 20, FileFormat::Png, FileLayout::Classes);
    packed(&source, &out, &as_it_is(PackFormat::Raw));
    assert_eq!(batches(&opened(&source), 0), batches(&opened(&out), 0));
    assert_eq!(batches(&opened(&source), 7), batches(&opened(&out), 7));
    // The fingerprint is that of the file's content, wherever it lies.
    let moved = root.path().join("elsewhere.bin");
    std::fs::copy(&out, &moved).unwrap();
    let print = |path: &Path| opened(path).train.fingerprint();
    assert_eq!(print(&out), print(&moved));
    packed(&source, &moved, &PackOptions { force: true, short_side: 30, ..as_it_is(PackFormat::Raw) });
    assert_ne!(print(&out), print(&moved));
}

#[cfg(unix)]
#[test]
fn names_that_are_no_utf_8_keep_their_place_in_the_hold_out() {
    use std::os::unix::ffi::OsStrExt;
    let (_root, source, out) = folder();
    std::fs::create_dir_all(&source).unwrap();
    for i in 0..12u8 {
        let name = std::ffi::OsStr::from_bytes(&[b'a', 0xe0 + i, b'.', b'p', b'n', b'g']).to_owned();
        std::fs::copy(sample("rgb.png"), source.join(name)).unwrap();
    }
    packed(&source, &out, &as_it_is(PackFormat::Raw));
    same_splits(&opened(&source), &opened(&out));
    assert!(opened(&out).train.name(0).starts_with("a\\xe"));
}
