//! CIFAR and STL-10 in small, and the embedded set, through the door that users take.

use std::path::Path;

use diptych_data::{Dataset, OpenOptions, open};
use tempfile::TempDir;

/// A pixel of record `i` at row `y`, column `x`, channel `c`.
fn value(i: usize, y: usize, x: usize, c: usize) -> u8 {
    (i * 50 + y * 7 + x * 3 + c * 90) as u8
}

/// The planes of record `i`, along the rows or the columns.
fn planes(i: usize, side: usize, by_columns: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for c in 0..3 {
        for a in 0..side {
            for b in 0..side {
                bytes.push(if by_columns { value(i, b, a, c) } else { value(i, a, b, c) });
            }
        }
    }
    bytes
}

fn cifar(header: &[u8], count: usize, first: usize) -> Vec<u8> {
    (0..count).flat_map(|i| [header.to_vec(), planes(first + i, 32, false)].concat()).collect()
}

fn check_pixels(set: &dyn Dataset, i: usize, record: usize, side: usize) {
    let image = set.get(i).unwrap().to_rgb();
    assert_eq!((image.width, image.height), (side, side));
    for (y, x) in [(0, 0), (0, side - 1), (side - 1, 0), (5, 9), (side - 2, 3)] {
        let expected = [0, 1, 2].map(|c| value(record, y, x, c));
        assert_eq!(image.pixel(x, y), Some(expected), "record {record} at ({y}, {x})");
    }
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(root.path().join(name), bytes).unwrap();
    }
    root
}

fn sentence(path: impl AsRef<Path>) -> String {
    open(path, &OpenOptions::default()).unwrap_err().to_string()
}

#[test]
fn cifar10_is_read() {
    let (first, second, test) = (cifar(&[3], 4, 0), cifar(&[9], 2, 4), cifar(&[1], 3, 6));
    for inside in ["", "cifar-10-batches-bin/"] {
        let root = folder(&[
            (&format!("{inside}data_batch_2.bin"), second.clone()),
            (&format!("{inside}data_batch_1.bin"), first.clone()),
            (&format!("{inside}test_batch.bin"), test.clone()),
        ]);
        let splits = open(root.path(), &OpenOptions::default()).unwrap();
        assert_eq!((splits.train.len(), splits.train.classes()[3].as_str()), (6, "cat"));
        assert_eq!([0, 3, 4, 5].map(|i| splits.train.label(i).unwrap()), [3, 3, 9, 9]);
        assert_eq!(splits.train.name(5), "data_batch_2.bin[1]");
        [0, 3, 4, 5].iter().for_each(|&i| check_pixels(&*splits.train, i, i, 32));
        let test = splits.test.as_ref().unwrap();
        assert_eq!((test.len(), test.label(2)), (3, Some(1)));
        check_pixels(&**test, 2, 8, 32);
        assert!(
            splits.notes.iter().any(|note| note.contains("data_batch_3.bin, data_batch_4.bin")),
            "{:?}",
            splits.notes
        );
        let one = open(root.path().join(inside).join("test_batch.bin"), &OpenOptions::default()).unwrap();
        assert_eq!(one.train.len(), 3);
    }
}

#[test]
fn cifar100_is_read_with_its_fine_labels() {
    let names: String = (0..100).map(|i| format!("name{i}\n")).collect();
    let root = folder(&[("train.bin", cifar(&[4, 77], 10, 0)), ("fine_label_names.txt", names.into_bytes())]);
    let splits = open(root.path(), &OpenOptions::default()).unwrap();
    // Without test.bin a fifth is held out.
    assert_eq!((splits.train.len(), splits.test.as_ref().unwrap().len()), (8, 2));
    assert_eq!((splits.train.label(0), splits.train.classes()[77].as_str()), (Some(77), "name77"));
    let whole = folder(&[("train.bin", cifar(&[4, 77], 2, 0)), ("test.bin", cifar(&[1, 99], 2, 2))]);
    let splits = open(whole.path(), &OpenOptions::default()).unwrap();
    check_pixels(&*splits.train, 1, 1, 32);
    check_pixels(&**splits.test.as_ref().unwrap(), 1, 3, 32);
    assert_eq!(splits.train.classes()[77], "class 77");
}

