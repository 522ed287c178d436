//! Folders as users have them: splits, classes, hold-outs, files that are no images, names that are no UTF-8.

use std::collections::HashSet;
use std::path::Path;

use diptych_data::{
    DataError, Dataset, FileFormat, FileLayout, ImageFolder, Loader, LoaderConfig, OpenOptions, Splits, Synthetic,
    eval_batches, open, synthetic::Split, write_folder,
};
use tempfile::TempDir;

/// Writes a tiny BMP, so that the file is an image of its own color.
fn picture(root: &Path, path: impl AsRef<Path>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/one_pixel.png")).unwrap();
    // Bytes after the end of a PNG are not read; they make the sizes differ.
    bytes.extend(path.as_os_str().as_encoded_bytes());
    std::fs::write(path, bytes).unwrap();
}

fn tree(paths: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    paths.iter().for_each(|path| picture(root.path(), path));
    root
}

fn names(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|i| set.name(i)).collect()
}

fn labels(set: &dyn Dataset) -> Vec<Option<u32>> {
    (0..set.len()).map(|i| set.label(i)).collect()
}

fn opened(root: &Path) -> Splits {
    open(root, &OpenOptions::default()).unwrap()
}

fn sentence(spec: impl AsRef<Path>, options: OpenOptions) -> String {
    open(spec, &options).unwrap_err().to_string()
}

#[test]
fn first_level_folders_are_classes_however_deep_the_images_lie() {
    let root = tree(&["a/x/1.png", "a/0.png", "a.b/3.png", "b/2.PNG"]);
    let (set, notes) = ImageFolder::open(root.path()).unwrap();
    assert_eq!(names(&set), ["a.b/3.png", "a/0.png", "a/x/1.png", "b/2.PNG"]);
    assert_eq!(set.classes(), ["a", "a.b", "b"]);
    assert_eq!(labels(&set), [Some(1), Some(0), Some(0), Some(2)]);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(set.get(0).unwrap().to_rgb().pixels, [10, 200, 30]);
}

#[test]
fn images_beside_folders_make_the_set_unlabeled_and_the_user_is_told() {
    let root = tree(&["a/1.png", "b/2.png", "3.png"]);
    let (set, notes) = ImageFolder::open(root.path()).unwrap();
    assert_eq!((set.classes().len(), labels(&set)), (0, vec![None; 3]));
    assert!(notes[0].contains("1 of 3 images lie beside the folders"), "{notes:?}");
}

#[test]
fn one_folder_of_images_has_no_classes() {
    let root = tree(&["album/1.png", "album/2.png", "album/deeper/3.png"]);
    let splits = opened(root.path());
    assert_eq!((splits.train.classes().len(), labels(&*splits.train)), (0, vec![None; 3]));
    assert!(splits.notes.iter().any(|note| note.contains("one folder (album)")), "{:?}", splits.notes);
    assert!(!splits.labeled());
}

#[test]
fn train_with_val_or_test_inside_are_splits() {
    for test_name in ["val", "test"] {
        let root = tree(&["train/cat/1.png", "train/dog/2.png", "train/emu/3.png", "notes/4.png"]);
        picture(root.path(), format!("{test_name}/emu/5.png"));
        picture(root.path(), format!("{test_name}/cat/6.png"));
        let splits = opened(root.path());
        let test = splits.test.as_ref().unwrap();
        assert_eq!(names(&*splits.train), ["cat/1.png", "dog/2.png", "emu/3.png"]);
        assert_eq!(names(&**test), ["cat/6.png", "emu/5.png"]);
        // The labels are those of the training classes, although the test split lacks one of them.
        assert_eq!((test.classes(), labels(&**test)), (splits.train.classes(), vec![Some(0), Some(2)]));
        assert!(splits.labeled());
    }
}

#[test]
fn a_lone_train_folder_is_the_training_set() {
    let root = tree(&["train/cat/1.png", "train/dog/2.png", "readme.txt"]);
    assert_eq!(opened(root.path()).train.classes(), ["cat", "dog"]);
    let root = tree(&["train/1.png", "plane/2.png"]);
    assert_eq!(opened(root.path()).train.classes(), ["plane", "train"]);
}

#[test]
fn unknown_test_classes_are_refused() {
    let root = tree(&["train/cat/1.png", "train/dog/2.png", "val/cow/5.png", "val/cat/6.png"]);
    let sentence = sentence(root.path(), OpenOptions::default());
    assert_eq!(
        sentence,
        "the test images have a class that the training images lack: cow; both need the same class names"
    );
}

#[test]
fn a_fifth_is_held_out_by_the_hash_of_the_path() {
    let paths: Vec<String> = (0..100).map(|i| format!("{}/{i}.png", i % 4)).collect();
    let root = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    let splits = opened(root.path());
    let test: HashSet<String> = names(&**splits.test.as_ref().unwrap()).into_iter().collect();
    let train: HashSet<String> = names(&*splits.train).into_iter().collect();
    assert_eq!((test.len(), train.len(), test.union(&train).count()), (20, 80, 100));
    assert!(splits.notes.iter().any(|note| note.contains("20 of 100 images are held out")), "{:?}", splits.notes);
    assert!(splits.labeled());
    // The same folder elsewhere gives the same split; one image less moves at most one other.
    std::fs::remove_file(root.path().join(test.iter().min().unwrap())).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(root.path(), elsewhere.path().join("moved")).unwrap();
    let later: HashSet<String> =
        names(&**opened(&elsewhere.path().join("moved")).test.as_ref().unwrap()).into_iter().collect();
    assert!(later.is_subset(&test), "19 of 99 are those of before");
}

