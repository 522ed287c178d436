//! Where the images of one shard lie in it, and what they are called; as a file, so that it is found out only once.
//!
//! Images are ranges of a *logical* space of bytes, which segments map to stored ones: a tar is one segment, itself; of a
//! Parquet file each page is one or more. An index that was read back is believed in nothing: it is parsed within its bounds,
//! and every number is held to the shard's size before use.

use diptych_random::hash;

/// Begins every index file.
const MAGIC: &[u8; 8] = b"DIPTYIDX";
/// Grows whenever an older index must not be read: its layout changed, or what is found in a shard.
const VERSION: u32 = 1;
/// The label of an image without one.
pub(crate) const UNLABELED: u32 = u32::MAX;

/// The shard as it was when indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes of the shard.
    pub(crate) size: u64,
    /// When it was last changed, as the system counts.
    pub(crate) changed: [i64; 2],
}

/// How bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In the shard, as they are.
    Plain,
    /// In the shard, as one run of Snappy elements that refers to nothing before it.
    Snappy,
    /// In the file of unpacked values beside the index.
    Unpacked,
}

/// A range of logical bytes, up to where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The first logical byte.
    pub(crate) start: u64,
    /// Where it is stored.
    pub(crate) at: u64,
    /// How many bytes are stored.
    pub(crate) stored: u64,
    pub(crate) storage: Storage,
}

/// One image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its first logical byte.
    pub(crate) start: u64,
    pub(crate) len: u32,
    /// A place in [`Index::labels`], or [`UNLABELED`].
    pub(crate) label: u32,
}

/// What is known of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) rows: Vec<Row>,
    /// The rows' names; empty where rows are numbered instead.
    pub(crate) names: Names,
    /// The distinct labels, as text: numbers in decimal, or names.
    pub(crate) labels: Vec<String>,
    /// The names of the labels 0, 1, ..., where the shard says them.
    pub(crate) classes: Vec<String>,
    /// Sorted by their starts; the first begins at 0.
    pub(crate) segments: Vec<Segment>,
    /// Logical bytes in all.
    pub(crate) logical: u64,
    /// Bytes in the file of unpacked values; 0 where there is none.
    pub(crate) unpacked: u64,
    /// Sentences for the user.
    pub(crate) notes: Vec<String>,
}

/// Many strings of bytes in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    ends: Vec<u64>,
}

impl Names {
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len() as u64);
    }

    pub(crate) fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }
}

impl Index {
    /// The segments that hold `len` logical bytes from `start` on, as a range; empty for no bytes.
    pub(crate) fn segments_of(&self, start: u64, len: u32) -> std::ops::Range<usize> {
        let end = start + u64::from(len);
        let first = self.segments.partition_point(|segment| segment.start <= start).saturating_sub(1);
        first..self.segments.partition_point(|segment| segment.start < end).max(first)
    }

    /// Where a segment's logical bytes end.
    pub(crate) fn end_of(&self, segment: usize) -> u64 {
        self.segments.get(segment + 1).map_or(self.logical, |next| next.start)
    }

    /// Whether everything lies inside a shard of `size` bytes.
    fn is_sound(&self, size: u64) -> bool {
        let inside = |at: u64, len: u64, whole: u64| at.checked_add(len).is_some_and(|end| end <= whole);
        let segments = self.segments.iter().enumerate().all(|(i, segment)| {
            let (start, end) = (segment.start, self.end_of(i));
            let length = end.wrapping_sub(start);
            start <= end
                && match segment.storage {
                    Storage::Plain => length == segment.stored && inside(segment.at, segment.stored, size),
                    // What one element of Snappy can become is at most 64 bytes from 2; so no lie grows without bounds.
                    Storage::Snappy => {
                        length <= segment.stored.saturating_mul(64) && inside(segment.at, segment.stored, size)
                    }
                    Storage::Unpacked => length == segment.stored && inside(segment.at, segment.stored, self.unpacked),
                }
        });
        segments
            && self.segments.first().map_or(self.logical == 0, |first| first.start == 0)
            && self.rows.iter().all(|row| {
                inside(row.start, row.len.into(), self.logical)
                    && (row.label == UNLABELED || (row.label as usize) < self.labels.len())
            })
            && (self.names.ends.is_empty() || self.names.ends.len() == self.rows.len())
            && self.names.ends.is_sorted()
            && self.names.ends.last().is_none_or(|&end| end == self.names.bytes.len() as u64)
    }

