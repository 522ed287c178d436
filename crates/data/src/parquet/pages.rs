//! The values of one column of one row group, as ranges of logical bytes: page by page, nothing kept but the ranges.

use std::fs::File;
use std::path::Path;

use super::header::{self, PageHeader, Unread, What};
use super::levels::Hybrid;
use super::snappy;
use crate::DataError;
use crate::shards::index::{Segment, Storage};
use crate::shards::store::Values;
use crate::source::read_at;

/// The most bytes of a packed page, packed or not.
const MAX_PAGE: usize = 1 << 30;
/// Headers are small, but may hold the least and the largest value: the second number is for those.
const HEADER_BYTES: [u64; 2] = [1 << 12, 1 << 24];
/// The most rows of a file.
pub(super) const MAX_ROWS: usize = 1 << 24;

/// How pages are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Snappy,
    Zstd,
}

/// A column of a row group, as the file's footer describes it.
pub(super) struct Chunk<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    /// The column's name, for messages.
    pub(super) name: &'a str,
    /// Its first byte and the one past its last; inside the file.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Rows of the group.
    pub(super) rows: usize,
    pub(super) codec: Codec,
    /// The definition level of a value that is there.
    pub(super) present: u32,
    /// Bytes of a value; `None` where each says its own length.
    pub(super) width: Option<usize>,
}

