//! NumPy arrays of images: `[N, H, W, C]` or `[N, H, W]` of u8, u16 or f32, read picture by picture.
//!
//! Labels are in a second array of N whole numbers beside them, `NAME.labels.npy` for `NAME.npy`; names of the classes, one a line, in
//! `NAME.classes.txt`, where there is one.

mod header;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_augment::{Depth, MAX_CHANNELS, Picture, PixelFormat, Raster, Samples};
use header::{Header, Kind};

use crate::dataset::Fingerprint;
use crate::decode::MAX_PIXELS;
use crate::source::Source;
use crate::{DataError, Dataset, Splits};

/// The most classes that numbers may name without a file of their names.
const MAX_CLASSES: i64 = 1 << 20;

/// The images of one `.npy` file.
pub struct ArrayImages {
    source: Source,
    header: Header,
    len: usize,
    height: usize,
    width: usize,
    format: PixelFormat,
    labels: Option<Vec<u32>>,
    classes: Vec<String>,
    fingerprint: u64,
}

impl ArrayImages {
    /// Opens an array, and its labels where there are some.
    ///
    /// # Errors
    /// If it is no array of images, the file is shorter than its header says, or the labels are not of these images.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let wrong = |problem: String| DataError::format(path, problem);
        let (source, header, bytes) = open_array(path)?;
        let (len, height, width, channels) = match header.shape[..] {
            [n, h, w, c] => (n, h, w, c),
            [n, h, w] => (n, h, w, 1),
            _ => return Err(wrong(format!("its shape is {:?}: images are [N, H, W, C] or [N, H, W]", header.shape))),
        };
        let depth = match header.kind {
            Kind::U8 => Depth::U8,
            Kind::U16 => Depth::U16,
            Kind::F32 => Depth::F32,
            Kind::I32 | Kind::I64 => {
                return Err(wrong(
                    "its numbers are signed integers: images are u8, u16 or f32, as in images.astype('float32')".into(),
                ));
            }
        };
        if !(1..=MAX_CHANNELS).contains(&channels) {
            let channels_first = (1..=MAX_CHANNELS).contains(&height);
            let hint = if channels_first {
                ": it looks like [N, C, H, W], save images.transpose(0, 2, 3, 1).copy()"
            } else {
                ""
            };
            return Err(wrong(format!(
                "its shape {:?} has {channels} channels, 1 to {MAX_CHANNELS} are read{hint}",
                header.shape
            )));
        }
        if len == 0
            || height == 0
            || width == 0
            || height as u64 > MAX_PIXELS
            || width as u64 * height as u64 > MAX_PIXELS
        {
            return Err(wrong(format!(
                "its shape is {:?}: there must be pixels, and at most {MAX_PIXELS} in an image",
                header.shape
            )));
        }
        check_length(path, &header, bytes)?;
        let mut fingerprint = Fingerprint::new("array");
        fingerprint.add(path.file_name().unwrap_or_default().as_encoded_bytes());
        header.shape.iter().for_each(|length| fingerprint.add(&(*length as u64).to_le_bytes()));
        let (labels, classes) = labels_beside(path, len)?;
        Ok(Self {
            source,
            len,
            height,
            width,
            format: PixelFormat { channels, depth },
            labels,
            classes,
            fingerprint: fingerprint.finish(),
            header,
        })
    }
}

/// A file, its header, and its length in bytes.
fn open_array(path: &Path) -> Result<(Source, Header, u64), DataError> {
    let cannot = |source| DataError::io("read", path, source);
    let file = File::open(path).map_err(cannot)?;
    let bytes = file.metadata().map_err(cannot)?.len();
    let mut head = Vec::new();
    file.take(Header::MOST as u64).read_to_end(&mut head).map_err(cannot)?;
    let header = Header::parse(&head).map_err(|problem| DataError::format(path, problem))?;
    Ok((Source::new(path.into(), true).map_err(cannot)?, header, bytes))
}

/// Whether the file is as long as its header says.
fn check_length(path: &Path, header: &Header, bytes: u64) -> Result<(), DataError> {
    let numbers = header.shape.iter().try_fold(header.kind.size() as u64, |n, length| n.checked_mul(*length as u64));
    match numbers.and_then(|numbers| numbers.checked_add(header.start)) {
        Some(expected) if expected <= bytes => Ok(()),
        expected => {
            let expected = expected.map_or("more than there can be".into(), |n| format!("{n} bytes"));
            Err(DataError::format(
                path,
                format!("its header says {expected}, the file has {bytes} bytes: is it complete?"),
            ))
        }
    }
}