#[test]
fn stl10_pretrains_on_the_unlabeled_images() {
    let part = |first: usize, count: usize| (0..count).flat_map(|i| planes(first + i, 96, true)).collect::<Vec<u8>>();
    let root = folder(&[
        ("stl10_binary/unlabeled_X.bin", part(0, 3)),
        ("stl10_binary/train_X.bin", part(3, 2)),
        ("stl10_binary/train_y.bin", vec![1, 10]),
        ("stl10_binary/test_X.bin", part(5, 2)),
        ("stl10_binary/test_y.bin", vec![4, 2]),
    ]);
    let splits = open(root.path(), &OpenOptions::default()).unwrap();
    assert_eq!((splits.train.len(), splits.train.label(0), splits.bank().len()), (3, None, 2));
    assert_eq!([0, 1].map(|i| splits.bank().label(i).unwrap()), [0, 9]);
    let test = splits.test.clone().unwrap();
    assert_eq!([0, 1].map(|i| test.label(i).unwrap()), [3, 1]);
    assert!(splits.labeled());
    check_pixels(&*splits.train, 2, 2, 96);
    check_pixels(&**splits.bank(), 0, 3, 96);
    check_pixels(&*test, 1, 6, 96);

    std::fs::remove_file(root.path().join("stl10_binary/unlabeled_X.bin")).unwrap();
    let splits = open(root.path(), &OpenOptions::default()).unwrap();
    assert!(splits.labeled_train.is_none() && splits.train.len() == 2);
}

#[test]
fn wrong_sizes_and_labels_are_told() {
    let mut cut = cifar(&[3], 2, 0);
    cut.truncate(cut.len() - 1);
    let root = folder(&[("data_batch_1.bin", cut)]);
    let text = sentence(root.path());
    assert!(
        text.contains("data_batch_1.bin: its 6145 bytes are not a whole number of CIFAR-10 records of 3073 bytes"),
        "{text}"
    );
    let root = folder(&[("data_batch_1.bin", [cifar(&[3], 2, 0), cifar(&[10], 1, 0)].concat())]);
    assert!(sentence(root.path()).contains("record 2 has label 10, CIFAR-10 has labels 0 to 9"));
    let root = folder(&[("train.bin", vec![])]);
    assert!(sentence(root.path()).contains("its 0 bytes"));
    let root = folder(&[("data_batch_1", vec![1, 2, 3])]);
    assert!(sentence(root.path()).contains("get the binary version"));

    let root = folder(&[("train_X.bin", planes(0, 96, true)), ("train_y.bin", vec![1, 2])]);
    assert!(sentence(root.path()).contains("train_y.bin: it has 2 labels for 1 images"));
    std::fs::write(root.path().join("train_y.bin"), [0]).unwrap();
    assert!(sentence(root.path()).contains("label 0 is 0, STL-10 has labels 1 to 10"));
    std::fs::remove_file(root.path().join("train_y.bin")).unwrap();
    assert!(sentence(root.path()).starts_with("cannot read "));
}

#[test]
fn the_drawn_set_needs_no_file() {
    let options = OpenOptions { train_size: Some(40), test_size: Some(20), image_size: 48, ..OpenOptions::default() };
    let splits = open("synthetic", &options).unwrap();
    let test = splits.test.clone().unwrap();
    assert_eq!((splits.train.len(), test.len(), splits.train.get(7).unwrap().width()), (40, 20, 48));
    assert!(splits.labeled());
    assert_eq!(splits.train.classes(), test.classes());
    assert_ne!(splits.train.get(0).unwrap(), test.get(0).unwrap());
    let other = open("synthetic", &OpenOptions { seed: 1, ..options.clone() }).unwrap();
    assert_ne!(splits.train.get(0).unwrap(), other.train.get(0).unwrap());
    let fingerprints = [splits.train.fingerprint(), test.fingerprint(), other.train.fingerprint()];
    assert!(fingerprints[0] != fingerprints[1] && fingerprints[0] != fingerprints[2]);
    let error = open("synthetic", &OpenOptions { image_size: 500, ..options }).unwrap_err();
    assert_eq!(error.to_string(), "data.image_size is 500: drawn images have 32 to 96 pixels a side");
}
