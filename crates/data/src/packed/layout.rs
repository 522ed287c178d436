//! The fixed parts of a packed file, byte by byte: the header at its start and one entry per image at its end.
//!
//! ```text
//! 0        header, 64 bytes
//! 64       records: the images' bytes, one after the other
//! E        entries: 56 bytes per image, of all splits
//!          names of the images, UTF-8, one after the other
//!          about: splits, classes, how the file was made
//! ```
//! All numbers are little-endian. The last three parts are the index; it follows the records, so that these can be written as they come.

/// What a packed file begins with. Like PNG's it holds a byte above 127 and both kinds of line ends, which a transfer as text would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89DIP\r\n\x1a\n";
/// The version that is written, and the only one there is.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the header.
pub(crate) const HEADER: usize = 64;
/// Bytes of an entry.
pub(crate) const ENTRY: usize = 56;
/// The label of an image that has none.
pub(crate) const NO_LABEL: u32 = u32::MAX;

/// The start of the file.
///
/// | byte | what |
/// | --- | --- |
/// | 0 | [`MAGIC`] |
/// | 8 | version, u32 |
/// | 12 | checksum of the index, u32 |
/// | 16 | length of the file, u64 |
/// | 24 | where the entries begin, u64 |
/// | 32 | number of entries, u64 |
/// | 40 | bytes of names, u64 |
/// | 48 | bytes of about, u64 |
/// | 56 | zero, u32 |
/// | 60 | checksum of bytes 0 to 60, u32 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) index_checksum: u32,
    pub(crate) file_len: u64,
    pub(crate) entries_at: u64,
    pub(crate) entries: u64,
    pub(crate) names_len: u64,
    pub(crate) about_len: u64,
}

/// Why the start of a file is no header that can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It does not begin with [`MAGIC`].
    Magic,
    /// It has this version, which is above [`VERSION`].
    Newer(u32),
    /// It ends before the header does.
    Short,
    /// Its checksum is wrong, or its parts do not add up to the length that it says.
    Damaged,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.index_checksum.to_le_bytes());
        let numbers = [self.file_len, self.entries_at, self.entries, self.names_len, self.about_len];
        for (to, number) in bytes[16..56].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the start of `file`, whose parts then lie one after the other and end where the file is said to end.
    pub(crate) fn read(file: &[u8]) -> Result<Self, HeaderError> {
        if !file.starts_with(&MAGIC) {
            return Err(HeaderError::Magic);
        }
        // Before the checksum: a newer header may have it elsewhere.
        let version = u32_at(file, 8).ok_or(HeaderError::Short)?;
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let header = file.get(..HEADER).ok_or(HeaderError::Short)?;
        let number = |at| u64_at(header, at).unwrap_or(0);
        let read = Self {
            index_checksum: u32_at(header, 12).unwrap_or(0),
            file_len: number(16),
            entries_at: number(24),
            entries: number(32),
            names_len: number(40),
            about_len: number(48),
        };
        let whole = version == VERSION && u32_at(header, 60) == Some(checksum(&header[..60]));
        let end = read
            .entries
            .checked_mul(ENTRY as u64)
            .and_then(|bytes| bytes.checked_add(read.entries_at))
            .and_then(|end| end.checked_add(read.names_len))
            .and_then(|end| end.checked_add(read.about_len));
        if !whole || end != Some(read.file_len) || read.entries_at < HEADER as u64 {
            return Err(HeaderError::Damaged);
        }
        Ok(read)
    }
}

/// How a record holds its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// The numbers themselves, `[height, width, channels]`.
    Raw,
    /// A JPEG file.
    Jpeg,
    /// A PNG file.
    Png,
}

/// Where an image lies and what it is.
///
/// | byte | what |
/// | --- | --- |
/// | 0 | where its record begins in the file, u64 |
/// | 8 | bytes of the record, u64 |
/// | 16 | the hash by which hold-outs and subsets are chosen, u64 |
/// | 24 | where its name begins in the names, u64 |
/// | 32 | bytes of the name, u32 |
/// | 36 | checksum of the record, u32 |
/// | 40 | width, u32 |
/// | 44 | height, u32 |
/// | 48 | label, u32; [`NO_LABEL`] for none |
/// | 52 | channels, u8 |
/// | 53 | bytes of a number: 1 (8 bits), 2 (16 bits), 4 (f32), u8 |
/// | 54 | encoding: 0 raw, 1 JPEG, 2 PNG, u8 |
/// | 55 | zero, u8 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) key: u64,
    pub(crate) name_at: u64,
    pub(crate) name_len: u32,
    pub(crate) checksum: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) label: u32,
    pub(crate) channels: u8,
    pub(crate) depth: u8,
    pub(crate) encoding: u8,
}

