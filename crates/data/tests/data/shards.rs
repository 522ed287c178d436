//! Tar and Parquet files as Python's tarfile and pyarrow write them, through the door that users take.

use std::path::{Path, PathBuf};

use diptych_augment::Picture;
use diptych_data::{Channels, Dataset, OpenOptions, Reading, Shards, Splits, open};
use tempfile::TempDir;

const CLASSES: [&str; 3] = ["cat", "dog", "emu"];

/// A folder with copies of some of the files in `tests/shards`, as (name there, name here): opening writes beside them.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (from, to) in files {
        let to = root.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shards").join(from), to).unwrap();
    }
    root
}

fn shards(root: &TempDir, names: &[&str]) -> (Shards, Vec<String>) {
    let files: Vec<PathBuf> = names.iter().map(|name| root.path().join(name)).collect();
    Shards::open(&files, None, Reading::Rgb).unwrap()
}

/// One of the files by itself.
fn single(name: &str) -> (TempDir, Shards, Vec<String>) {
    let root = folder(&[(name, name)]);
    let (set, notes) = shards(&root, &[name]);
    (root, set, notes)
}

fn splits(spec: impl AsRef<Path>) -> Splits {
    open(spec, &OpenOptions::default()).unwrap()
}

fn sentence(spec: impl AsRef<Path>) -> String {
    open(spec, &OpenOptions::default()).unwrap_err().to_string()
}

/// The number of the picture that image `i` is, by its color; all of its pixels have that color.
fn number(set: &dyn Dataset, i: usize) -> usize {
    let Picture::Rgb(image) = set.get(i).unwrap() else { panic!("no RGB") };
    assert_eq!((image.width, image.height), (4, 3));
    let number = usize::from(image.pixels[2]);
    let color = [(10 * number % 256) as u8, (255 - number) as u8, number as u8];
    assert!(image.pixels.chunks(3).all(|pixel| pixel == color));
    number
}

fn numbers(set: &dyn Dataset) -> Vec<usize> {
    (0..set.len()).map(|i| number(set, i)).collect()
}

fn labels(set: &dyn Dataset) -> Vec<u32> {
    (0..set.len()).filter_map(|i| set.label(i)).collect()
}

#[test]
fn tars_of_every_dialect_are_read() {
    for name in ["ustar.tar", "gnu.tar", "pax.tar"] {
        let (_root, set, notes) = single(name);
        assert_eq!(numbers(&set), [0, 1, 2, 3, 4, 5], "{name}");
        assert_eq!((labels(&set), set.classes()), (vec![0, 1, 2, 0, 1, 2], &["0", "1", "2"].map(String::from)[..]));
        let folders = if name == "ustar.tar" { 3 } else { 9 };
        let long = vec!["a folder with a long name"; folders].join("/");
        assert_eq!(set.name(4), format!("{name}/{long}/00004.rgb.png"));
        assert!(notes.is_empty(), "{notes:?}");
        // In any order, and from the middle.
        assert_eq!([5, 0, 3].map(|i| number(&set, i)), [5, 0, 3]);
    }
}

#[test]
fn odd_members_are_counted_or_mere_names() {
    let (root, set, notes) = single("odd.tar");
    assert_eq!((0..4).map(|i| number(&set, i)).collect::<Vec<_>>(), [0, 1, 2, 4]);
    let names: Vec<String> = (0..set.len()).map(|i| set.name(i)).collect();
    assert_eq!(
        names,
        ["/absolute.png", "../../outside.png", "é/ü.png", "two.left.png", "empty.png"]
            .map(|name| format!("odd.tar/{name}"))
    );
    assert_eq!(
        notes,
        [format!(
            "{}: passed over 2 links, 2 special members, such as devices, 1 hidden file, 1 further image of a sample, \
             1 label without image, 1 other file",
            root.path().join("odd.tar").display()
        )]
    );
    let error = set.get(4).unwrap_err();
    assert!(error.is_about_one_image() && error.to_string().contains("empty.png: the file is empty"), "{error}");
    // Nothing but the index was written, here or outside.
    let files: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(!root.path().join("../../outside.png").exists() && !Path::new("/absolute.png").exists());
}

