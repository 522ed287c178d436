//! Images in shards: files that hold many, tar or Parquet, each with an index that is made once.

pub(crate) mod find;
pub(crate) mod index;
pub(crate) mod read;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use diptych_augment::{Picture, PixelFormat};
use diptych_random::hash;

use crate::dataset::Fingerprint;
use crate::list::{display, plural};
use crate::source::Source;
use crate::{DataError, Dataset, Reading, Splits, decode, stored};
use index::{Index, UNLABELED};
pub use store::cache_folder;
use store::{Places, Values};

/// Shards up to this many are kept open: systems allow a process about a thousand files.
const KEPT_OPEN: usize = 256;
/// The most shards that are indexed at once: each may need the memory of a page.
const MAX_THREADS: usize = 4;
/// So many images are looked at to learn what is stored.
const LOOKS: usize = 16;

/// What a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tar,
    Parquet,
}

impl Kind {
    /// By the name's ending.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?;
        [("tar", Self::Tar), ("parquet", Self::Parquet)]
            .into_iter()
            .find_map(|(known, kind)| ending.eq_ignore_ascii_case(known).then_some(kind))
    }
}

/// One file, and what is known of it.
struct Shard {
    source: Source,
    values: Option<Source>,
    index: Index,
    /// The number of its first image.
    first: usize,
}

/// The images of tar files in webdataset's convention, or of Parquet files in Hugging Face's layout, in the order of the files and
/// of the images in them.
///
/// Images are read where they lie, in any order, by positional reads: what is in memory is an index of about 16 bytes per
/// image, and the names of a tar's members. The index is made at the first opening and kept in a file beside each
/// shard (`NAME.diptych-index`), or in a cache folder.
pub struct Shards {
    shards: Vec<Shard>,
    len: usize,
    labels: Option<Vec<u32>>,
    classes: Vec<String>,
    fingerprint: u64,
    reading: Reading,
    format: PixelFormat,
}

impl Shards {
    /// Opens these files, all `.tar` or all `.parquet`, in this order; the second part tells the user what was passed over.
    ///
    /// `class_names`, one per label, name the labels 0, 1, ...; where `None`, the names that a Parquet file says, else the
    /// labels themselves, as text. `reading` says as what images are decoded; what is stored is told by the first that can be read.
    ///
    /// # Errors
    /// If a file is missing, damaged, of another format, or holds no image that can be found; a label has no name; or the first image has
    /// other channels than are asked for.
    pub fn open(
        files: &[PathBuf],
        class_names: Option<Vec<String>>,
        reading: Reading,
    ) -> Result<(Self, Vec<String>), DataError> {
        Self::open_in(files, class_names, reading, store::cache_folder())
    }

    /// As [`open`](Self::open), with indexes that cannot lie beside their shards in the folder `cache`.
    fn open_in(
        files: &[PathBuf],
        class_names: Option<Vec<String>>,
        reading: Reading,
        cache: Option<PathBuf>,
    ) -> Result<(Self, Vec<String>), DataError> {
        let keep_open = files.len() <= KEPT_OPEN;
        let mut notes = Vec::new();
        let (mut shards, mut len) = (Vec::new(), 0);
        let mut fingerprint = Fingerprint::new("shards");
        for (path, known) in files.iter().zip(index_all(files, &cache)) {
            let (index, values) = known?;
            let cannot = |source| DataError::io("read", path, source);
            let source = Source::new(path.clone(), keep_open).map_err(cannot)?;
            let values = values.map(|path| Source::new(path, keep_open)).transpose().map_err(cannot)?;
            notes.extend(index.notes.iter().map(|note| format!("{}: {note}", path.display())));
            fingerprint.add(file_name(path).as_bytes());
            for row in &index.rows {
                fingerprint.add(&row.start.to_le_bytes());
                fingerprint.add(&row.len.to_le_bytes());
            }
            let count = index.rows.len();
            shards.push(Shard { source, values, index, first: len });
            len += count;
        }
        if len > u32::MAX as usize {
            return Err(DataError::Invalid(format!("{len} images are more than the {} that are counted", u32::MAX)));
        }
        const MOST: usize = 5;
        if notes.len() > MOST {
            let more = notes.len() - MOST;
            notes.truncate(MOST);
            notes.push(format!("and {more} more such {}", if more == 1 { "note" } else { "notes" }));
        }
        let (classes, labels) = label(&shards, len, class_names, &mut notes)?;
        let fingerprint = fingerprint.finish();
        let mut set = Self { shards, len, labels, classes, fingerprint, reading, format: PixelFormat::RGB };
        if let Reading::Channels(channels) = reading {
            set.format = set.stored_format(channels)?;
        }
        Ok((set, notes))
    }