    /// The bytes of an index file for a shard.
    pub(crate) fn to_bytes(&self, stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 16 * self.rows.len() + self.names.bytes.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [stamp.size, stamp.changed[0] as u64, stamp.changed[1] as u64, self.logical, self.unpacked] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_count(&mut out, self.segments.len());
        for segment in &self.segments {
            out.push(segment.storage as u8);
            for number in [segment.start, segment.at, segment.stored] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        put_count(&mut out, self.rows.len());
        for row in &self.rows {
            out.extend_from_slice(&row.start.to_le_bytes());
            out.extend_from_slice(&row.len.to_le_bytes());
            out.extend_from_slice(&row.label.to_le_bytes());
        }
        put_count(&mut out, self.names.ends.len());
        self.names.ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        put_count(&mut out, self.names.bytes.len());
        out.extend_from_slice(&self.names.bytes);
        for texts in [&self.labels, &self.classes, &self.notes] {
            put_count(&mut out, texts.len());
            for text in texts {
                put_count(&mut out, text.len());
                out.extend_from_slice(text.as_bytes());
            }
        }
        let sum = hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads an index file back; `None` unless it is whole, of this version, sound, and of the shard as it is now.
    pub(crate) fn from_bytes(bytes: &[u8], stamp: Stamp) -> Option<Self> {
        let (content, sum) = bytes.split_last_chunk()?;
        if hash(content) != u64::from_le_bytes(*sum) {
            return None;
        }
        Self::parse(content, stamp)
    }

    /// Reads what lies before the checksum.
    fn parse(content: &[u8], stamp: Stamp) -> Option<Self> {
        let mut input = Input(content);
        if input.take(MAGIC.len())? != MAGIC || input.u32()? != VERSION {
            return None;
        }
        let (size, changed) = (input.u64()?, [input.u64()? as i64, input.u64()? as i64]);
        if (Stamp { size, changed }) != stamp {
            return None;
        }
        let mut index = Self { logical: input.u64()?, unpacked: input.u64()?, ..Self::default() };
        for _ in 0..input.count(25)? {
            let storage = match input.take(1)?[0] {
                0 => Storage::Plain,
                1 => Storage::Snappy,
                2 => Storage::Unpacked,
                _ => return None,
            };
            index.segments.push(Segment { storage, start: input.u64()?, at: input.u64()?, stored: input.u64()? });
        }
        for _ in 0..input.count(16)? {
            index.rows.push(Row { start: input.u64()?, len: input.u32()?, label: input.u32()? });
        }
        for _ in 0..input.count(8)? {
            index.names.ends.push(input.u64()?);
        }
        let bytes = input.count(1)?;
        index.names.bytes = input.take(bytes)?.to_vec();
        for texts in [&mut index.labels, &mut index.classes, &mut index.notes] {
            for _ in 0..input.count(8)? {
                let len = input.count(1)?;
                texts.push(String::from_utf8(input.take(len)?.to_vec()).ok()?);
            }
        }
        (input.0.is_empty() && index.is_sound(stamp.size)).then_some(index)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u64).to_le_bytes());
}

/// Bytes not yet read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A number of items of at least `each` bytes; none if what is left cannot hold them.
    fn count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count <= self.0.len() / each).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { size: 1000, changed: [1_700_000_000, 5] };

    fn sample() -> Index {
        let mut names = Names::default();
        [&b"a/0.jpg"[..], b"b/\xff.png"].iter().for_each(|name| names.push(name));
        Index {
            rows: vec![Row { start: 512, len: 100, label: 1 }, Row { start: 1000, len: 40, label: UNLABELED }],
            names,
            labels: vec!["7".into(), "cat".into()],
            classes: vec!["x".into()],
            segments: vec![
                Segment { start: 0, at: 0, stored: 1000, storage: Storage::Plain },
                Segment { start: 1000, at: 10, stored: 20, storage: Storage::Snappy },
                Segment { start: 1100, at: 0, stored: 30, storage: Storage::Unpacked },
            ],
            logical: 1130,
            unpacked: 30,
            notes: vec!["é".into()],
        }
    }

    #[test]
    fn an_index_reads_back() {
        let index = sample();
        assert_eq!(Index::from_bytes(&index.to_bytes(STAMP), STAMP).as_ref(), Some(&index));
        assert_eq!((index.names.get(0), index.names.get(1)), (Some(&b"a/0.jpg"[..]), Some(&b"b/\xff.png"[..])));
        assert_eq!(index.names.get(2), None);
        assert_eq!(Index::from_bytes(&Index::default().to_bytes(STAMP), STAMP), Some(Index::default()));
        assert_eq!((index.segments_of(999, 1), index.segments_of(999, 2)), (0..1, 0..2));
        assert_eq!((index.segments_of(1000, 130), index.segments_of(1129, 1)), (1..3, 2..3));
    }

    #[test]
    fn another_shard_or_version_and_any_damage_are_noticed() {
        let bytes = sample().to_bytes(STAMP);
        for other in [Stamp { size: 1001, ..STAMP }, Stamp { changed: [1_700_000_000, 6], ..STAMP }] {
            assert_eq!(Index::from_bytes(&bytes, other), None);
        }
        for at in 0..bytes.len() {
            assert_eq!(Index::from_bytes(&bytes[..at], STAMP), None, "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert_eq!(Index::from_bytes(&changed, STAMP), None, "changed at {at}");
        }
    }

    /// With a right checksum, as somebody who means harm would write it.
    #[test]
    fn what_points_outside_is_refused() {
        let edits: [fn(&mut Index); 10] = [
            |index| index.rows[0].start = 1100,
            |index| index.rows[0].start = u64::MAX,
            |index| index.rows[1].label = 2,
            |index| index.segments[0].at = 1,
            |index| index.segments[0].at = u64::MAX,
            |index| index.segments[1].stored = 1,
            |index| index.segments[2].at = 1,
            |index| index.segments[1].start = 5,
            |index| index.names.ends[1] = 900,
            |index| index.names.ends.truncate(1),
        ];
        for (i, edit) in edits.iter().enumerate() {
            let mut index = sample();
            edit(&mut index);
            assert_eq!(Index::from_bytes(&index.to_bytes(STAMP), STAMP), None, "edit {i}");
        }
    }

    /// Whatever the bytes, parsing ends, with an index that is sound or with none.
    #[test]
    fn any_bytes_are_parsed_within_bounds() {
        let good = sample().to_bytes(STAMP);
        bolero::check!().with_iterations(20_000).with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(bytes, edits)| {
            assert!(Index::parse(bytes, STAMP).is_none());
            let mut content = good[..good.len() - 8].to_vec();
            for &(at, value) in edits {
                let at = usize::from(at) % content.len();
                content[at] = value;
            }
            if let Some(index) = Index::parse(&content, STAMP) {
                assert!(index.is_sound(STAMP.size));
                for (i, row) in index.rows.iter().enumerate() {
                    index.names.get(i);
                    index
                        .segments_of(row.start, row.len)
                        .for_each(|segment| assert!(index.end_of(segment) <= index.logical));
                }
            }
        });
    }
}
