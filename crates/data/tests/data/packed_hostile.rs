//! Packed files that are cut off, damaged, newer, or say what is not true: a sentence or a skipped image, never more.

use std::path::{Path, PathBuf};

use diptych_data::{DataError, FileFormat, FileLayout, OpenOptions, PackFormat, PackOptions, eval_batches, open};
use tempfile::TempDir;

use crate::packed::{drawn, opened, packed};

const HEADER: usize = 64;
const ENTRY: usize = 56;
const IMAGES: usize = 10;

/// A packed file of ten drawn pictures with labels, its bytes, and where it lies.
fn good() -> (TempDir, PathBuf, Vec<u8>) {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("set.pack");
    drawn(&root.path().join("source"), IMAGES, FileFormat::Png, FileLayout::Classes);
    packed(
        &root.path().join("source"),
        &out,
        &PackOptions { format: PackFormat::Raw, short_side: 4, ..PackOptions::default() },
    );
    let bytes = std::fs::read(&out).unwrap();
    (root, out, bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize
}

fn entries_at(bytes: &[u8]) -> usize {
    u64_at(bytes, 24)
}

/// Makes the checksums of header and index right again, so that what was changed is believed.
fn seal(bytes: &mut [u8]) {
    let at = entries_at(bytes).min(bytes.len());
    let index = crc32fast::hash(&bytes[at..]);
    bytes[12..16].copy_from_slice(&index.to_le_bytes());
    let header = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&header.to_le_bytes());
}

fn sentence(path: &Path, bytes: &[u8]) -> String {
    std::fs::write(path, bytes).unwrap();
    let error = open(path, &OpenOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("data file {}: ", path.display())) && !text.contains('\n'), "{text}");
    text
}

#[test]
fn a_file_that_is_cut_off_anywhere_says_so() {
    let (_root, path, bytes) = good();
    let index = entries_at(&bytes);
    let (names, about) = (index + IMAGES * ENTRY, index + IMAGES * ENTRY + u64_at(&bytes, 40));
    for end in [8, 9, 12, 30, HEADER - 1] {
        let text = sentence(&path, &bytes[..end]);
        assert!(text.contains(&format!("it ends after {end} bytes, within its header: copy it again")), "{text}");
    }
    for end in [HEADER, HEADER + 1, index / 2, index, index + 1, names - 1, names, about, about + 1, bytes.len() - 1] {
        let text = sentence(&path, &bytes[..end]);
        let expected = format!("it has {end} bytes, its header says {}: it was cut off", bytes.len());
        assert!(text.contains(&expected), "{text}");
    }
    let text = sentence(&path, &[&bytes[..], b"more"].concat());
    assert!(text.contains("bytes, its header says"), "{text}");
}

#[test]
fn a_newer_file_says_what_to_do() {
    let (_root, path, mut bytes) = good();
    bytes[8] = 2;
    // A newer header is not even looked at, whatever else is in it.
    bytes[20..40].fill(0xff);
    let text = sentence(&path, &bytes);
    assert!(
        text.contains("packed in format 2, this Diptych reads format 1: update Diptych, or pack the images again"),
        "{text}"
    );
}

#[test]
fn a_damaged_header_or_index_is_an_error() {
    let (_root, path, bytes) = good();
    for at in [12, 17, 25, 33, 41, 50, 57, 61] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let text = sentence(&path, &bad);
        assert!(text.contains("its header is damaged: copy it again, or pack the images again"), "{at}: {text}");
    }
    for at in (entries_at(&bytes)..bytes.len()).step_by(97) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let text = sentence(&path, &bad);
        assert!(text.contains("its index is damaged (checksum "), "{at}: {text}");
    }
}

#[test]
fn counts_that_would_need_terabytes_cost_nothing() {
    let (_root, path, bytes) = good();
    for at in [16, 24, 32, 40, 48] {
        for huge in [u64::MAX, u64::MAX / 56, 1 << 45, 1 << 32] {
            let mut bad = bytes.clone();
            bad[at..at + 8].copy_from_slice(&huge.to_le_bytes());
            seal(&mut bad);
            let text = sentence(&path, &bad);
            assert!(text.contains("header"), "{at} {huge}: {text}");
        }
    }
    // Numbers that fit each other, of a file that is not there.
    let mut bad = bytes[..HEADER].to_vec();
    let entries = 1u64 << 36;
    for (at, number) in [(16, 64 + 56 * entries + 8), (24, 64), (32, entries), (40, 4), (48, 4)] {
        bad[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    seal(&mut bad);
    assert!(sentence(&path, &bad).contains("it has 64 bytes, its header says 3848290697288"));
}

#[test]
fn an_index_that_lies_is_an_error() {
    let (_root, path, bytes) = good();
    let index = entries_at(&bytes);
    let third = index + 3 * ENTRY;
    let long = |number: u64| number.to_le_bytes().to_vec();
    let short = |number: u32| number.to_le_bytes().to_vec();
    let cases: Vec<(usize, Vec<u8>, &str)> = vec![
        (0, long(0), "outside of the images' bytes"),
        (0, long(HEADER as u64 - 1), "outside of the images' bytes"),
        (0, long(index as u64 - 1), "outside of the images' bytes"),
        (0, long(u64::MAX), "outside of the images' bytes"),
        (8, long(u64::MAX), "outside of the images' bytes"),
        (8, long(index as u64), "outside of the images' bytes"),
        (8, long(5), "has 5 bytes for 4 x 4 pixels"),
        (24, long(u64::MAX), "has no name that can be read"),
        (24, long(1 << 40), "has no name that can be read"),
        (32, short(u32::MAX), "has no name that can be read"),
        (40, short(0), "has 0 x 4 pixels"),
        (40, short(u32::MAX), "pixels, expected 1 to"),
        (40, short(5), "has 48 bytes for 5 x 4 pixels"),
        (48, short(1000), "has label 1000, there are"),
        (52, vec![0], "has not the 3 channels of 8 bits of its split"),
        (52, vec![200], "has not the 3 channels"),
        (53, vec![3], "has not the 3 channels"),
        (53, vec![4], "has not the 3 channels"),
        (54, vec![3], "is encoded in way 3"),
    ];
    for (at, change, expected) in cases {
        let mut bad = bytes.clone();
        bad[third + at..third + at + change.len()].copy_from_slice(&change);
        seal(&mut bad);
        let text = sentence(&path, &bad);
        assert!(text.contains("image 3 of its index ") && text.contains(expected), "{at} {change:?}: {text}");
    }
    let about = index + IMAGES * ENTRY + u64_at(&bytes, 40);
    for at in about..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] = bad[at].wrapping_add(0x80);
        seal(&mut bad);
        std::fs::write(&path, &bad).unwrap();
        // Some changes are of a letter or a number that may be anything; the others are errors.
        if let Err(error) = open(&path, &OpenOptions::default()) {
            assert!(matches!(error, DataError::Format { .. }), "{at}: {error}");
        }
    }
}

