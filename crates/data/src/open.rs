//! From what the user gives as data to training and test splits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_augment::{Picture, PixelFormat};

use crate::drawn::Synthetic;
use crate::synthetic::Split;
use crate::{DataError, Dataset, ImageFolder, Reading, Splits, Subset, binary, list, npy, subset};

/// Drawn images for training, unless a number is given.
const DRAWN_TRAIN: usize = 10_000;
/// Drawn images for testing, unless a number is given.
const DRAWN_TEST: usize = 2_000;
/// The most images held out for testing where no test split is given.
const MAX_HOLD_OUT: usize = 10_000;

/// As what images are read: the key `data.channels`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// Image files as 8-bit RGB; arrays as they are stored.
    #[default]
    Auto,
    /// 8-bit RGB; arrays of anything else are refused.
    Rgb,
    /// So many channels, 1 to 16, of the depth that is stored.
    Stored(usize),
}

impl Channels {
    /// How image files are read.
    pub fn reading(self) -> Reading {
        match self {
            Self::Auto | Self::Rgb => Reading::Rgb,
            Self::Stored(channels) => Reading::Channels(channels),
        }
    }

    /// Whether data of this format are what is asked for.
    pub(crate) fn check(self, format: PixelFormat) -> Result<(), DataError> {
        let wrong =
            |asked: String| Err(DataError::Invalid(format!("data.channels = {asked}, but the images have {format}")));
        match self {
            Self::Auto => Ok(()),
            Self::Rgb if format != PixelFormat::RGB => wrong("\"rgb\"".into()),
            Self::Stored(channels) if format.channels != channels => wrong(channels.to_string()),
            Self::Rgb | Self::Stored(_) => Ok(()),
        }
    }
}

/// How to open data; the defaults take everything there is.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Test images given apart; overrides any split found beside the training images.
    pub test: Option<PathBuf>,
    /// Train on the images only that this text file names, one a line, by the end of their path from a `/` on (`n01440764_10026.JPEG` or
    /// `n01440764/n01440764_10026.JPEG`).
    pub subset: Option<PathBuf>,
    /// Train on this many images only (those with the lowest hash of the name); for `synthetic` how many to draw.
    pub train_size: Option<usize>,
    /// Test on this many images only (those with the lowest hash of the name); for `synthetic` how many to draw.
    pub test_size: Option<usize>,
    /// Side of the drawn images, 32 to 96; only `synthetic` uses it.
    pub image_size: usize,
    /// As what images are read.
    pub channels: Channels,
    /// Seed of the drawn images; only `synthetic` uses it. Not the seed of the run: the data stay the same over seeds.
    pub seed: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            test: None,
            subset: None,
            train_size: None,
            test_size: None,
            image_size: 32,
            channels: Channels::Auto,
            seed: 0,
        }
    }
}

/// Opens `spec`: the word `synthetic`, a folder, or a file of a known format. Reads lists, not images.
///
/// A folder is CIFAR-10, CIFAR-100 or STL-10 if files of their names are in it; `train/` with `val/` or `test/` inside are
/// splits; else all images below it are taken, and a fifth (at most 10,000) is held out for testing, by the hash of the
/// path, so that it stays the same when other images come or go. First-level folders of a split are its classes.
/// The labels of the test split are those of the training split's classes, by name.
///
/// # Errors
/// A sentence for the user if there is nothing at `spec`, no image in it, a file has not the format its name says, the
/// test split has classes that the training split lacks, or test images would be trained on.
pub fn open(spec: impl AsRef<Path>, options: &OpenOptions) -> Result<Splits, DataError> {
    let spec = spec.as_ref();
    if options.train_size == Some(0) || options.test_size == Some(0) {
        return Err(DataError::Invalid("data.train_size and data.test_size must be at least 1".into()));
    }
    let mut found = find(spec, options)?;
    if let Some(test) = &options.test {
        replace_test(&mut found, test, options)?;
    }
    let Found { mut splits, .. } = found;
    check_formats(&splits, options.channels)?;
    if let Some(file) = &options.subset {
        let chosen = subset::named_in(splits.train.clone(), file)?;
        splits.notes.push(format!(
            "{} of {} training images are used, named by {}",
            chosen.len(),
            splits.train.len(),
            file.display()
        ));
        splits.train = Arc::new(chosen);
    }
    match_classes(&mut splits)?;
    if splits.test.is_none() {
        hold_out(&mut splits);
    }
    for (set, size, what) in
        [(Some(&mut splits.train), options.train_size, "train"), (splits.test.as_mut(), options.test_size, "test")]
    {
        let (Some(set), Some(size)) = (set, size) else { continue };
        if size > set.len() {
            splits.notes.push(format!("data.{what}_size is {size}, all {} images there are used", set.len()));
        } else if size < set.len() {
            splits.notes.push(format!("{size} of {} {what} images are used, chosen by hash of the name", set.len()));
            *set = Arc::new(Subset::by_key(set.clone(), size));
        }
    }
    Ok(splits)
}