    /// Channels and depth of the first image that can be read.
    fn stored_format(&self, channels: usize) -> Result<PixelFormat, DataError> {
        let mut reason = "there is none".to_owned();
        for i in 0..self.len.min(LOOKS) {
            let format = self.bytes(i).and_then(|bytes| {
                stored::format_of(&bytes).map_err(|reason| DataError::Decode { name: self.name(i), reason })
            });
            match format {
                Ok(format) if format.channels == channels => return Ok(format),
                Ok(format) => {
                    let name = self.name(i);
                    return Err(DataError::Invalid(format!(
                        "data.channels = {channels}, but image {name} has {format}"
                    )));
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(DataError::Invalid(format!("none of the first images can be read; {reason}")))
    }

    /// The shard that holds image `i`, and its place in there.
    fn place(&self, i: usize) -> (&Shard, usize) {
        let shard = &self.shards[self.shards.partition_point(|shard| shard.first <= i) - 1];
        (shard, i - shard.first)
    }

    /// The bytes of image `i`'s file.
    fn bytes(&self, i: usize) -> Result<Vec<u8>, DataError> {
        let (shard, row) = self.place(i);
        read::image(&shard.index, shard.index.rows[row], &shard.source, shard.values.as_ref())
            .map_err(|reason| DataError::Decode { name: self.name(i), reason })
    }
}

/// An index, and the path of its unpacked values.
type Indexed = (Index, Option<PathBuf>);

/// The indexes of all files up to the first that fails, in their order. Pages are unpacked for them, so several are made at once.
fn index_all(files: &[PathBuf], cache: &Option<PathBuf>) -> Vec<Result<Indexed, DataError>> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get()).min(MAX_THREADS);
    let next = AtomicUsize::new(0);
    let done: Vec<OnceLock<Result<Indexed, DataError>>> = files.iter().map(|_| OnceLock::new()).collect();
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let (Some(path), Some(place)) = (files.get(i), done.get(i)) else { return };
            let known = indexed(path, cache.clone());
            if known.is_err() {
                // Files are taken in order, so those before this one are at work and will be there.
                next.store(files.len(), Ordering::Relaxed);
            }
            place.set(known).ok();
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(files.len())).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    done.into_iter().map_while(OnceLock::into_inner).collect()
}

/// The index of one shard: read back, or made and kept.
fn indexed(path: &Path, cache: Option<PathBuf>) -> Result<Indexed, DataError> {
    let cannot = |source| DataError::io("read", path, source);
    let file = File::open(path).map_err(cannot)?;
    let data = file.metadata().map_err(cannot)?;
    if !data.is_file() {
        return Err(DataError::format(path, "it is no regular file: give a file, or the folder of the files"));
    }
    let places = Places::new(path, store::stamp(&data), cache);
    if let Some(kept) = places.load() {
        return Ok(kept);
    }
    #[cfg_attr(not(feature = "parquet"), allow(unused_mut))]
    let mut values = Values::new(&places);
    let mut index = match Kind::of(path) {
        Some(Kind::Tar) => crate::tar::index(path, &file, data.len())?,
        #[cfg(feature = "parquet")]
        Some(Kind::Parquet) => crate::parquet::index(path, &file, data.len(), &mut values)?,
        #[cfg(not(feature = "parquet"))]
        Some(Kind::Parquet) => {
            return Err(DataError::format(path, "this build reads no Parquet: build it with the feature parquet"));
        }
        None => return Err(DataError::format(path, "its name must end in .tar or .parquet")),
    };
    let (unpacked, values) = values.finish().map_err(|source| DataError::io("write", path, source))?;
    index.unpacked = unpacked;
    places.save(&index, values.as_deref());
    Ok((index, values))
}