#[test]
fn parquet_files_of_every_encoding_are_read() {
    for name in ["default", "groups", "plain", "plain_dictionary", "zstd", "second", "second_plain"] {
        let file = format!("{name}.parquet");
        let (root, set, notes) = single(&file);
        assert_eq!(numbers(&set), (0..24).collect::<Vec<_>>(), "{name}");
        assert_eq!(labels(&set), (0..24).map(|i| i % 3).collect::<Vec<u32>>(), "{name}");
        assert_eq!((set.classes(), notes.len()), (&CLASSES.map(String::from)[..], 0));
        assert_eq!(set.name(7), format!("{file}[7]"));
        // Only what cannot be entered in the middle is unpacked into a file of its own.
        let values = root.path().join(format!("{file}.diptych-values"));
        assert_eq!(values.exists(), name == "zstd", "{name}");
        // From the kept index it is the same.
        let (again, _) = shards(&root, &[&file]);
        assert_eq!((numbers(&again), labels(&again), again.classes()), (numbers(&set), labels(&set), set.classes()));
        assert_eq!(again.fingerprint(), set.fingerprint());
    }
}

#[test]
fn other_columns_are_told_by_name_and_type() {
    let (_root, set, notes) = single("binary.parquet");
    assert_eq!(numbers(&set), (0..24).filter(|i| i % 4 != 3).collect::<Vec<_>>());
    assert_eq!(labels(&set), (0..24).filter(|i| i % 4 != 3).map(|i| i % 3).collect::<Vec<u32>>());
    assert_eq!((set.classes(), set.len()), (&CLASSES.map(String::from)[..], 18));
    assert!(notes[0].ends_with("passed over 6 rows without an image in the file"), "{notes:?}");
    let (_root, set, _) = single("narrow.parquet");
    assert_eq!((set.classes(), labels(&set)[..4].to_vec()), (&["4", "5", "6"].map(String::from)[..], vec![0, 1, 2, 0]));
    let (_root, set, _) = single("hidden_labels.parquet");
    assert_eq!((set.classes().len(), set.label(0), set.len()), (0, None, 24));
    let (_root, set, _) = single("same.parquet");
    assert_eq!((set.len(), number(&set, 299)), (300, 0));
}

