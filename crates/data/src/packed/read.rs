//! Reading a packed file: checks once that its index can be trusted, then gives its images.

use std::path::Path;
use std::sync::Arc;

use diptych_augment::{Image, Picture, PixelFormat, Raster, Samples};

use super::PackFormat;
use super::about::{About, Set, pixel_format};
use super::layout::{ENTRY, Encoding, Entry, HEADER, Header, HeaderError, MAGIC, NO_LABEL, VERSION, checksum};
use crate::dataset::Fingerprint;
use crate::decode::{MAX_PIXELS, Reading, decode};
use crate::list::plural;
use crate::mmap::Mapped;
use crate::{DataError, Dataset, Splits};

/// What to do about a file that was damaged on its way.
const AGAIN: &str = "copy it again, or pack the images again";

/// The images of one split of a packed file.
pub struct PackedImages {
    pack: Arc<Pack>,
    /// Its first image among those of all splits.
    first: usize,
    len: usize,
    format: PixelFormat,
    classes: Vec<String>,
    fingerprint: u64,
}

/// A packed file whose index was checked.
struct Pack {
    file: Mapped,
    header: Header,
}

/// The splits of the packed file at `path`; `None` if it is no file that begins as a packed one does.
///
/// # Errors
/// If it is cut off, damaged, of a newer version, or cannot be read.
pub(crate) fn open(path: &Path) -> Result<Option<Splits>, DataError> {
    if !path.is_file() || !begins_as_pack(path)? {
        return Ok(None);
    }
    let (pack, about) = Pack::open(path)?;
    let mut notes = about.notes.clone();
    notes.push(describe(path, &about));
    let mut sets = [None, None, None];
    let mut first = 0;
    for set in about.sets {
        let len = set.images as usize;
        let mut fingerprint = Fingerprint::new("packed images");
        // The index holds the checksum of every image, so that its own stands for all pixels.
        fingerprint.add(&pack.header.index_checksum.to_le_bytes());
        fingerprint.add(&pack.header.file_len.to_le_bytes());
        fingerprint.add(&[set.role as u8]);
        let (format, classes) = (set.format, set.classes);
        let images =
            PackedImages { pack: pack.clone(), first, len, format, classes, fingerprint: fingerprint.finish() };
        sets[set.role as usize] = Some(Arc::new(images) as Arc<dyn Dataset>);
        first += len;
    }
    let [train, test, labeled_train] = sets;
    let train = train.ok_or_else(|| DataError::format(path, format!("it has no training images: {AGAIN}")))?;
    Ok(Some(Splits { train, test, labeled_train, notes }))
}

fn begins_as_pack(path: &Path) -> Result<bool, DataError> {
    use std::io::Read;
    let cannot = |source| DataError::io("read", path, source);
    let mut begin = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(MAGIC.len() as u64).read_to_end(&mut begin).map_err(cannot)?;
    Ok(begin == MAGIC)
}

/// How the file was made, as a sentence.
fn describe(path: &Path, about: &About) -> String {
    let size = match about.short_side {
        0 => "at their own sizes".to_owned(),
        side => format!("at a short side of at most {side}"),
    };
    let format = match about.format {
        PackFormat::Raw => "uncompressed".to_owned(),
        PackFormat::Jpeg => format!("as JPEG of quality {}", about.quality),
        PackFormat::Png => "as PNG".to_owned(),
    };
    let left_out = match about.left_out {
        0 => String::new(),
        n => format!("; {n} unreadable {} left out", plural(n as usize, "image")),
    };
    format!("{}: packed {size}, {format}{left_out}", path.display())
}

impl Pack {
    fn open(path: &Path) -> Result<(Arc<Self>, About), DataError> {
        let file = Mapped::open(path)?;
        let wrong = |problem: String| DataError::format(path, problem);
        let len = file.bytes().len() as u64;
        let header = Header::read(file.bytes()).map_err(|error| {
            wrong(match error {
                HeaderError::Magic => "it is no packed file".into(),
                HeaderError::Newer(version) => format!(
                    "it was packed in format {version}, this Diptych reads format {VERSION}: update Diptych, or pack the images again"
                ),
                HeaderError::Short => format!("it ends after {len} bytes, within its header: {AGAIN}"),
                HeaderError::Damaged => format!("its header is damaged: {AGAIN}"),
            })
        })?;
        if len != header.file_len {
            return Err(wrong(format!(
                "it has {len} bytes, its header says {}: it was cut off or is not whole yet; {AGAIN}",
                header.file_len
            )));
        }
        let pack = Self { file, header };
        // The whole index is read once now; later it is looked up here and there.
        let index = header.entries_at as usize..len as usize;
        pack.file.expect(index.start, index.len());
        let found = checksum(&pack.file.bytes()[index]);
        if found != header.index_checksum {
            return Err(wrong(format!(
                "its index is damaged (checksum {found:08x}, not {:08x}): {AGAIN}",
                header.index_checksum
            )));
        }
        let about =
            About::read(pack.about()).ok_or_else(|| wrong(format!("the end of its index makes no sense: {AGAIN}")))?;
        let images = about.sets.iter().try_fold(0u64, |sum, set| sum.checked_add(set.images));
        if images != Some(header.entries) {
            return Err(wrong(format!(
                "its splits have other images than the {} of its index: {AGAIN}",
                header.entries
            )));
        }
        let mut i = 0;
        for set in &about.sets {
            for _ in 0..set.images {
                pack.check(&pack.entry(i), set)
                    .map_err(|what| wrong(format!("image {i} of its index {what}: {AGAIN}")))?;
                i += 1;
            }
        }
        pack.file.expect_random();
        Ok((Arc::new(pack), about))
    }

