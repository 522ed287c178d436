//! From what the user gives as data to training and test splits.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use diptych_augment::{MAX_CHANNELS, Picture, PixelFormat};

use crate::find::{Found, find};
use crate::{DataError, Dataset, Reading, Splits, Subset, subset};

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

/// `auto`, `rgb` or a number of channels.
impl FromStr for Channels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("rgb", _) => Ok(Self::Rgb),
            (_, Ok(count @ 1..=MAX_CHANNELS)) => Ok(Self::Stored(count)),
            _ => Err(format!("expected auto, rgb or a number of channels, 1 to {MAX_CHANNELS}")),
        }
    }
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

/// Opens `spec`: the word `synthetic`, a folder, a file of a known format (a packed one is told by its content), a pattern of shards such as `shards-{000..012}.tar`, or
/// `hf://owner/name[@revision][/subfolder]`. Reads lists, not images.
///
/// Tar and Parquet files are [`Shards`](crate::Shards); in a folder of them, names such as `train-00000.parquet` or `val/000.tar` say the splits.
///
/// A folder is CIFAR-10, CIFAR-100 or STL-10 if files of their names are in it, and PASCAL VOC if `ImageSets/Main/` and `JPEGImages/` are; `train/` with `val/` or `test/` inside are
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
    settle(gather(spec, options)?, options)
}

/// The images at `spec` as they lie there, before any are chosen, classes matched and images held out: what a packed file keeps.
pub(crate) fn gather(spec: &Path, options: &OpenOptions) -> Result<Splits, DataError> {
    let mut found = find(spec, options)?;
    if let Some(test) = &options.test {
        replace_test(&mut found, test, options)?;
    }
    check_formats(&found.splits, options.channels)?;
    Ok(found.splits)
}

/// The second half of [`open`], after [`gather`].
pub(crate) fn settle(mut splits: Splits, options: &OpenOptions) -> Result<Splits, DataError> {
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
            let real =
                |paths: &[PathBuf]| -> Vec<PathBuf> { paths.iter().flat_map(|path| path.canonicalize()).collect() };
            let (train, tests) = (real(&found.trained), real(&other.trained));
            if let Some(train) = train.iter().find(|train| tests.iter().any(|test| test.starts_with(train))) {
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
            "the test images have {} that the training images lack: {}{}; both need the same class names",
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
    fn targets(&self, i: usize) -> Option<&[i8]> {
        self.base.targets(i)
    }
    fn target_classes(&self) -> &[String] {
        self.base.target_classes()
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
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.base.encoded(i)
    }
}
