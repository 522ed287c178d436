//! The header of a `.npy` file: a magic number, a version, and a Python dictionary as text.
//!
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

/// Bytes of magic number and version.
const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest text that is read: thousands of times what an array needs.
const MAX_TEXT: usize = 1 << 16;

/// The types of numbers that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    U16,
    F32,
    I32,
    I64,
}

impl Kind {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// What an array is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) big_endian: bool,
    pub(super) shape: Vec<usize>,
    /// Where the numbers begin, in bytes.
    pub(super) start: u64,
}

impl Header {
    /// From the first bytes of a file, as many as there are up to [`Self::MOST`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a .npy file: save it with numpy.save")?;
        let (length, text) = match rest {
            [1, _, a, b, text @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), text),
            [2 | 3, _, a, b, c, d, text @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, text),
            [version, ..] if !(1..=3).contains(version) => {
                return Err(format!(
                    "it has version {version} of the .npy format, 1 to 3 are read: is there a newer Diptych?"
                ));
            }
            _ => return Err("it ends within its header".into()),
        };
        if length > MAX_TEXT {
            return Err(format!(
                "its header says that it is {length} bytes long, more than the {MAX_TEXT} that are read"
            ));
        }
        let start = bytes.len() - text.len() + length;
        let text = text.get(..length).ok_or("it ends within its header")?;
        let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
        let (kind, big_endian) = kind(value(text, "descr")?)?;
        match value(text, "fortran_order")? {
            "False" => {}
            _ => return Err("it is stored in Fortran order: save numpy.ascontiguousarray(images)".into()),
        }
        Ok(Self { kind, big_endian, shape: shape(value(text, "shape")?)?, start: start as u64 })
    }

    /// The longest header with what comes before it.
    pub(super) const MOST: usize = MAX_TEXT + 12;
}

/// What stands behind a key of the dictionary, up to the comma that ends it.
fn value<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("its header has no '{key}'");
    let quoted = format!("'{key}'");
    let at = text.find(&quoted).ok_or_else(missing)?;
    let rest = text[at + quoted.len()..].trim_start().strip_prefix(':').ok_or_else(missing)?.trim_start();
    let end = match rest.chars().next() {
        Some('(') => rest.find(')').map(|end| end + 1),
        Some('[') => rest.find(']').map(|end| end + 1),
        _ => rest.find([',', '}']),
    };
    Ok(rest[..end.ok_or_else(missing)?].trim())
}

fn kind(text: &str) -> Result<(Kind, bool), String> {
    let name = text.trim_matches(|c| c == '\'' || c == '"');
    let big_endian = name.starts_with('>');
    let kind = match name.trim_start_matches(['<', '>', '|', '=']) {
        "u1" => Kind::U8,
        "u2" => Kind::U16,
        "f4" => Kind::F32,
        "i4" => Kind::I32,
        "i8" => Kind::I64,
        _ => {
            return Err(format!(
                "its numbers are of the type {name}: images are u8, u16 or f32, as in images.astype('float32')"
            ));
        }
    };
    Ok((kind, big_endian))
}

fn shape(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("its shape {text} is not a list of lengths");
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or_else(wrong)?;
    let lengths = inner.split(',').map(str::trim).filter(|length| !length.is_empty());
    lengths.map(|length| length.parse().map_err(|_| wrong())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn a_header_as_numpy_writes_it_is_read() {
        let bytes = file("{'descr': '<u2', 'fortran_order': False, 'shape': (10, 8, 6, 5), }          \n");
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(
            header,
            Header { kind: Kind::U16, big_endian: false, shape: vec![10, 8, 6, 5], start: bytes.len() as u64 }
        );
        let labels = file("{'descr': '>i8', 'fortran_order': False, 'shape': (7,), }");
        assert_eq!(Header::parse(&labels).map(|h| (h.kind, h.big_endian, h.shape)), Ok((Kind::I64, true, vec![7])));
    }

    #[test]
    fn what_is_no_array_of_images_is_told() {
        let said = |text: &str| Header::parse(&file(text)).unwrap_err();
        let rest = "'fortran_order': False, 'shape': (1, 2)}";
        assert!(said(&format!("{{'descr': '<f8', {rest}")).contains("of the type <f8"));
        assert!(said(&format!("{{'descr': [('a', '<u2')], {rest}")).contains("of the type"));
        assert!(said("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 2)}").contains("Fortran order"));
        assert!(said("{'descr': '|u1', 'fortran_order': False, 'shape': (1, -2)}").contains("not a list of lengths"));
        assert!(said("{'descr': '|u1', 'fortran_order': False}").contains("no 'shape'"));
        assert!(Header::parse(b"PK\x03\x04").unwrap_err().contains("does not begin as"));
        assert!(Header::parse(b"\x93NUMPY\x07\x00").unwrap_err().contains("version 7"));
        assert!(Header::parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap_err().contains("4294967295 bytes long"));
        assert!(Header::parse(&file("{'descr'")[..12]).unwrap_err().contains("ends within"));
    }
}