    /// Whether what an entry says is possible, so that reading it later can go wrong in its record only.
    fn check(&self, entry: &Entry, set: &Set) -> Result<(), String> {
        let records = HEADER as u64..self.header.entries_at;
        if entry.at < records.start || entry.at.checked_add(entry.len).is_none_or(|end| end > records.end) {
            return Err(format!(
                "lies at bytes {} + {}, outside of the images' bytes {} to {}",
                entry.at, entry.len, records.start, records.end
            ));
        }
        let name_end = entry.name_at.checked_add(u64::from(entry.name_len));
        if name_end.is_none_or(|end| end > self.header.names_len) || self.name(entry).is_none() {
            return Err("has no name that can be read".into());
        }
        if entry.label != NO_LABEL && entry.label as usize >= set.classes.len() {
            return Err(format!("has label {}, there are {} classes", entry.label, set.classes.len()));
        }
        let Some(format) = pixel_format(entry.channels, entry.depth).filter(|format| *format == set.format) else {
            return Err(format!("has not the {} of its split", set.format));
        };
        let pixels = u64::from(entry.width) * u64::from(entry.height);
        if pixels == 0 || pixels > MAX_PIXELS {
            return Err(format!("has {} x {} pixels, expected 1 to {MAX_PIXELS}", entry.width, entry.height));
        }
        match encoding(entry) {
            None => Err(format!("is encoded in way {}, which is not known", entry.encoding)),
            Some(Encoding::Raw) if entry.len != pixels * (format.channels * format.depth.size()) as u64 => {
                Err(format!("has {} bytes for {} x {} pixels", entry.len, entry.width, entry.height))
            }
            Some(_) => Ok(()),
        }
    }

    /// The entry of image `i`, which is one of [`Header::entries`].
    fn entry(&self, i: usize) -> Entry {
        let at = self.header.entries_at as usize + i * ENTRY;
        self.file.bytes()[at..].first_chunk().map_or(Entry::from_bytes(&[0; ENTRY]), Entry::from_bytes)
    }

    fn names_at(&self) -> usize {
        (self.header.entries_at + self.header.entries * ENTRY as u64) as usize
    }

    fn about(&self) -> &[u8] {
        &self.file.bytes()[self.names_at() + self.header.names_len as usize..]
    }

    fn name(&self, entry: &Entry) -> Option<&str> {
        let at = self.names_at() + entry.name_at as usize;
        str::from_utf8(self.file.bytes().get(at..at + entry.name_len as usize)?).ok()
    }

    /// The bytes of a record, if they are what was packed.
    fn record(&self, entry: &Entry) -> Result<&[u8], String> {
        let (at, len) = (entry.at as usize, entry.len as usize);
        self.file.expect(at, len);
        let bytes = &self.file.bytes()[at..at + len];
        let found = checksum(bytes);
        if found != entry.checksum {
            let path = self.file.path().display();
            return Err(format!(
                "its bytes in {path} are damaged (checksum {found:08x}, not {:08x}): {AGAIN}",
                entry.checksum
            ));
        }
        Ok(bytes)
    }
}

fn encoding(entry: &Entry) -> Option<Encoding> {
    [Encoding::Raw, Encoding::Jpeg, Encoding::Png].into_iter().find(|known| *known as u8 == entry.encoding)
}

/// The picture whose numbers these bytes are.
fn raw(entry: &Entry, format: PixelFormat, bytes: &[u8]) -> Result<Picture, String> {
    let (width, height) = (entry.width as usize, entry.height as usize);
    if format == PixelFormat::RGB {
        return Image::new(width, height, bytes.to_vec()).map(Picture::from).map_err(|error| error.to_string());
    }
    let samples = match format.depth.size() {
        1 => Samples::U8(bytes.to_vec()),
        2 => Samples::U16(bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect()),
        _ => Samples::F32(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
    };
    Raster::new(width, height, format.channels, samples).map(Picture::from).map_err(|error| error.to_string())
}

impl PackedImages {
    fn entry(&self, i: usize) -> Entry {
        assert!(i < self.len, "there is no image {i} among {}", self.len);
        self.pack.entry(self.first + i)
    }

    fn picture(&self, entry: &Entry, name: &str) -> Result<Picture, DataError> {
        let fail = |reason| DataError::Decode { name: name.to_owned(), reason };
        let bytes = self.pack.record(entry).map_err(fail)?;
        if encoding(entry) == Some(Encoding::Raw) {
            return raw(entry, self.format, bytes).map_err(fail);
        }
        let reading =
            if self.format == PixelFormat::RGB { Reading::Rgb } else { Reading::Channels(self.format.channels) };
        let picture = decode(name, bytes, reading)?;
        let size = (picture.width() as u64, picture.height() as u64);
        if size != (u64::from(entry.width), u64::from(entry.height)) || picture.format() != self.format {
            let (w, h, said) = (entry.width, entry.height, self.format);
            let found = picture.format();
            return Err(fail(format!(
                "it is {} x {} with {found}, the index says {w} x {h} with {said}",
                size.0, size.1
            )));
        }
        Ok(picture)
    }
}

impl Dataset for PackedImages {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        self.picture(&self.entry(i), &self.name(i))
    }
    fn label(&self, i: usize) -> Option<u32> {
        Some(self.entry(i).label).filter(|label| *label != NO_LABEL)
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        self.pack.name(&self.entry(i)).unwrap_or_default().to_owned()
    }
    fn format(&self) -> PixelFormat {
        self.format
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn key(&self, i: usize) -> u64 {
        self.entry(i).key
    }
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        let entry = self.entry(i);
        if encoding(&entry) == Some(Encoding::Raw) {
            return Ok(None);
        }
        let bytes = self.pack.record(&entry).map_err(|reason| DataError::Decode { name: self.name(i), reason })?;
        Ok(Some(bytes.to_vec()))
    }
}