/// All splits have the format that is asked for, and the same.
fn check_formats(splits: &Splits, channels: Channels) -> Result<(), DataError> {
    let format = splits.train.format();
    channels.check(format)?;
    for (set, what) in [(&splits.test, "test"), (&splits.labeled_train, "labeled training")] {
        if let Some(other) = set.as_ref().map(|set| set.format()).filter(|other| *other != format) {
            return Err(DataError::Invalid(format!(
                "the training images have {format}, the {what} images {other}: both need the same"
            )));
        }
    }
    Ok(())
}

/// Splits as they lie there, and the folder whose every image is trained on, if it is one.
struct Found {
    splits: Splits,
    train_root: Option<PathBuf>,
}

fn find(spec: &Path, options: &OpenOptions) -> Result<Found, DataError> {
    if spec.as_os_str() == "synthetic" {
        return Ok(Found { splits: drawn(options)?, train_root: None });
    }
    if spec.as_os_str().as_encoded_bytes().starts_with(b"hf://") {
        let problem = "data sets of the Hub cannot be read yet: download the images into a folder and give that";
        return Err(DataError::Invalid(format!("data {}: {problem}", spec.display())));
    }
    if spec.as_os_str().is_empty() || !spec.try_exists().map_err(|source| DataError::io("read", spec, source))? {
        return Err(DataError::Missing { path: spec.into() });
    }
    if let Some(splits) = binary::open(spec)? {
        return Ok(Found { splits, train_root: None });
    }
    if let Some(splits) = npy::open(spec)? {
        return Ok(Found { splits, train_root: None });
    }
    if !spec.is_dir() {
        return Err(DataError::format(spec, not_a_set(spec)));
    }
    let train_folder = spec.join("train");
    if !train_folder.is_dir() {
        return folder(spec, Vec::new(), options.channels.reading());
    }
    let there: Vec<&str> = ["val", "test"].into_iter().filter(|name| spec.join(name).is_dir()).collect();
    let Some(&test_name) = there.first() else {
        // A lone train/ is a split without its partner; beside other folders it is a class.
        let lone = std::fs::read_dir(spec)
            .map_err(|source| DataError::io("list", spec, source))?
            .flatten()
            .all(|entry| entry.file_name() == "train" || list::is_hidden(&entry.file_name()) || entry.path().is_file());
        return folder(if lone { &train_folder } else { spec }, Vec::new(), options.channels.reading());
    };
    let mut found = folder(&train_folder, Vec::new(), options.channels.reading())?;
    let (test, test_notes) = ImageFolder::open_as(&spec.join(test_name), options.channels.reading())?;
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
    Ok(Found { splits, train_root: Some(root.into()) })
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
        "this is a single image: give the folder that holds the images".into()
    } else if [".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z"].iter().any(|ending| name.ends_with(ending)) {
        "archives cannot be read yet: unpack it and give the folder".into()
    } else {
        "not a file of a known format: give a folder of images, or CIFAR's or STL-10's .bin files under their own names"
            .into()
    }
}