#[test]
fn what_is_not_read_is_said() {
    for (name, expected) in [
        ("gzip.parquet", "column bytes is compressed with GZIP: write the file with snappy, zstd or no compression"),
        ("delta.parquet", "written as DELTA_LENGTH_BYTE_ARRAY, which is not read"),
        (
            "no_images.parquet",
            "no column holds images: expected a structure image with a column bytes, or a column of bytes; it has text, label",
        ),
        ("two_binaries.parquet", "which column holds the images cannot be known, a or b: name one of them image"),
        ("only_paths.parquet", "none of its 3 rows has an image in it; paths to files elsewhere are not followed"),
        ("empty.parquet", "it has no rows"),
    ] {
        let root = folder(&[(name, name)]);
        let error = sentence(root.path().join(name));
        assert!(error.contains(expected) && error.contains(name) && !error.contains('\n'), "{error}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "an error leaves nothing behind");
    }
}

#[test]
fn folders_of_shards_have_splits_classes_and_hold_outs() {
    // As the hub names them.
    let root = folder(&[
        ("groups.parquet", "data/train-00000-of-00002.parquet"),
        ("zstd.parquet", "data/train-00001-of-00002.parquet"),
        ("default.parquet", "data/validation-00000-of-00001.parquet"),
        ("default.parquet", "data/test-00000-of-00001.parquet"),
    ]);
    std::fs::write(root.path().join("README.md"), "words").unwrap();
    let found = splits(root.path());
    let test = found.test.clone().unwrap();
    assert_eq!(
        (found.train.len(), test.len(), found.train.classes().to_vec()),
        (48, 24, CLASSES.map(String::from).to_vec())
    );
    assert_eq!(numbers(&*found.train), (0..24).chain(0..24).collect::<Vec<_>>());
    assert_eq!(test.name(0), "validation-00000-of-00001.parquet[0]");
    assert!(
        found.labeled()
            && found
                .notes
                .iter()
                .any(|note| note.contains("2 files of the train split, 1 file of the validation split"))
    );
    assert!(found.notes.iter().any(|note| note.contains("1 file of other splits is left alone")), "{:?}", found.notes);

    // As webdataset's users name them, with names for the classes.
    let root = folder(&[("gnu.tar", "s-000.tar"), ("pax.tar", "s-001.tar"), ("ustar.tar", "s-002.tar")]);
    std::fs::write(root.path().join("classes.txt"), "cat\ndog\nemu\nfox\n").unwrap();
    let found = splits(root.path());
    let test = found.test.clone().unwrap();
    assert_eq!((found.train.len(), test.len(), found.train.classes().len()), (15, 3, 4));
    assert!(found.notes.iter().any(|note| note.contains("18 images in 3 files, 4 classes")), "{:?}", found.notes);
    assert!(found.notes.iter().any(|note| note.contains("3 of 18 images are held out")));
    for i in 0..15 {
        assert_eq!(found.train.label(i), Some(number(&*found.train, i) as u32 % 3));
    }
    // A pattern names some of them; classes.txt lies beside.
    let found = splits(root.path().join("s-{001..002}.tar"));
    assert_eq!((found.train.len() + found.test.unwrap().len(), found.train.classes().len()), (12, 4));
    // One line too few: a label has no name.
    std::fs::write(root.path().join("classes.txt"), "cat\ndog\n").unwrap();
    assert!(sentence(root.path()).contains("an image has label 2, and there are names for the labels 0 to 1 only"));
    std::fs::write(root.path().join("classes.txt"), "cat\n\nemu\n").unwrap();
    assert!(sentence(root.path()).contains("classes.txt: line 2 is empty"));
}

#[test]
fn what_lies_beside_is_respected() {
    // An archive beside images is left alone, however deep they lie.
    let root = folder(&[
        ("gnu.tar", "train.tar"),
        ("../files/rgb.png", "train/a/1.png"),
        ("../files/rgb.png", "train/b/2.png"),
    ]);
    assert_eq!(splits(root.path()).train.name(0), "a/1.png");
    // Two kinds cannot both be meant.
    let root = folder(&[("gnu.tar", "a.tar"), ("plain.parquet", "b.parquet")]);
    assert!(sentence(root.path()).contains("it holds 1 .tar and 1 .parquet files"));
    // Test data given apart; but not what is trained on.
    let root = folder(&[("plain.parquet", "a.parquet"), ("zstd.parquet", "b.parquet")]);
    let at = |name: &str| root.path().join(name);
    let with_test = |data: PathBuf, test| open(data, &OpenOptions { test: Some(test), ..OpenOptions::default() });
    assert_eq!(with_test(at("a.parquet"), at("b.parquet")).unwrap().test.unwrap().len(), 24);
    for (data, test) in [
        (at("a.parquet"), at("a.parquet")),
        (root.path().into(), at("b.parquet")),
        (at("{a,b}.parquet"), at("b.parquet")),
    ] {
        assert!(with_test(data, test).unwrap_err().to_string().contains("they would be trained on"));
    }
    // Patterns that stand for nothing.
    assert!(sentence(at("x-{0..3}.tar")).contains("stands for 4 files, and"));
    assert!(sentence(at("x-{3..0}.tar")).contains("counts down"));
    assert!(sentence(at("x-{0..3.tar")).contains("not closed"));
    assert!(sentence(at("x-[0-3].tar")).contains("does not exist"));
}

#[test]
fn a_lying_index_is_made_again() {
    for name in ["gnu.tar", "zstd.parquet"] {
        let (root, set, _) = single(name);
        let index = root.path().join(format!("{name}.diptych-index"));
        let good = std::fs::read(&index).unwrap();
        let before = numbers(&set);
        for change in 0..4 {
            let mut bytes = good.clone();
            match change {
                0 => bytes.truncate(good.len() / 2),
                1 => bytes[60] ^= 0xff,
                2 => bytes = b"not an index".to_vec(),
                _ => bytes.push(0),
            }
            std::fs::write(&index, bytes).unwrap();
            assert_eq!(numbers(&shards(&root, &[name]).0), before);
            assert!(std::fs::read(&index).unwrap() == good, "{name}: change {change} stayed");
        }
    }
    // A shard that shrinks after it was opened costs images, not the run.
    let (root, set, _) = single("gnu.tar");
    std::fs::OpenOptions::new().write(true).open(root.path().join("gnu.tar")).unwrap().set_len(4000).unwrap();
    let error = set.get(5).unwrap_err();
    assert!(error.is_about_one_image() && error.to_string().contains("cannot be read"), "{error}");
}

/// Shards are indexed side by side; that shows in nothing.
#[test]
fn of_many_shards_the_first_bad_one_is_named() {
    let names: Vec<String> = (0..40).map(|i| format!("{i:02}.tar")).collect();
    let root = folder(&names.iter().map(|name| ("gnu.tar", name.as_str())).collect::<Vec<_>>());
    let (set, _) = shards(&root, &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(numbers(&set), (0..240).map(|i| i % 6).collect::<Vec<_>>());
    assert!(set.name(100).starts_with("16.tar/"));
    for name in ["31.tar", "17.tar", "39.tar"] {
        std::fs::write(root.path().join(name), "words").unwrap();
    }
    for _ in 0..10 {
        assert!(sentence(root.path()).contains("17.tar"));
    }
}

#[test]
fn channels_are_those_that_are_stored() {
    let root = folder(&[("plain.parquet", "plain.parquet")]);
    let with =
        |channels| open(root.path(), &OpenOptions { channels: Channels::Stored(channels), ..OpenOptions::default() });
    assert_eq!(with(3).unwrap().train.get(0).unwrap().format().channels, 3);
    let error = with(5).unwrap_err().to_string();
    assert!(error.contains("data.channels = 5, but image plain.parquet[0] has"), "{error}");
}

/// Every cut and many changes of real files end in a sentence or in images, never in a panic.
#[test]
fn damaged_files_are_errors_or_images() {
    for (name, step) in [
        ("odd.tar", 397),
        ("default.parquet", 23),
        ("groups.parquet", 71),
        ("second.parquet", 23),
        ("zstd.parquet", 131),
    ] {
        let root = folder(&[(name, name)]);
        let path = root.path().join(name);
        let good = std::fs::read(&path).unwrap();
        let mut opened = 0;
        let mut check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::remove_file(root.path().join(format!("{name}.diptych-index"))).ok();
            match Shards::open(std::slice::from_ref(&path), None, Reading::Rgb) {
                Ok((set, _)) => {
                    opened += 1;
                    (0..set.len().min(64)).for_each(|i| drop(set.get(i)));
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(name) && !text.contains('\n'), "{text}");
                }
            }
        };
        for cut in (0..good.len()).step_by(step) {
            check(&good[..cut]);
        }
        for at in (0..good.len()).step_by(step) {
            for value in [0, 0x7f, 0xff, good[at] ^ 1] {
                let mut bytes = good.clone();
                bytes[at] = value;
                check(&bytes);
            }
        }
        assert!(opened > 0, "{name}: most changes are to pictures");
    }
}