/// Where the pages' bytes can be found later.
pub(super) enum Store<'a, 'b> {
    /// In the file, through segments; what cannot be entered in the middle is unpacked into the values.
    Segments { segments: &'a mut Vec<Segment>, logical: &'a mut u64, values: &'a mut Values<'b> },
    /// In memory: for columns of small values.
    Memory(&'a mut Vec<u8>),
}

/// A value: its first logical byte and its length; `None` where there is none in this row.
pub(super) type Value = Option<(u64, u32)>;

/// The bytes of a page that are not packed, or no longer.
enum Bytes {
    Memory(Vec<u8>),
    /// Only what is asked for is read: the images need not be.
    File {
        at: u64,
        len: usize,
    },
}

impl Chunk<'_> {
    fn problem(&self, problem: impl std::fmt::Display) -> DataError {
        DataError::format(self.path, format!("column {}: {problem}: get or make the file again", self.name))
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, DataError> {
        let mut bytes = vec![0; length];
        read_at(self.file, at, &mut bytes).map_err(|source| DataError::io("read", self.path, source))?;
        Ok(bytes)
    }

    /// Appends the group's values to `found`, one per row.
    ///
    /// # Errors
    /// If a page is damaged, lies outside of the column, or is written in a way that is not read; or there are not as many values
    /// as rows.
    pub(super) fn values(&self, store: &mut Store, found: &mut Vec<Value>) -> Result<(), DataError> {
        let first = found.len();
        let mut at = self.start;
        let mut dictionary = None;
        while found.len() - first < self.rows {
            let (header, length) = self.header(at)?;
            let body = at + length as u64;
            if header.stored as u64 > self.end - body {
                return Err(self.problem(format_args!(
                    "a page at byte {at} says it has {} bytes, and the column has {} more",
                    header.stored,
                    self.end - body
                )));
            }
            at = body + header.stored as u64;
            if header.what == What::Other {
                continue;
            }
            // Levels of the second version lie before what is packed.
            let (levels, definitions) = match header.what {
                What::DataV2 { levels, definitions, .. } => (levels, definitions),
                _ => (0, 0),
            };
            let (Some(packed), Some(unpacked)) =
                (header.stored.checked_sub(levels), header.unpacked.checked_sub(levels))
            else {
                return Err(self.problem("a page is smaller than its levels"));
            };
            let (bytes, base) = self.unpack(&header, body + levels as u64, packed, unpacked, store)?;
            if header.what == What::Dictionary {
                dictionary = Some(self.dictionary(&header, &bytes, base)?);
                continue;
            }
            if header.values > self.rows - (found.len() - first) {
                return Err(self.problem("its pages have more values than the row group has rows"));
            }
            let (levels, values_at) = match header.what {
                _ if self.present == 0 => (Vec::new(), 0),
                What::DataV2 { levels, .. } => {
                    let definitions_at = body + (levels - definitions) as u64;
                    (self.read(definitions_at, definitions)?, 0)
                }
                _ => {
                    let length = self.u32(&bytes, 0)? as usize;
                    (self.slice(&bytes, 4, length)?, 4 + length)
                }
            };
            self.page(&header, &bytes, base, (&levels, values_at), dictionary.as_deref(), found)?;
        }
        Ok(())
    }

    /// The header of the page at `at`, and its length.
    fn header(&self, at: u64) -> Result<(PageHeader, usize), DataError> {
        for most in HEADER_BYTES {
            let there = most.min(self.end - at);
            match header::parse(&self.read(at, there as usize)?) {
                Ok(header) => return Ok(header),
                Err(Unread::Short) if there == most => {}
                Err(Unread::Short) => return Err(self.problem("it ends before its rows do")),
                Err(Unread::Damaged) => return Err(self.problem(format_args!("there is no page at byte {at}"))),
            }
        }
        Err(self.problem(format_args!("the header of the page at byte {at} is larger than {} bytes", HEADER_BYTES[1])))
    }

    /// A page's bytes, unpacked, and the logical byte that the first of them is.
    fn unpack(
        &self,
        header: &PageHeader,
        at: u64,
        packed: usize,
        unpacked: usize,
        store: &mut Store,
    ) -> Result<(Bytes, u64), DataError> {
        let damaged = || self.problem(format_args!("the page at byte {at} is damaged, or not packed as the file says"));
        let codec = if matches!(header.what, What::DataV2 { packed: false, .. }) { Codec::Plain } else { self.codec };
        if (codec != Codec::Plain || self.width.is_some()) && packed.max(unpacked) > MAX_PAGE {
            return Err(self.problem(format_args!("a page has {} bytes, more than {MAX_PAGE}", packed.max(unpacked))));
        }
        if codec == Codec::Plain && packed != unpacked {
            return Err(damaged());
        }
        // A page without values may have nothing at all to unpack.
        let codec = if packed == 0 { Codec::Plain } else { codec };
        let mut runs = Vec::new();
        let bytes = match codec {
            Codec::Plain if packed != unpacked => return Err(damaged()),
            Codec::Plain if matches!(store, Store::Segments { .. }) => Bytes::File { at, len: packed },
            Codec::Plain => Bytes::Memory(self.read(at, packed)?),
            Codec::Snappy => {
                let page = self.read(at, packed)?;
                // Sums up to the unpacked length before anything of that size is allocated.
                runs = snappy::runs(&page, unpacked as u64).ok_or_else(damaged)?;
                let mut bytes = vec![0; unpacked];
                snap::raw::Decoder::new().decompress(&page, &mut bytes).map_err(|_| damaged())?;
                Bytes::Memory(bytes)
            }
            Codec::Zstd => {
                let bytes = zstd::bulk::decompress(&self.read(at, packed)?, unpacked).map_err(|_| damaged())?;
                if bytes.len() != unpacked {
                    return Err(damaged());
                }
                Bytes::Memory(bytes)
            }
        };
        let base = match (store, &bytes) {
            (Store::Memory(all), Bytes::Memory(bytes)) => {
                let base = all.len() as u64;
                all.extend_from_slice(bytes);
                base
            }
            (Store::Memory(all), Bytes::File { .. }) => all.len() as u64,
            (Store::Segments { segments, logical, values }, bytes) => {
                let base = **logical;
                match (codec, bytes) {
                    (Codec::Zstd, Bytes::Memory(bytes)) => {
                        let at = values
                            .push(bytes)
                            .map_err(|source| DataError::io("unpack into a file beside", self.path, source))?;
                        segments.push(Segment { start: base, at, stored: unpacked as u64, storage: Storage::Unpacked });
                    }
                    (Codec::Snappy, _) => {
                        let ends = runs.iter().skip(1).map(|run| run.at).chain([packed as u64]);
                        segments.extend(runs.iter().zip(ends).map(|(run, end)| Segment {
                            start: base + run.start,
                            at: at + run.at,
                            stored: end - run.at,
                            storage: Storage::Snappy,
                        }));
                    }
                    _ => segments.push(Segment { start: base, at, stored: packed as u64, storage: Storage::Plain }),
                }
                **logical += unpacked as u64;
                base
            }
        };
        Ok((bytes, base))
    }

    /// The values of a dictionary page.
    fn dictionary(&self, header: &PageHeader, bytes: &Bytes, base: u64) -> Result<Vec<(u64, u32)>, DataError> {
        let mut values = Vec::new();
        let mut at = 0;
        for _ in 0..header.values {
            let (start, length) = self.plain(bytes, &mut at)?;
            values.push((base + start, length));
        }
        Ok(values)
    }

    /// The values of a data page, after its levels.
    fn page(
        &self,
        header: &PageHeader,
        bytes: &Bytes,
        base: u64,
        (levels, mut at): (&[u8], usize),
        dictionary: Option<&[(u64, u32)]>,
        found: &mut Vec<Value>,
    ) -> Result<(), DataError> {
        let bits = u32::BITS - self.present.leading_zeros();
        let short = || self.problem("a page ends before its values do");
        let mut levels = Hybrid::new(levels, bits).ok_or_else(short)?;
        let mut present =
            || if self.present == 0 { Some(true) } else { levels.next().map(|level| level == self.present) };
        match (header.encoding, dictionary) {
            (0, _) => {
                for _ in 0..header.values {
                    let there = present().ok_or_else(short)?;
                    let value = if there { Some(self.plain(bytes, &mut at)?) } else { None };
                    found.push(value.map(|(start, length)| (base + start, length)));
                }
            }
            (2 | 8, Some(dictionary)) => {
                let rest = self.slice(bytes, at, bytes.len().saturating_sub(at))?;
                // A page of nulls only may lack even the width.
                let (&width, rest) = rest.split_first().unwrap_or((&0, &[]));
                let mut places = Hybrid::new(rest, width.into()).ok_or_else(short)?;
                for _ in 0..header.values {
                    let value = match present().ok_or_else(short)? {
                        false => None,
                        true => {
                            let place = places.next().ok_or_else(short)?;
                            let value = dictionary.get(place as usize);
                            Some(*value.ok_or_else(|| self.problem("a page refers past its dictionary's end"))?)
                        }
                    };
                    found.push(value);
                }
            }
            (2 | 8, None) => return Err(self.problem("its dictionary is missing")),
            (other, _) => {
                let name = match other {
                    5 => "DELTA_BINARY_PACKED",
                    6 => "DELTA_LENGTH_BYTE_ARRAY",
                    7 => "DELTA_BYTE_ARRAY",
                    9 => "BYTE_STREAM_SPLIT",
                    _ => "an unknown encoding",
                };
                return Err(DataError::format(
                    self.path,
                    format!(
                        "column {} is written as {name}, which is not read: write the file with plain or dictionary encoding",
                        self.name
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The value at `at` of plainly written ones, and the place after it.
    fn plain(&self, bytes: &Bytes, at: &mut usize) -> Result<(u64, u32), DataError> {
        let (start, length) = match self.width {
            Some(width) => (*at, width),
            None => (*at + 4, self.u32(bytes, *at)? as usize),
        };
        if length > bytes.len().saturating_sub(start) {
            return Err(self.problem("a value says it goes on past its page"));
        }
        *at = start + length;
        Ok((start as u64, length as u32))
    }

    fn u32(&self, bytes: &Bytes, at: usize) -> Result<u32, DataError> {
        let short = || self.problem("a page ends before its values do");
        if at + 4 > bytes.len() {
            return Err(short());
        }
        let mut number = [0; 4];
        match bytes {
            Bytes::Memory(bytes) => number.copy_from_slice(&bytes[at..at + 4]),
            Bytes::File { at: file_at, .. } => read_at(self.file, file_at + at as u64, &mut number)
                .map_err(|source| DataError::io("read", self.path, source))?,
        }
        Ok(u32::from_le_bytes(number))
    }

    fn slice(&self, bytes: &Bytes, at: usize, length: usize) -> Result<Vec<u8>, DataError> {
        if length > bytes.len().saturating_sub(at) {
            return Err(self.problem("a page ends before its levels do"));
        }
        match bytes {
            Bytes::Memory(bytes) => Ok(bytes[at..at + length].to_vec()),
            Bytes::File { at: file_at, .. } => self.read(file_at + at as u64, length),
        }
    }
}

impl Bytes {
    fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { len, .. } => *len,
        }
    }
}