/// Puts the data at `test` in place of the test split.
fn replace_test(found: &mut Found, test: &Path, options: &OpenOptions) -> Result<(), DataError> {
    let other = find(test, options)?;
    let notes = &mut found.splits.notes;
    notes.extend(other.splits.notes);
    let set = match other.splits.test {
        Some(set) => {
            notes.push(format!("{}: its test split is used", test.display()));
            set
        }
        None => {
            // Without splits of its own it is taken whole; then none of it may be among the training images.
            if let (Some(train), Some(test_root)) = (&found.train_root, &other.train_root)
                && let (Ok(train_real), Ok(test_real)) = (train.canonicalize(), test_root.canonicalize())
                && test_real.starts_with(&train_real)
            {
                return Err(DataError::Invalid(format!(
                    "the test images in {} lie inside the training images in {}: they would be trained on; keep them in \
                     folders side by side (train/ and test/), or leave the test data out to hold some images out",
                    test.display(),
                    train.display()
                )));
            }
            other.splits.train
        }
    };
    found.splits.test = Some(set);
    Ok(())
}

/// Gives the test split the labels of the bank's classes, by name. A bank of one class is one without labels.
fn match_classes(splits: &mut Splits) -> Result<(), DataError> {
    let bank = splits.bank().classes().to_vec();
    if bank.len() == 1 {
        splits.notes.push(format!("all images lie in one folder ({}), so they are taken as unlabeled", bank[0]));
        splits.train = Arc::new(Relabeled { base: splits.train.clone(), map: Vec::new(), classes: Vec::new() });
        splits.test =
            splits.test.take().map(|base| Arc::new(Relabeled { base, map: Vec::new(), classes: Vec::new() }) as _);
        return Ok(());
    }
    let Some(test) = &mut splits.test else { return Ok(()) };
    if bank.is_empty() || test.classes().is_empty() || test.classes() == bank {
        if bank.is_empty() != test.classes().is_empty() {
            let (with, without) = if bank.is_empty() { ("test", "training") } else { ("training", "test") };
            splits
                .notes
                .push(format!("the {with} images have labels, the {without} images none: no accuracy can be measured"));
        }
        return Ok(());
    }
    let place = |class: &String| bank.iter().position(|known| known == class).map(|place| place as u32);
    let unknown: Vec<&str> = test.classes().iter().filter(|class| place(class).is_none()).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(DataError::Invalid(format!(
            "the test images have {} that the training images lack: {}{}; both need the same folder names",
            if unknown.len() == 1 { "a class".into() } else { format!("{} classes", unknown.len()) },
            unknown[..unknown.len().min(5)].join(", "),
            if unknown.len() > 5 { ", ..." } else { "" }
        )));
    }
    let map = test.classes().iter().filter_map(place).collect();
    *test = Arc::new(Relabeled { base: test.clone(), map, classes: bank });
    Ok(())
}

/// Splits a fifth off the bank for testing.
fn hold_out(splits: &mut Splits) {
    let n = (splits.bank().len() / 5).min(MAX_HOLD_OUT);
    if n == 0 {
        splits.notes.push("fewer than 5 images: none are held out for testing".into());
        return;
    }
    let (test, rest) = Subset::split_by_key(splits.bank().clone(), n);
    splits
        .notes
        .push(format!("no test split: {n} of {} images are held out for testing, by hash of the path", n + rest.len()));
    splits.test = Some(Arc::new(test));
    let rest: Arc<dyn Dataset> = Arc::new(rest);
    if splits.labeled_train.is_some() { splits.labeled_train = Some(rest) } else { splits.train = rest }
}

/// Another data set with other labels.
struct Relabeled {
    base: Arc<dyn Dataset>,
    /// The new label of each old one; unlabeled where there is none.
    map: Vec<u32>,
    classes: Vec<String>,
}

impl Dataset for Relabeled {
    fn len(&self) -> usize {
        self.base.len()
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        self.base.get(i)
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.base.label(i).and_then(|label| self.map.get(label as usize).copied())
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        self.base.name(i)
    }
    fn format(&self) -> PixelFormat {
        self.base.format()
    }
    fn fingerprint(&self) -> u64 {
        self.base.fingerprint()
    }
    fn key(&self, i: usize) -> u64 {
        self.base.key(i)
    }
    fn shared(&self, i: usize) -> Result<Arc<Picture>, DataError> {
        self.base.shared(i)
    }
}