/// `NAME.npy` as `NAME` + `ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// The labels in the array beside the images, and the names of their classes.
fn labels_beside(images: &Path, len: usize) -> Result<(Option<Vec<u32>>, Vec<String>), DataError> {
    let path = beside(images, ".labels.npy");
    if !path.is_file() {
        return Ok((None, Vec::new()));
    }
    let (source, header, bytes) = open_array(&path)?;
    if header.shape != [len] {
        let problem = format!("its shape is {:?}, expected [{len}], one label for each image", header.shape);
        return Err(DataError::format(path, problem));
    }
    check_length(&path, &header, bytes)?;
    let mut raw = vec![0; len * header.kind.size()];
    source.read(header.start, &mut raw).map_err(|source| DataError::io("read", &path, source))?;
    let numbers: Vec<i64> = match header.kind {
        Kind::U8 => raw.iter().map(|v| i64::from(*v)).collect(),
        Kind::U16 => words(&raw, header.big_endian, u16::from_le_bytes).map(i64::from).collect(),
        Kind::I32 => words(&raw, header.big_endian, i32::from_le_bytes).map(i64::from).collect(),
        Kind::I64 => words(&raw, header.big_endian, i64::from_le_bytes).collect(),
        Kind::F32 => return Err(DataError::format(path, "its labels are f32, expected whole numbers")),
    };
    let names = std::fs::read_to_string(beside(images, ".classes.txt")).unwrap_or_default();
    let mut classes: Vec<String> =
        names.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let most = if classes.is_empty() { MAX_CLASSES } else { classes.len() as i64 };
    if let Some(i) = numbers.iter().position(|label| !(0..most).contains(label)) {
        return Err(DataError::format(path, format!("label {i} is {}, expected 0 to {}", numbers[i], most - 1)));
    }
    if classes.is_empty() {
        let count = numbers.iter().max().map_or(0, |most| most + 1);
        let digits = (count - 1).max(0).to_string().len();
        classes = (0..count).map(|class| format!("class {class:0digits$}")).collect();
    }
    Ok((Some(numbers.into_iter().map(|label| label as u32).collect()), classes))
}

/// Numbers of `W` bytes each.
fn words<const W: usize, T>(raw: &[u8], big_endian: bool, read: fn([u8; W]) -> T) -> impl Iterator<Item = T> {
    raw.as_chunks::<W>().0.iter().map(move |bytes| {
        let mut bytes = *bytes;
        if big_endian {
            bytes.reverse();
        }
        read(bytes)
    })
}

impl Dataset for ArrayImages {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        let PixelFormat { channels, depth } = self.format;
        let numbers = self.width * self.height * channels;
        let mut raw = vec![0; numbers * depth.size()];
        let at = self.header.start + i as u64 * raw.len() as u64;
        self.source.read(at, &mut raw).map_err(|source| DataError::io("read", self.source.path(), source))?;
        let big_endian = self.header.big_endian;
        let samples = match depth {
            Depth::U8 => Samples::U8(raw),
            Depth::U16 => Samples::U16(words(&raw, big_endian, u16::from_le_bytes).collect()),
            Depth::F32 => Samples::F32(words(&raw, big_endian, f32::from_le_bytes).collect()),
        };
        let failed = |reason: String| DataError::Decode { name: self.name(i), reason };
        let raster =
            Raster::new(self.width, self.height, channels, samples).map_err(|error| failed(error.to_string()))?;
        if !raster.is_finite() {
            return Err(failed("it holds numbers that are infinite or not a number".into()));
        }
        Ok(raster.into())
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[i])
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        format!("{}[{i}]", self.source.path().file_name().unwrap_or_default().display())
    }
    fn format(&self) -> PixelFormat {
        self.format
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Whether `path` ends as an array does.
fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"))
}

/// The splits of an array, or of a folder that holds `train.npy`, perhaps with `val.npy` or `test.npy`; `None` if it is neither.
///
/// # Errors
/// As [`ArrayImages::open`].
pub(crate) fn open(path: &Path) -> Result<Option<Splits>, DataError> {
    let shared = |path: &Path| ArrayImages::open(path).map(|set| Arc::new(set) as Arc<dyn Dataset>);
    let (train, test) = if path.is_file() && is_array(path) {
        (shared(path)?, None)
    } else if path.join("train.npy").is_file() {
        let test = ["val.npy", "test.npy"].iter().map(|name| path.join(name)).find(|path| path.is_file());
        (shared(&path.join("train.npy"))?, test.map(|path| shared(&path)).transpose()?)
    } else {
        return Ok(None);
    };
    let mut note = format!("{}: {} images of {}", path.display(), train.len(), train.format());
    if let Some(test) = &test {
        note.push_str(&format!(", {} test images", test.len()));
    }
    match train.classes().len() {
        0 => note.push_str(", unlabeled"),
        n => note.push_str(&format!(", {n} classes")),
    }
    Ok(Some(Splits { train, test, labeled_train: None, notes: vec![note] }))
}
