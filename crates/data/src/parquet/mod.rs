//! Parquet files in Hugging Face's image layout: a structure `image` with `bytes`, or a column of bytes; labels beside it.
//!
//! A data loader reads rows in random order, and a row of such a file lies somewhere in a page of up to a thousand images. So every
//! page is walked once, when the file is first opened, and the index says where each image's bytes are: those of
//! unpacked pages in the file itself, those of pages packed with Snappy in a run of 64 KiB that unpacks alone (`snappy`),
//! and those of other packed pages in a file of values beside the index. No page is ever unpacked for one row again.
//!
//! The footer is read by the crate `parquet`.

mod columns;
mod header;
mod levels;
mod pages;
pub(crate) mod snappy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::parquet::basic::Compression;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};

use crate::DataError;
use crate::shards::index::{Index, Row, UNLABELED};
use crate::shards::store::Values;
use crate::source::read_at;
use pages::{Chunk, Codec, MAX_ROWS, Store, Value};

/// The most bytes of a footer.
const MAX_FOOTER: u64 = 1 << 28;
/// The most bytes of a label that is text.
const MAX_NAME: u32 = 256;

/// Finds the images of a Parquet file of `size` bytes.
///
/// # Errors
/// If it is no Parquet file, cut off or damaged, or has no column of images; or it is written in a way that is not read.
pub(crate) fn index(path: &Path, file: &File, size: u64, values: &mut Values) -> Result<Index, DataError> {
    let metadata = footer(path, file, size)?;
    let columns = columns::find(path, &metadata)?;
    let mut index = Index { classes: columns.classes.clone(), ..Index::default() };
    let mut labels = HashMap::new();
    let (mut missing, mut total) = (0, 0);
    for group in metadata.row_groups() {
        let rows = usize::try_from(group.num_rows()).ok().filter(|rows| *rows <= MAX_ROWS && total + rows <= MAX_ROWS);
        let Some(rows) = rows else {
            let problem = format!(
                "it says it has more than {MAX_ROWS} rows, or fewer than none: it is damaged, or must be divided into several files"
            );
            return Err(DataError::format(path, problem));
        };
        total += rows;
        let mut images = Vec::new();
        let mut store = Store::Segments { segments: &mut index.segments, logical: &mut index.logical, values };
        let chunk = |place, width| chunk(path, file, size, group, place, rows, width);
        chunk(columns.image, None)?.values(&mut store, &mut images)?;
        let (mut memory, mut found) = (Vec::new(), Vec::new());
        if let Some(label) = columns.label {
            chunk(label.place, label.width)?.values(&mut Store::Memory(&mut memory), &mut found)?;
        }
        let mut found = found.into_iter();
        for image in images {
            let value = found.next().flatten();
            let Some((start, len)) = image else {
                missing += 1;
                continue;
            };
            let label = match text(&memory, value, columns.label.and_then(|label| label.width)) {
                None => UNLABELED,
                Some(text) => *labels.entry(text).or_insert_with_key(|text| {
                    index.labels.push(text.clone());
                    index.labels.len() as u32 - 1
                }),
            };
            index.rows.push(Row { start, len, label });
        }
    }
    if index.rows.is_empty() {
        let problem = match missing {
            0 => "it has no rows".to_owned(),
            n => format!("none of its {n} rows has an image in it; paths to files elsewhere are not followed"),
        };
        return Err(DataError::format(path, problem));
    }
    if missing > 0 {
        index.notes.push(format!("passed over {missing} rows without an image in the file"));
    }
    Ok(index)
}

/// What the file's end says of it.
fn footer(path: &Path, file: &File, size: u64) -> Result<ParquetMetaData, DataError> {
    let problem = |problem: &str| Err(DataError::format(path, problem));
    let mut ends = [[0; 4], [0; 4], [0; 4]];
    if size < 12 {
        return problem("it is too short for a Parquet file: get or make it again");
    }
    for (bytes, at) in ends.iter_mut().zip([0, size - 8, size - 4]) {
        read_at(file, at, bytes).map_err(|source| DataError::io("read", path, source))?;
    }
    match (&ends[0], &ends[2]) {
        (b"PAR1", b"PAR1") => {}
        (b"PARE", _) | (_, b"PARE") => return problem("it is encrypted, which is not read: decrypt it first"),
        (b"PAR1", _) => return problem("it ends before its footer: it is cut off; get or make it again"),
        _ => return problem("it is no Parquet file, whatever its name says: it does not begin with PAR1"),
    }
    let length = u64::from(u32::from_le_bytes(ends[1]));
    if length > (size - 12).min(MAX_FOOTER) {
        return problem("its footer says that it is larger than the file: it is damaged; get or make it again");
    }
    let read = || ParquetMetaDataReader::new().parse_and_finish(file);
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(metadata)) => Ok(metadata),
        Ok(Err(error)) => {
            problem(&format!("its footer cannot be read ({}): get or make it again", one_line(&error.to_string())))
        }
        Err(_) => problem("its footer is damaged: get or make it again"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A column of a row group, held to the file's size.
fn chunk<'a>(
    path: &'a Path,
    file: &'a File,
    size: u64,
    group: &'a RowGroupMetaData,
    place: usize,
    rows: usize,
    width: Option<usize>,
) -> Result<Chunk<'a>, DataError> {
    let Some(column) = group.columns().get(place) else {
        return Err(DataError::format(path, "a row group lacks a column: it is damaged; get or make it again"));
    };
    let description = column.column_descr();
    let name = description.name();
    let first = match column.dictionary_page_offset() {
        // Some writers put a zero where there is none.
        Some(offset) if offset > 0 => offset.min(column.data_page_offset()),
        _ => column.data_page_offset(),
    };
    let range = u64::try_from(first).ok().zip(u64::try_from(column.compressed_size()).ok());
    let range = range.and_then(|(start, length)| Some((start, start.checked_add(length).filter(|&end| end <= size)?)));
    let Some((start, end)) = range else {
        let problem = format!("column {name} lies outside of the file: it is cut off or damaged; get or make it again");
        return Err(DataError::format(path, problem));
    };
    if column.file_path().is_some() {
        return Err(DataError::format(path, format!("column {name} is in another file, which is not read")));
    }
    let codec = match column.compression() {
        Compression::UNCOMPRESSED => Codec::Plain,
        Compression::SNAPPY => Codec::Snappy,
        Compression::ZSTD(_) => Codec::Zstd,
        other => {
            let other = other.to_string();
            let other = other.split('(').next().unwrap_or_default();
            let problem =
                format!("column {name} is compressed with {other}: write the file with snappy, zstd or no compression");
            return Err(DataError::format(path, problem));
        }
    };
    let present = u32::try_from(description.max_def_level()).unwrap_or(0);
    Ok(Chunk { path, file, name, start, end, rows, codec, present, width })
}

/// A label as text: a number in decimal, or a name; none where there is no value, or -1, by which data sets mark what is not to be known.
fn text(memory: &[u8], value: Value, width: Option<usize>) -> Option<String> {
    let (start, length) = value?;
    let bytes = memory.get(start as usize..start as usize + length as usize)?;
    let number = match width {
        Some(4) => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        Some(_) => i64::from_le_bytes(bytes.try_into().ok()?),
        None if length > MAX_NAME => return None,
        None => return Some(std::str::from_utf8(bytes).ok()?.trim().to_owned()).filter(|text| !text.is_empty()),
    };
    (number != -1).then(|| number.to_string())
}
