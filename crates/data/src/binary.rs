//! CIFAR-10, CIFAR-100 and STL-10 in their binary distributions, told by the names of their files.
//!
//! Pictures are read from the files one by one as they are needed: the system's cache keeps what fits. Both formats
//! store three planes (red, green, blue); CIFAR's run along the rows, STL-10's along the columns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_augment::{Image, Picture};

use crate::dataset::Fingerprint;
use crate::source::Source;
use crate::{DataError, Dataset, Splits};

const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const STL10: [&str; 10] = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];

/// What the records of a file are.
struct Layout {
    /// The data set's name, for messages.
    name: &'static str,
    /// Bytes before the pixels; the last of them is the label.
    header: usize,
    side: usize,
    by_columns: bool,
}

const CIFAR10_LAYOUT: Layout = Layout { name: "CIFAR-10", header: 1, side: 32, by_columns: false };
/// The first byte is the coarse label, the second the fine one.
const CIFAR100_LAYOUT: Layout = Layout { name: "CIFAR-100", header: 2, side: 32, by_columns: false };
const STL10_LAYOUT: Layout = Layout { name: "STL-10", header: 0, side: 96, by_columns: true };

impl Layout {
    fn record(&self) -> usize {
        self.header + self.side * self.side * 3
    }
}

/// One file of records.
struct Part {
    source: Source,
    len: usize,
}

/// The images of one or more files of equal records.
pub struct BinaryImages {
    layout: &'static Layout,
    parts: Vec<Part>,
    len: usize,
    labels: Option<Vec<u32>>,
    classes: Vec<String>,
    fingerprint: u64,
}

impl BinaryImages {
    /// Opens files and counts their records; labels come later.
    fn open(layout: &'static Layout, paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut parts = Vec::new();
        let mut fingerprint = Fingerprint::new(layout.name);
        for path in paths {
            let cannot = |source| DataError::io("read", path, source);
            let source = Source::new(path.clone(), true).map_err(cannot)?;
            let bytes = std::fs::metadata(path).map_err(cannot)?.len();
            let record = layout.record() as u64;
            if bytes == 0 || bytes % record != 0 {
                return Err(DataError::format(
                    path,
                    format!(
                        "its {bytes} bytes are not a whole number of {} records of {record} bytes: is it complete, unpacked, \
                         and the binary version?",
                        layout.name
                    ),
                ));
            }
            fingerprint.add(path.file_name().unwrap_or_default().as_encoded_bytes());
            fingerprint.add(&bytes.to_le_bytes());
            parts.push(Part { source, len: (bytes / record) as usize });
        }
        let len = parts.iter().map(|part| part.len).sum();
        Ok(Self { layout, parts, len, labels: None, classes: Vec::new(), fingerprint: fingerprint.finish() })
    }

    /// The part that holds image `i`, and its place in there.
    fn place(&self, mut i: usize) -> Result<(&Part, usize), DataError> {
        for part in &self.parts {
            if i < part.len {
                return Ok((part, i));
            }
            i -= part.len;
        }
        Err(DataError::Invalid(format!("{}: there is no image {i} past the last", self.layout.name)))
    }

    fn read(&self, i: usize, offset: usize, buffer: &mut [u8]) -> Result<(), DataError> {
        let (part, record) = self.place(i)?;
        let at = record as u64 * self.layout.record() as u64 + offset as u64;
        part.source.read(at, buffer).map_err(|source| DataError::io("read", part.source.path(), source))
    }

    /// Takes the labels from the records' headers.
    fn with_header_labels(self, classes: Vec<String>) -> Result<Self, DataError> {
        let mut labels = Vec::with_capacity(self.len);
        for i in 0..self.len {
            let mut label = [0];
            self.read(i, self.layout.header - 1, &mut label)?;
            labels.push(u32::from(label[0]));
        }
        let wrong = labels.iter().position(|&label| label as usize >= classes.len());
        if let Some(i) = wrong {
            let (part, record) = self.place(i)?;
            let problem = format!(
                "record {record} has label {}, {} has labels 0 to {}: is it the binary version of {}?",
                labels[i],
                self.layout.name,
                classes.len() - 1,
                self.layout.name
            );
            return Err(DataError::format(part.source.path(), problem));
        }
        Ok(Self { labels: Some(labels), classes, ..self })
    }