#[test]
fn few_images_are_not_split() {
    let splits = opened(tree(&["1.png", "2.png", "3.png", "4.png"]).path());
    assert!(splits.test.is_none() && splits.train.len() == 4);
    assert!(splits.notes.iter().any(|note| note.contains("none are held out")));
}

#[test]
fn test_images_can_be_given_apart() {
    let train = tree(&["cat/1.png", "dog/2.png"]);
    let test = tree(&["dog/3.png"]);
    let options = |path: &Path| OpenOptions { test: Some(path.into()), ..OpenOptions::default() };
    let splits = open(train.path(), &options(test.path())).unwrap();
    assert_eq!((splits.train.len(), labels(&**splits.test.as_ref().unwrap())), (2, vec![Some(1)]));
    // A split found beside the training images is overridden; of a test set with splits its test split is taken.
    let whole = tree(&["train/cat/1.png", "train/dog/2.png", "val/cat/7.png"]);
    let splits = open(whole.path(), &options(test.path())).unwrap();
    assert_eq!(names(&**splits.test.as_ref().unwrap()), ["dog/3.png"]);
    let splits = open(train.path(), &options(whole.path())).unwrap();
    assert_eq!(names(&**splits.test.as_ref().unwrap()), ["cat/7.png"]);
    // What would be trained on is no test.
    let error = sentence(train.path(), options(&train.path().join("dog")));
    assert!(error.contains("lie inside the training images"), "{error}");
    assert!(sentence(train.path(), options(Path::new("/nowhere"))).contains("/nowhere does not exist"));
}

#[test]
fn sizes_take_a_subset_that_does_not_depend_on_a_seed() {
    let root =
        tree(&(0..20).map(|i| format!("{i}.png")).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    let sized = |train_size, seed| {
        let options = OpenOptions { train_size: Some(train_size), test_size: Some(2), seed, ..OpenOptions::default() };
        open(root.path(), &options).unwrap()
    };
    let (five, seven) = (names(&*sized(5, 0).train), names(&*sized(7, 1).train));
    assert_eq!((five.len(), seven.len(), sized(5, 0).test.unwrap().len()), (5, 7, 2));
    assert!(five.iter().all(|name| seven.contains(name)));
    assert_eq!(sized(500, 0).train.len(), 16);
    assert!(sized(500, 0).notes.iter().any(|note| note.contains("all 16 images there are used")));
    assert!(
        sentence(root.path(), OpenOptions { train_size: Some(0), ..OpenOptions::default() }).contains("at least 1")
    );
}

#[test]
fn what_is_no_data_gets_a_sentence() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let tell = |path: &Path| sentence(path, OpenOptions::default());
    assert!(tell(&at("none")).ends_with(
        "none does not exist: give a folder of images, of .tar or .parquet files, or of CIFAR's or STL-10's binary files; or one such \
         file, hf://owner/name, or the word synthetic"
    ));
    assert!(tell(Path::new("")).contains("does not exist"));
    std::fs::create_dir(at("empty")).unwrap();
    assert!(tell(&at("empty")).contains("no image found (the folder is empty): expected files ending in .jpg"));
    std::fs::create_dir(at("texts")).unwrap();
    for name in ["texts/a.txt", "texts/b.txt", "texts/.c.png", "set.tar.gz", "set.xyz"] {
        std::fs::write(at(name), "words").unwrap();
    }
    assert!(tell(&at("texts")).contains("no image found (2 other files (.txt 2), 1 hidden)"));
    assert!(tell(&at("set.tar.gz")).contains("unpack it once (gzip -d < set.tar.gz > set.tar)"));
    assert!(tell(&at("set.xyz")).contains("not a file of a known format"));
    picture(root.path(), "one.png");
    assert!(tell(&at("one.png")).contains("a single image"));
    assert!(tell(Path::new("hf://owner")).contains("write hf://owner/name"));
}

#[test]
fn the_fingerprint_is_that_of_the_list() {
    let fingerprint = |paths: &[&str]| {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let (name, size) = path.split_once('=').unwrap();
            std::fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(name), vec![0; size.parse().unwrap()]).unwrap();
        }
        ImageFolder::open(root.path()).unwrap().0.fingerprint()
    };
    let first = fingerprint(&["a/1.png=3", "b/2.png=4"]);
    assert_eq!(first, fingerprint(&["b/2.png=4", "a/1.png=3"]));
    for other in
        [&["a/1.png=3", "b/2.png=5"][..], &["a/1.png=3", "b/3.png=4"], &["a/1.png=3"], &["a/1.png=4", "b/2.png=3"]]
    {
        assert_ne!(first, fingerprint(other));
    }
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(OsStr::from_bytes(b"donn\xe9es"));
    for class in [&b"\xe8"[..], b"\xe9"] {
        for file in [&b"\xff.png"[..], b"1.png", b"2\n.png"] {
            picture(&folder, Path::new(OsStr::from_bytes(class)).join(OsStr::from_bytes(file)));
        }
    }
    let splits = opened(&folder);
    assert_eq!(splits.train.classes(), ["\\xe8", "\\xe9"]);
    for i in 0..splits.train.len() {
        assert_eq!(splits.train.get(i).unwrap().to_rgb().pixels, [10, 200, 30]);
    }
}

