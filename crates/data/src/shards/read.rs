//! The bytes of one image of a shard, by positional reads: any thread, any order.

use super::index::{Index, Row, Segment, Storage};
use crate::source::Source;

/// The most bytes an image may have in its file, and a compressed run once unpacked.
const MAX_BYTES: u64 = 1 << 29;

/// The bytes of an image.
///
/// # Errors
/// A reason, if they cannot be read or are not what the index says: the shard has changed since.
pub(crate) fn image(index: &Index, row: Row, shard: &Source, values: Option<&Source>) -> Result<Vec<u8>, String> {
    if row.len == 0 {
        return Err("the file is empty (0 bytes)".into());
    }
    if u64::from(row.len) > MAX_BYTES {
        return Err(format!("the file is larger than {} MiB", MAX_BYTES >> 20));
    }
    let mut bytes = Vec::with_capacity(row.len as usize);
    let end = row.start + u64::from(row.len);
    for i in index.segments_of(row.start, row.len) {
        let segment = index.segments[i];
        let (from, to) = (row.start.max(segment.start), end.min(index.end_of(i)));
        // Places within the segment.
        let (from, to) = ((from - segment.start) as usize, (to - segment.start) as usize);
        let cannot = |error: std::io::Error| format!("cannot be read: {error}");
        match (segment.storage, values) {
            (Storage::Plain, _) => append(shard, segment.at, from, to, &mut bytes).map_err(cannot)?,
            (Storage::Unpacked, Some(values)) => append(values, segment.at, from, to, &mut bytes).map_err(cannot)?,
            (Storage::Unpacked, None) => return Err("its unpacked bytes are gone: delete the shard's index".into()),
            (Storage::Snappy, _) => {
                let length = index.end_of(i) - segment.start;
                bytes.extend_from_slice(&unpacked(shard, segment, length)?[from..to]);
            }
        }
    }
    Ok(bytes)
}

fn append(source: &Source, at: u64, from: usize, to: usize, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let before = bytes.len();
    bytes.resize(before + (to - from), 0);
    source.read(at + from as u64, &mut bytes[before..])
}

/// A run of Snappy elements, unpacked.
fn unpacked(shard: &Source, segment: Segment, length: u64) -> Result<Vec<u8>, String> {
    if length > MAX_BYTES {
        return Err(format!("its compressed run becomes more than {} MiB", MAX_BYTES >> 20));
    }
    #[cfg(feature = "parquet")]
    {
        use crate::parquet::snappy;
        let length = length as u32;
        let mut page = snappy::head(length);
        let run = page.len();
        page.resize(run + segment.stored as usize, 0);
        shard.read(segment.at, &mut page[run..]).map_err(|error| format!("cannot be read: {error}"))?;
        snappy::unpack(&page, length)
            .ok_or_else(|| "its compressed bytes are damaged, or changed since they were indexed".into())
    }
    #[cfg(not(feature = "parquet"))]
    Err(format!(
        "{} has {} compressed bytes here, and this build reads no Parquet: build it with the feature parquet",
        shard.path().display(),
        segment.stored
    ))
}
