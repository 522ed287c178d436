//! A folder of image files, with classes where they lie in folders of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use diptych_augment::{Picture, PixelFormat};
use diptych_random::hash;

use crate::dataset::Fingerprint;
use crate::decode::read;
use crate::list::{self, Listing, display, path_bytes};
use crate::{DataError, Dataset, Reading, decode_file, stored};

/// The image files under a folder, sorted by the bytes of their paths.
///
/// Where every image lies in a folder below it, the first-level folders are the classes, sorted by the bytes of their
/// names, however deep the images are; else there are no labels.
pub struct ImageFolder {
    root: PathBuf,
    files: Vec<Box<Path>>,
    labels: Option<Vec<u32>>,
    classes: Vec<String>,
    fingerprint: u64,
    reading: Reading,
    format: PixelFormat,
}

impl ImageFolder {
    /// Lists the images under `root`, as 8-bit RGB; reads none. The second part tells the user what was found and passed over.
    ///
    /// # Errors
    /// If `root` cannot be listed or holds no image.
    pub fn open(root: &Path) -> Result<(Self, Vec<String>), DataError> {
        Self::open_as(root, Reading::Rgb)
    }

    /// As [`open`](Self::open), with the images read as `reading` says. What is stored is told by the first image that can be read.
    ///
    /// # Errors
    /// As [`open`](Self::open); and if the first image has other channels than are asked for.
    pub fn open_as(root: &Path, reading: Reading) -> Result<(Self, Vec<String>), DataError> {
        if !root.exists() {
            return Err(DataError::Missing { path: root.into() });
        }
        let listing = list::list(root)?;
        let passed_over = listing.passed_over();
        if listing.files.is_empty() {
            let found = if passed_over.is_empty() { "the folder is empty".into() } else { passed_over };
            return Err(DataError::Empty { path: root.into(), found, expected: list::ENDINGS });
        }
        let mut notes = Vec::new();
        if !passed_over.is_empty() {
            notes.push(format!("{}: passed over {passed_over}", root.display()));
        }
        let format = match reading {
            Reading::Rgb => PixelFormat::RGB,
            Reading::Channels(channels) => stored_format(root, &listing, channels)?,
        };
        let (classes, labels) = label(&listing, root, &mut notes);
        let mut fingerprint = Fingerprint::new("image folder");
        for file in &listing.files {
            fingerprint.add(&path_bytes(&file.path));
            fingerprint.add(&file.size.to_le_bytes());
        }
        let folder = Self {
            root: root.into(),
            files: listing.files.into_iter().map(|file| file.path.into_boxed_path()).collect(),
            labels,
            classes,
            fingerprint: fingerprint.finish(),
            reading,
            format,
        };
        Ok((folder, notes))
    }

    /// The picture, if its depth is that of the others.
    fn within_format(&self, i: usize, picture: Picture) -> Result<Picture, DataError> {
        if picture.format() == self.format {
            return Ok(picture);
        }
        let reason = format!("it has {}, the first image {}", picture.format(), self.format);
        Err(DataError::Decode { name: self.name(i), reason })
    }

    /// Where image `i` lies.
    pub fn path(&self, i: usize) -> PathBuf {
        self.root.join(&self.files[i])
    }
}

/// Images looked at for one that tells what is stored.
const LOOKS: usize = 20;

/// The format of the first image that can be read.
fn stored_format(root: &Path, listing: &Listing, channels: usize) -> Result<PixelFormat, DataError> {
    let mut reason = String::new();
    for file in listing.files.iter().take(LOOKS) {
        match read(&root.join(&file.path)).and_then(|bytes| stored::format_of(&bytes)) {
            Ok(format) if format.channels == channels => return Ok(format),
            Ok(format) => {
                let name = display(&path_bytes(&file.path));
                return Err(DataError::Invalid(format!("data.channels = {channels}, but image {name} has {format}")));
            }
            Err(error) => reason = format!("{}: {error}", display(&path_bytes(&file.path))),
        }
    }
    Err(DataError::Invalid(format!("data {}: none of the first images can be read; {reason}", root.display())))
}

/// The classes and one label per file; none where an image lies directly in the root.
fn label(listing: &Listing, root: &Path, notes: &mut Vec<String>) -> (Vec<String>, Option<Vec<u32>>) {
    let first = |path: &Path| -> Option<OsString> {
        let mut parts = path.components();
        let first = parts.next()?;
        parts.next().map(|_| first.as_os_str().to_owned())
    };
    let folders: Vec<Option<OsString>> = listing.files.iter().map(|file| first(&file.path)).collect();
    let loose = folders.iter().filter(|folder| folder.is_none()).count();
    if loose > 0 {
        if loose < folders.len() {
            notes.push(format!(
                "{}: {loose} of {} images lie beside the folders, not in one, so the folders are not taken as classes: \
                 move these images into a folder to have labels",
                root.display(),
                folders.len()
            ));
        }
        return (Vec::new(), None);
    }
    let mut names: Vec<&OsString> = folders.iter().flatten().collect();
    names.sort_by_key(|name| name.as_encoded_bytes());
    names.dedup();
    let label =
        |folder: &OsString| names.binary_search_by_key(&folder.as_encoded_bytes(), |name| name.as_encoded_bytes());
    // Every folder is among the names, so none is lost here.
    let labels = folders.iter().flatten().filter_map(|folder| label(folder).ok()).map(|label| label as u32).collect();
    (names.iter().map(|name| display(name.as_encoded_bytes())).collect(), Some(labels))
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        self.within_format(i, decode_file(&self.path(i), Some(&self.name(i)), self.reading)?)
    }
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        read(&self.path(i)).map(Some).map_err(|reason| DataError::Decode { name: self.name(i), reason })
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[i])
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        display(&path_bytes(&self.files[i]))
    }
    fn format(&self) -> PixelFormat {
        self.format
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn key(&self, i: usize) -> u64 {
        hash(&path_bytes(&self.files[i]))
    }
}
