//! What lies where the user points: which format it is, and which splits it has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drawn::Synthetic;
use crate::synthetic::Split;
use crate::{DataError, Dataset, ImageFolder, OpenOptions, Reading, Splits, binary, list, npy, packed, shards, voc};

/// Drawn images for training, unless a number is given.
const DRAWN_TRAIN: usize = 10_000;
/// Drawn images for testing, unless a number is given.
const DRAWN_TEST: usize = 2_000;
/// Splits as they lie there, and the folders and files whose every image is trained on.
pub(crate) struct Found {
    pub(crate) splits: Splits,
    pub(crate) trained: Vec<PathBuf>,
}

fn exists(path: &Path) -> Result<bool, DataError> {
    match path.try_exists() {
        // No file has such a name; a pattern with many alternatives may.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidFilename => Ok(false),
        other => other.map_err(|source| DataError::io("read", path, source)),
    }
}

/// Opens what lies at `spec`, with the splits that are there.
///
/// # Errors
/// As [`open`](crate::open), but for what concerns two data sets.
pub(crate) fn find(spec: &Path, options: &OpenOptions) -> Result<Found, DataError> {
    if spec.as_os_str() == "synthetic" {
        return Ok(Found { splits: drawn(options)?, trained: Vec::new() });
    }
    let reading = options.channels.reading();
    if let Some(address) = spec.to_str().and_then(|text| text.strip_prefix("hf://")) {
        return of_hub(address, reading);
    }
    let there = !spec.as_os_str().is_empty() && exists(spec)?;
    if !there {
        // A pattern names no file itself.
        let Some(found) = shards::find::find(spec)? else { return Err(DataError::Missing { path: spec.into() }) };
        return of_shards(spec, found, reading);
    }
    if let Some(splits) = packed::open(spec)? {
        return Ok(Found { splits, trained: vec![spec.into()] });
    }
    if let Some(splits) = binary::open(spec)? {
        return Ok(Found { splits, trained: Vec::new() });
    }
    if let Some(found) = shards::find::find(spec)? {
        return of_shards(spec, found, reading);
    }
    if let Some(splits) = npy::open(spec)? {
        return Ok(Found { splits, trained: vec![spec.into()] });
    }
    if !spec.is_dir() {
        return Err(DataError::format(spec, not_a_set(spec)));
    }
    if let Some(splits) = voc::open(spec)? {
        return Ok(Found { splits, trained: vec![spec.join("JPEGImages")] });
    }
    let train_folder = spec.join("train");
    if !train_folder.is_dir() {
        return folder(spec, Vec::new(), reading);
    }
    let there: Vec<&str> = ["val", "test"].into_iter().filter(|name| spec.join(name).is_dir()).collect();
    let Some(&test_name) = there.first() else {
        // A lone train/ is a split without its partner; beside other folders it is a class.
        let lone = std::fs::read_dir(spec)
            .map_err(|source| DataError::io("list", spec, source))?
            .flatten()
            .all(|entry| entry.file_name() == "train" || list::is_hidden(&entry.file_name()) || entry.path().is_file());
        return folder(if lone { &train_folder } else { spec }, Vec::new(), reading);
    };
    let mut found = folder(&train_folder, Vec::new(), reading)?;
    let (test, test_notes) = ImageFolder::open_as(&spec.join(test_name), reading)?;
    found.splits.notes.extend(test_notes);
    found.splits.notes.push(format!("{}: train/ and {test_name}/ are the splits", spec.display()));
    if let Some(other) = there.get(1) {
        found
            .splits
            .notes
            .push(format!("{}: {other}/ is left alone; give it as the test data to use it", spec.display()));
    }
    found.splits.test = Some(Arc::new(test));
    Ok(found)
}

/// All images below one folder.
fn folder(root: &Path, mut notes: Vec<String>, reading: Reading) -> Result<Found, DataError> {
    let (set, more) = ImageFolder::open_as(root, reading)?;
    notes.extend(more);
    let kind = match set.classes().len() {
        0 => "unlabeled".to_owned(),
        n => format!("{n} {}", if n == 1 { "folder" } else { "classes" }),
    };
    notes.push(format!("{}: {} images, {kind}", root.display(), set.len()));
    let splits = Splits { train: Arc::new(set), test: None, labeled_train: None, notes };
    Ok(Found { splits, trained: vec![root.into()] })
}

/// The images of shards.
fn of_shards(spec: &Path, found: shards::find::Found, reading: Reading) -> Result<Found, DataError> {
    let mut folders = vec![spec.to_owned(), spec.join("data")];
    folders.extend(found.train.first().and_then(|file| file.parent()).map(Path::to_owned));
    let trained = found.train.clone();
    let splits =
        shards::open_splits(&spec.display().to_string(), found, &folders, reading, shards::store::cache_folder())?;
    Ok(Found { splits, trained })
}

/// The images of a repository of a hub.
#[cfg(feature = "hub")]
fn of_hub(address: &str, reading: Reading) -> Result<Found, DataError> {
    let (splits, trained) = crate::repository::open(address, reading)?;
    Ok(Found { splits, trained })
}

/// Without the feature `hub` there is no network.
#[cfg(not(feature = "hub"))]
fn of_hub(address: &str, _: Reading) -> Result<Found, DataError> {
    let problem = "this build reads no data sets of a hub: build it with the feature hub, or download the files and give their folder";
    Err(DataError::Invalid(format!("data hf://{address}: {problem}")))
}

fn drawn(options: &OpenOptions) -> Result<Splits, DataError> {
    let size = options.image_size;
    if !(32..=96).contains(&size) {
        return Err(DataError::Invalid(format!("data.image_size is {size}: drawn images have 32 to 96 pixels a side")));
    }
    let (train, test) = (options.train_size.unwrap_or(DRAWN_TRAIN), options.test_size.unwrap_or(DRAWN_TEST));
    let set = |split, len| Arc::new(Synthetic::new(options.seed, split, len, size)) as Arc<dyn Dataset>;
    Ok(Splits {
        train: set(Split::Train, train),
        test: Some(set(Split::Test, test)),
        labeled_train: None,
        notes: vec![format!(
            "synthetic: {train} training and {test} test images of {size} x {size}, drawn from seed {}",
            options.seed
        )],
    })
}

/// What to say of a file that is no data set.
fn not_a_set(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if list::is_image(path) {
        return "this is a single image: give the folder that holds the images".into();
    }
    let packed =
        [(".tgz", "gzip"), (".tar.gz", "gzip"), (".tar.zst", "zstd"), (".tar.xz", "xz"), (".tar.bz2", "bzip2")];
    if let Some((ending, tool)) = packed.into_iter().find(|(ending, _)| name.ends_with(ending)) {
        return format!(
            "a compressed tar cannot be read at random: unpack it once ({tool} -d < {name} > {}.tar) and give the .tar, or a folder",
            name.trim_end_matches(ending)
        );
    }
    if [".zip", ".gz", ".xz", ".bz2", ".zst", ".7z"].iter().any(|ending| name.ends_with(ending)) {
        return "such archives are not read: unpack it and give the folder".into();
    }
    "not a file of a known format: give a folder of images, .tar or .parquet files, or CIFAR's or STL-10's .bin files under their own names"
        .into()
}