/// A folder as the world has them, from the file to the batch: what is broken is named, the rest is used.
#[test]
fn a_hostile_folder_is_trained_and_evaluated_on() {
    let root = tempfile::tempdir().unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    for entry in std::fs::read_dir(&files).unwrap().flatten() {
        std::fs::copy(entry.path(), root.path().join(entry.file_name())).unwrap();
    }
    let jpeg = std::fs::read(files.join("rgb.jpg")).unwrap();
    std::fs::write(root.path().join("bad_cut.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    std::fs::write(root.path().join("bad_empty.png"), b"").unwrap();
    std::fs::write(root.path().join("bad_text.png"), b"not a picture").unwrap();
    // A JPEG under another ending is a JPEG.
    std::fs::write(root.path().join("jpeg.png"), &jpeg).unwrap();
    let (set, notes) = ImageFolder::open(root.path()).unwrap();
    assert!(notes[0].contains(".rgb"), "{notes:?}");
    let set: std::sync::Arc<dyn Dataset> = std::sync::Arc::new(set);
    std::fs::remove_file(root.path().join("rgb.bmp")).unwrap();

    let config = LoaderConfig {
        batch_size: 8,
        workers: 2,
        recipe: diptych_augment::Recipe::simclr(16),
        max_error_share: 0.2,
        end: Some(12),
        ..LoaderConfig::default()
    };
    let mut loader = Loader::new(set.clone(), config.clone()).unwrap();
    for batch in &mut loader {
        assert_eq!(batch.unwrap().views.0[1].dims(), [8, 16, 16, 3]);
    }
    let mut skipped: Vec<String> = loader.take_skipped().into_iter().map(|skipped| skipped.name).collect();
    skipped.sort();
    assert_eq!(skipped, ["bad_cut.jpg", "bad_empty.png", "bad_text.png", "rgb.bmp"]);

    let strict = LoaderConfig { max_error_share: 0.05, ..config };
    let error = Loader::new(set.clone(), strict).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, DataError::TooManyErrors { failed: 2, .. }), "{error}");
    let error =
        eval_batches(set, 4, 16, [0.5; 3].into(), [0.5; 3].into(), 1, 0.05).unwrap().find_map(Result::err).unwrap();
    assert!(error.to_string().contains("bad_empty.png: the file is empty (0 bytes)"), "{error}");
}

#[test]
fn a_written_folder_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let drawn = Synthetic::new(1, Split::Train, 30, 32);
    assert_eq!(write_folder(&drawn, root.path().join("png"), FileFormat::Png, FileLayout::Classes).unwrap(), 30);
    let (set, _) = ImageFolder::open(&root.path().join("png")).unwrap();
    assert_eq!((set.len(), set.classes().len()), (30, 10));
    for i in 0..30 {
        let name = set.name(i);
        let (class, file) = name.split_once('/').unwrap();
        let number: usize = file.trim_end_matches(".png").parse().unwrap();
        assert_eq!(set.get(i).unwrap(), drawn.get(number).unwrap());
        assert_eq!(class, drawn.classes()[drawn.label(number).unwrap() as usize]);
        assert_eq!(class, set.classes()[set.label(i).unwrap() as usize]);
    }

    write_folder(&drawn, root.path().join("flat"), FileFormat::Jpeg, FileLayout::Flat).unwrap();
    let (set, _) = ImageFolder::open(&root.path().join("flat")).unwrap();
    assert_eq!((set.len(), set.classes().len(), set.name(7)), (30, 0, "000007.jpg".to_owned()));
    for i in 0..30 {
        let (read, drawn) = (set.get(i).unwrap().to_rgb(), drawn.get(i).unwrap().to_rgb());
        let total: u64 = read.pixels.iter().zip(&drawn.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(total / (read.pixels.len() as u64) < 8, "JPEG keeps the picture nearly");
    }

    let again = write_folder(&drawn, root.path().join("flat"), FileFormat::Jpeg, FileLayout::Flat);
    assert!(again.unwrap_err().to_string().contains("is not empty"));
    let file = root.path().join("flat/000000.jpg/x");
    assert!(
        write_folder(&drawn, file, FileFormat::Png, FileLayout::Flat)
            .unwrap_err()
            .to_string()
            .starts_with("cannot make the folder")
    );
    let unlabeled = write_folder(&set, root.path().join("x"), FileFormat::Png, FileLayout::Classes);
    assert!(unlabeled.unwrap_err().to_string().contains("no labels"));
}