impl Entry {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        for (to, number) in bytes.chunks_exact_mut(8).zip([self.at, self.len, self.key, self.name_at]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let numbers = [self.name_len, self.checksum, self.width, self.height, self.label];
        for (to, number) in bytes[32..52].chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes[52..55].copy_from_slice(&[self.channels, self.depth, self.encoding]);
        bytes
    }

    /// The entry in these bytes; anything may stand in it.
    pub(crate) fn from_bytes(bytes: &[u8; ENTRY]) -> Self {
        let long = |at| u64_at(bytes, at).unwrap_or(0);
        let short = |at| u32_at(bytes, at).unwrap_or(0);
        Self {
            at: long(0),
            len: long(8),
            key: long(16),
            name_at: long(24),
            name_len: short(32),
            checksum: short(36),
            width: short(40),
            height: short(44),
            label: short(48),
            channels: bytes[52],
            depth: bytes[53],
            encoding: bytes[54],
        }
    }
}

/// The checksum of header, index and records: CRC-32 as in PNG and zip, which finds any damage of up to 32 bits in a row.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_OF_TWO: Header =
        Header { index_checksum: 0x01020304, file_len: 300, entries_at: 100, entries: 2, names_len: 38, about_len: 50 };

    #[test]
    fn header_and_entry_survive_the_way_through_bytes() {
        assert_eq!(Header::read(&HEADER_OF_TWO.to_bytes()), Ok(HEADER_OF_TWO));
        let entry = Entry {
            at: 1,
            len: 2,
            key: 3,
            name_at: 4,
            name_len: 5,
            checksum: 6,
            width: 7,
            height: 8,
            label: 9,
            channels: 10,
            depth: 11,
            encoding: 12,
        };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
    }

    /// Files of users depend on these places.
    #[test]
    fn the_layout_is_frozen() {
        let bytes = HEADER_OF_TWO.to_bytes();
        assert_eq!(bytes[..16], *b"\x89DIP\r\n\x1a\n\x01\0\0\0\x04\x03\x02\x01");
        assert_eq!((bytes[16], bytes[24], bytes[32], bytes[40], bytes[48]), (44, 100, 2, 38, 50));
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let read = |change: &dyn Fn(&mut Header)| {
            let mut header = HEADER_OF_TWO;
            change(&mut header);
            Header::read(&header.to_bytes())
        };
        assert!(read(&|_| ()).is_ok());
        assert_eq!(read(&|header| header.entries = u64::MAX), Err(HeaderError::Damaged));
        assert_eq!(read(&|header| header.entries = u64::MAX / 56), Err(HeaderError::Damaged));
        assert_eq!(read(&|header| header.names_len = u64::MAX - 90), Err(HeaderError::Damaged));
        assert_eq!(read(&|header| header.file_len += 1), Err(HeaderError::Damaged));
        assert_eq!(read(&|header| (header.entries_at, header.names_len) = (63, 75)), Err(HeaderError::Damaged));
        let mut bytes = HEADER_OF_TWO.to_bytes();
        assert_eq!(Header::read(&bytes[..63]), Err(HeaderError::Short));
        assert_eq!(Header::read(&bytes[..10]), Err(HeaderError::Short));
        assert_eq!(Header::read(&bytes[..5]), Err(HeaderError::Magic));
        bytes[20] ^= 1;
        assert_eq!(Header::read(&bytes), Err(HeaderError::Damaged));
        bytes[8] = 9;
        assert_eq!(Header::read(&bytes), Err(HeaderError::Newer(9)), "whatever a newer header holds");
        bytes[8] = 0;
        assert_eq!(Header::read(&bytes), Err(HeaderError::Damaged));
    }
}