#[test]
fn a_damaged_image_is_skipped_and_counted_and_the_others_are_read() {
    let (_root, path, mut bytes) = good();
    let before = opened(&path).train;
    let pictures: Vec<_> = (0..before.len()).map(|i| before.get(i).unwrap()).collect();
    drop(before);
    let first = u64_at(&bytes, entries_at(&bytes));
    bytes[first + 7] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let splits = opened(&path);
    let sets = [splits.train.clone(), splits.test.unwrap()];
    let errors: Vec<_> = sets.iter().flat_map(|set| (0..set.len()).filter_map(|i| set.get(i).err())).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].is_about_one_image(), "{}", errors[0]);
    assert!(errors[0].to_string().contains("are damaged (checksum "), "{}", errors[0]);
    let same = (0..sets[0].len()).filter(|&i| sets[0].get(i).is_ok_and(|picture| picture == pictures[i])).count();
    assert!(same + 1 >= sets[0].len());
    let bad = sets.iter().find(|set| (0..set.len()).any(|i| set.get(i).is_err())).unwrap();
    let mut batches = eval_batches(bad.clone(), 4, 4, [0.0; 3].into(), [1.0; 3].into(), 1, 0.9).unwrap();
    let shown: usize = batches.by_ref().map(|batch| batch.unwrap().indices.len()).sum();
    assert_eq!((shown, batches.skipped()), (bad.len() - 1, 1));
}

/// Encoded records that are whole, and something else than the index says.
#[test]
fn a_record_of_another_size_is_an_error_of_that_image() {
    let root = tempfile::tempdir().unwrap();
    let (source, path) = (root.path().join("source"), root.path().join("set.pack"));
    drawn(&source, IMAGES, FileFormat::Png, FileLayout::Flat);
    packed(&source, &path, &PackOptions { format: PackFormat::Png, ..PackOptions::default() });
    let mut bytes = std::fs::read(&path).unwrap();
    let index = entries_at(&bytes);
    (0..IMAGES).for_each(|i| bytes[index + i * ENTRY + 40] = 39);
    seal(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    let error = opened(&path).train.get(0).unwrap_err();
    assert!(error.is_about_one_image());
    assert!(error.to_string().contains("it is 40 x 40 with 3 channels of 8 bits, the index says 39 x 40"), "{error}");
}

/// Any bytes in the place of some of the file's, with and without checksums that fit: an error in words, or images and errors of images.
#[test]
fn no_bytes_make_a_packed_file_panic() {
    let (_root, path, bytes) = good();
    let index = entries_at(&bytes);
    bolero::check!().with_iterations(600).with_type::<(Vec<(u16, u8)>, bool, u16)>().for_each(
        |(edits, sealed, cut)| {
            let mut bad = bytes.clone();
            for (at, value) in edits {
                // The header and the index are where it matters.
                let places = HEADER + bytes.len() - index;
                let at = usize::from(*at) % places;
                let at = if at < HEADER { at } else { at - HEADER + index };
                bad[at] = *value;
            }
            if cut % 4 == 0 {
                bad.truncate(usize::from(*cut) % bytes.len());
            }
            let magic = bad.len().min(8);
            bad[..magic].copy_from_slice(&bytes[..magic]);
            if *sealed && bad.len() >= HEADER {
                bad[8..12].copy_from_slice(&bytes[8..12]);
                seal(&mut bad);
            }
            std::fs::write(&path, &bad).unwrap();
            match open(&path, &OpenOptions::default()) {
                Ok(splits) => {
                    for set in [Some(splits.train), splits.test].into_iter().flatten() {
                        for i in 0..set.len() {
                            assert!(set.label(i).is_none_or(|label| (label as usize) < set.classes().len()));
                            if let Ok(picture) = set.get(i) {
                                assert_eq!(picture.format(), set.format());
                            }
                            let _ = (set.name(i), set.key(i));
                        }
                    }
                }
                Err(error) => assert!(!error.to_string().contains('\n')),
            }
        },
    );
}