    /// Takes the labels, one byte each, counted from 1, from a file beside the pictures.
    fn with_label_file(self, path: &Path, classes: Vec<String>) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|source| DataError::io("read", path, source))?;
        if bytes.len() != self.len {
            let problem =
                format!("it has {} labels for {} images: the two files do not belong together", bytes.len(), self.len);
            return Err(DataError::format(path, problem));
        }
        if let Some(i) = bytes.iter().position(|&label| label == 0 || usize::from(label) > classes.len()) {
            let problem = format!("label {i} is {}, {} has labels 1 to {}", bytes[i], self.layout.name, classes.len());
            return Err(DataError::format(path, problem));
        }
        Ok(Self { labels: Some(bytes.iter().map(|&label| u32::from(label) - 1).collect()), classes, ..self })
    }
}

impl Dataset for BinaryImages {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        let side = self.layout.side;
        let mut planes = vec![0; side * side * 3];
        self.read(i, self.layout.header, &mut planes)?;
        let mut pixels = vec![0; planes.len()];
        let (red, others) = planes.split_at(side * side);
        let (green, blue) = others.split_at(side * side);
        let (pixel, _) = pixels.as_chunks_mut::<3>();
        if self.layout.by_columns {
            for (to, pixel) in pixel.iter_mut().enumerate() {
                let at = to % side * side + to / side;
                *pixel = [red[at], green[at], blue[at]];
            }
        } else {
            let channels = red.iter().zip(green).zip(blue);
            pixel.iter_mut().zip(channels).for_each(|(pixel, ((r, g), b))| *pixel = [*r, *g, *b]);
        }
        Ok(Image { width: side, height: side, pixels }.into())
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[i])
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        self.place(i).map_or_else(
            |error| error.to_string(),
            |(part, record)| format!("{}[{record}]", part.source.path().file_name().unwrap_or_default().display()),
        )
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The splits of a folder of one of the formats, or of one of its files; `None` if it is neither.
///
/// # Errors
/// If files are missing, cut off, or of another format than their names say.
pub(crate) fn open(path: &Path) -> Result<Option<Splits>, DataError> {
    if path.is_file() {
        return open_file(path);
    }
    for inside in ["", "cifar-10-batches-bin", "cifar-100-binary", "stl10_binary"] {
        let folder = path.join(inside);
        let has = |name: &str| folder.join(name).is_file();
        if (1..=5).any(|i| has(&format!("data_batch_{i}.bin"))) {
            return cifar10(&folder).map(Some);
        }
        if has("train_X.bin") || has("unlabeled_X.bin") {
            return stl10(&folder).map(Some);
        }
        if has("train.bin") {
            return cifar100(&folder).map(Some);
        }
        if has("data_batch_1") || (has("train") && has("meta")) {
            let problem = "this is CIFAR's Python version, which is pickled: get the binary version (the file ending in -binary.tar.gz)";
            return Err(DataError::format(folder, problem));
        }
    }
    Ok(None)
}

fn open_file(path: &Path) -> Result<Option<Splits>, DataError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let set = match &*name {
        "train.bin" | "test.bin" => cifar100_part(folder, path)?,
        "unlabeled_X.bin" => BinaryImages::open(&STL10_LAYOUT, &[path.into()])?,
        "train_X.bin" | "test_X.bin" => stl10_part(folder, name.trim_end_matches("_X.bin"))?,
        name if name.ends_with(".bin") && (name.starts_with("data_batch") || name.starts_with("test_batch")) => {
            cifar10_part(folder, &[path.into()])?
        }
        _ => return Ok(None),
    };
    Ok(Some(Splits { train: Arc::new(set), test: None, labeled_train: None, notes: Vec::new() }))
}