/// The classes, and one label per image; none where an image has none.
fn label(
    shards: &[Shard],
    len: usize,
    class_names: Option<Vec<String>>,
    notes: &mut Vec<String>,
) -> Result<(Vec<String>, Option<Vec<u32>>), DataError> {
    let unlabeled = shards.iter().flat_map(|shard| &shard.index.rows).filter(|row| row.label == UNLABELED).count();
    if unlabeled > 0 || len == 0 {
        if unlabeled < len {
            notes.push(format!("{unlabeled} of {len} images have no label, so the labels of the others are not used"));
        }
        return Ok((Vec::new(), None));
    }
    let texts: BTreeSet<&str> = shards.iter().flat_map(|shard| &shard.index.labels).map(String::as_str).collect();
    let numbers: Option<Vec<i64>> = texts.iter().map(|text| text.parse().ok()).collect();
    let said = shards.iter().map(|shard| &shard.index.classes).find(|classes| !classes.is_empty());
    let classes = match (class_names.as_ref().or(said), numbers) {
        (Some(names), Some(numbers)) => {
            if let Some(number) = numbers.iter().find(|number| !(0..names.len() as i64).contains(number)) {
                let text = number.to_string();
                let shard = shards.iter().find(|shard| shard.index.labels.contains(&text)).unwrap_or(&shards[0]);
                return Err(DataError::format(
                    shard.source.path(),
                    format!(
                        "an image has label {number}, and there are names for the labels 0 to {} only: name every label, or none",
                        names.len() as i64 - 1
                    ),
                ));
            }
            names.clone()
        }
        (None, Some(mut numbers)) => {
            numbers.sort_unstable();
            numbers.iter().map(i64::to_string).collect()
        }
        (_, None) => texts.iter().map(|text| display(text.as_bytes())).collect(),
    };
    let named = class_names.is_some() || said.is_some();
    let places: BTreeMap<&str, u32> = classes.iter().zip(0..).map(|(class, place)| (class.as_str(), place)).collect();
    let place = |text: &String| match text.parse::<usize>() {
        Ok(number) if named && number < classes.len() => Some(number as u32),
        _ => places.get(display(text.as_bytes()).as_str()).copied(),
    };
    let mut labels = Vec::with_capacity(len);
    for shard in shards {
        let map: Vec<Option<u32>> = shard.index.labels.iter().map(place).collect();
        labels.extend(shard.index.rows.iter().filter_map(|row| map[row.label as usize]));
    }
    Ok((classes, (labels.len() == len).then_some(labels)))
}

/// Opens the files of a data set by their splits; class names are read from a `classes.txt` in one of the folders, one per line.
///
/// # Errors
/// As [`Shards::open`], and if `classes.txt` cannot be read.
pub(crate) fn open_splits(
    data: &str,
    found: find::Found,
    folders: &[PathBuf],
    reading: Reading,
    cache: Option<PathBuf>,
) -> Result<Splits, DataError> {
    let mut notes = found.notes;
    let listed = folders.iter().map(|folder| folder.join("classes.txt")).find(|path| path.is_file());
    let names = listed.map(|path| read_names(&path)).transpose()?;
    let mut opened = |files: &[PathBuf], what: &str| {
        let (set, more) = Shards::open_in(files, names.clone(), reading, cache.clone())?;
        notes.extend(more);
        let kind = match set.classes.len() {
            0 => "unlabeled".to_owned(),
            n => format!("{n} {}", if n == 1 { "class" } else { "classes" }),
        };
        let (len, count) = (set.len, files.len());
        notes.push(format!("{data}: {len} {what}images in {count} {}, {kind}", plural(count, "file")));
        Ok::<_, DataError>(Arc::new(set) as Arc<dyn Dataset>)
    };
    let split = !found.test.is_empty();
    let train = opened(&found.train, if split { "training " } else { "" })?;
    let test = if split { Some(opened(&found.test, "test ")?) } else { None };
    Ok(Splits { train, test, labeled_train: None, notes })
}

/// The lines of `classes.txt`.
fn read_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|source| DataError::io("read", path, source))?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    match names.iter().position(String::is_empty) {
        Some(line) => {
            Err(DataError::format(path, format!("line {} is empty: expected one class name per line", line + 1)))
        }
        None => Ok(names),
    }
}

/// A path's last part, for messages.
pub(crate) fn file_name(path: &Path) -> String {
    display(path.file_name().unwrap_or_default().as_encoded_bytes())
}

impl Dataset for Shards {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        decode(&self.name(i), &self.bytes(i)?, self.reading)
    }
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.bytes(i).map(Some)
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[i])
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        let (shard, row) = self.place(i);
        let file = file_name(shard.source.path());
        match shard.index.names.get(row) {
            Some(name) => format!("{file}/{}", display(name)),
            None => format!("{file}[{row}]"),
        }
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn format(&self) -> PixelFormat {
        self.format
    }
    fn key(&self, i: usize) -> u64 {
        let (shard, row) = self.place(i);
        // A member keeps its key when the set is divided into other shards; a row has only its place.
        shard.index.names.get(row).map_or_else(|| hash(self.name(i).as_bytes()), hash)
    }
}