fn cifar10(folder: &Path) -> Result<Splits, DataError> {
    let all: Vec<PathBuf> = (1..=5).map(|i| folder.join(format!("data_batch_{i}.bin"))).collect();
    let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) = all.into_iter().partition(|path| path.is_file());
    let train = cifar10_part(folder, &there)?;
    let test_path = folder.join("test_batch.bin");
    let test = if test_path.is_file() { Some(cifar10_part(folder, &[test_path])?) } else { None };
    let mut splits = splits("CIFAR-10 binary files", train, test, None);
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
        splits.notes.push(format!("missing from CIFAR-10: {}", names.join(", ")));
    }
    Ok(splits)
}

fn cifar10_part(folder: &Path, paths: &[PathBuf]) -> Result<BinaryImages, DataError> {
    BinaryImages::open(&CIFAR10_LAYOUT, paths)?.with_header_labels(names(&folder.join("batches.meta.txt"), &CIFAR10))
}

fn cifar100(folder: &Path) -> Result<Splits, DataError> {
    let train = cifar100_part(folder, &folder.join("train.bin"))?;
    let test_path = folder.join("test.bin");
    let test = if test_path.is_file() { Some(cifar100_part(folder, &test_path)?) } else { None };
    Ok(splits("CIFAR-100 binary files, fine labels", train, test, None))
}

fn cifar100_part(folder: &Path, path: &Path) -> Result<BinaryImages, DataError> {
    let numbers: Vec<String> = (0..100).map(|i| format!("class {i:02}")).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let classes = names(&folder.join("fine_label_names.txt"), &numbers);
    BinaryImages::open(&CIFAR100_LAYOUT, &[path.into()])?.with_header_labels(classes)
}

/// Pretrains on the unlabeled images where they are there; the labeled ones then serve as the bank.
fn stl10(folder: &Path) -> Result<Splits, DataError> {
    let part = |name: &str| -> Result<Option<BinaryImages>, DataError> {
        if folder.join(format!("{name}_X.bin")).is_file() { stl10_part(folder, name).map(Some) } else { Ok(None) }
    };
    let unlabeled_path = folder.join("unlabeled_X.bin");
    let unlabeled =
        if unlabeled_path.is_file() { Some(BinaryImages::open(&STL10_LAYOUT, &[unlabeled_path])?) } else { None };
    let test = part("test")?;
    match (unlabeled, part("train")?) {
        (Some(unlabeled), labeled) => {
            Ok(splits("STL-10 binary files, pretraining on the unlabeled images", unlabeled, test, labeled))
        }
        (None, Some(labeled)) => Ok(splits("STL-10 binary files, no unlabeled_X.bin there", labeled, test, None)),
        (None, None) => Err(DataError::format(folder, "neither train_X.bin nor unlabeled_X.bin of STL-10 is there")),
    }
}

fn stl10_part(folder: &Path, part: &str) -> Result<BinaryImages, DataError> {
    let classes = names(&folder.join("class_names.txt"), &STL10);
    let labels = folder.join(format!("{part}_y.bin"));
    BinaryImages::open(&STL10_LAYOUT, &[folder.join(format!("{part}_X.bin"))])?.with_label_file(&labels, classes)
}

fn splits(what: &str, train: BinaryImages, test: Option<BinaryImages>, labeled: Option<BinaryImages>) -> Splits {
    let count = |set: &Option<BinaryImages>| set.as_ref().map_or(0, |set| set.len);
    let mut note = format!("{what}: {} training and {} test images", train.len, count(&test));
    if labeled.is_some() {
        note.push_str(&format!(", {} labeled training images as the bank", count(&labeled)));
    }
    let shared = |set: Option<BinaryImages>| set.map(|set| Arc::new(set) as Arc<dyn Dataset>);
    Splits { train: Arc::new(train), test: shared(test), labeled_train: shared(labeled), notes: vec![note] }
}

/// One class name per line of a file; `known` where the file is not there or has another number of lines.
fn names(path: &Path, known: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let names = if lines.len() == known.len() { &lines } else { known };
    names.iter().map(|name| (*name).to_owned()).collect()
}
