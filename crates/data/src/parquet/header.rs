//! The header of a page, in Thrift's compact protocol: only what finding values needs, everything else is stepped over.

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Values, with levels and values packed together.
    Data,
    /// Values, after `levels` bytes of levels that are never packed; `packed` says whether the values are.
    DataV2 { levels: usize, definitions: usize, packed: bool },
    /// The values that data pages refer to.
    Dictionary,
    /// An index, which is nobody's loss.
    Other,
}

/// A page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) what: What,
    /// Bytes of the page once unpacked.
    pub(super) unpacked: usize,
    /// Bytes of the page in the file.
    pub(super) stored: usize,
    /// Values, with those that are null.
    pub(super) values: usize,
    /// How the values are written, by the format's number.
    pub(super) encoding: i64,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The bytes end before it does.
    Short,
    /// It is none.
    Damaged,
}

/// Structures in structures; a header has three.
const MAX_DEPTH: usize = 16;

/// Reads a header from the beginning of `bytes`; also how many bytes it has.
pub(super) fn parse(bytes: &[u8]) -> Result<(PageHeader, usize), Unread> {
    let mut input = Input { bytes, at: 0 };
    let (mut kind, mut unpacked, mut stored) = (None, None, None);
    let (mut data, mut dictionary, mut second) = (Fields::default(), Fields::default(), Fields::default());
    let mut id = 0;
    while let Some(field) = input.field(&mut id)? {
        match (id, field) {
            (1, INTEGERS) => kind = Some(input.integer()?),
            (2, INTEGERS) => unpacked = Some(input.integer()?),
            (3, INTEGERS) => stored = Some(input.integer()?),
            (5, STRUCTURE) => data = input.numbers()?,
            (7, STRUCTURE) => dictionary = input.numbers()?,
            (8, STRUCTURE) => second = input.numbers()?,
            _ => input.skip(field, 0)?,
        }
    }
    let size = |number: Option<i64>| number.and_then(|n| usize::try_from(n).ok()).ok_or(Unread::Damaged);
    let (what, values, encoding) = match kind.ok_or(Unread::Damaged)? {
        0 => (What::Data, data.0[1], data.0[2]),
        2 => (What::Dictionary, dictionary.0[1], dictionary.0[2]),
        3 => {
            let (definitions, repetitions) = (size(second.0[5])?, size(second.0[6])?);
            let levels = definitions.checked_add(repetitions).ok_or(Unread::Damaged)?;
            (What::DataV2 { levels, definitions, packed: second.0[7] != Some(0) }, second.0[1], second.0[4])
        }
        _ => (What::Other, Some(0), Some(0)),
    };
    let header = PageHeader {
        what,
        unpacked: size(unpacked)?,
        stored: size(stored)?,
        values: size(values)?,
        encoding: encoding.ok_or(Unread::Damaged)?,
    };
    Ok((header, input.at))
}

/// The numbers and truth values of a structure, by the fields' numbers.
#[derive(Clone, Copy, Default)]
struct Fields([Option<i64>; 8]);

const TRUE: u8 = 1;
const FALSE: u8 = 2;
/// An i32, as everything that is read here.
const INTEGERS: u8 = 5;
const STRUCTURE: u8 = 12;

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Unread> {
        let byte = *self.bytes.get(self.at).ok_or(Unread::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, n: u64) -> Result<(), Unread> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n)).ok_or(Unread::Damaged)?;
        if end > self.bytes.len() {
            return Err(Unread::Short);
        }
        self.at = end;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64, Unread> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unread::Damaged)
    }

    fn integer(&mut self) -> Result<i64, Unread> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// The kind of the next field, whose number is left in `id`; `None` at the end of the structure.
    fn field(&mut self, id: &mut i64) -> Result<Option<u8>, Unread> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *id = match byte >> 4 {
            0 => self.integer()?,
            step => id.checked_add(step.into()).ok_or(Unread::Damaged)?,
        };
        Ok(Some(byte & 15))
    }

    /// A structure's numbers; the rest of it is stepped over.
    fn numbers(&mut self) -> Result<Fields, Unread> {
        let mut fields = Fields::default();
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            let value = match kind {
                TRUE => 1,
                FALSE => 0,
                INTEGERS => self.integer()?,
                other => {
                    self.skip(other, 1)?;
                    continue;
                }
            };
            if let Some(field) = usize::try_from(id).ok().and_then(|id| fields.0.get_mut(id)) {
                *field = Some(value);
            }
        }
        Ok(fields)
    }

    /// Steps over a field's value.
    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Unread> {
        if depth > MAX_DEPTH {
            return Err(Unread::Damaged);
        }
        match kind {
            TRUE | FALSE => Ok(()),
            3 => self.advance(1),
            4..=6 => self.unsigned().map(drop),
            7 => self.advance(8),
            8 => {
                let length = self.unsigned()?;
                self.advance(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
                self.skip_all(count, &[head & 15], depth)
            }
            11 => {
                let count = self.unsigned()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                self.skip_all(count, &[kinds >> 4, kinds & 15], depth)
            }
            STRUCTURE => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            13 => self.advance(16),
            _ => Err(Unread::Damaged),
        }
    }

    /// Steps over the elements of a list or map. Each has a byte at least, so the count is bounded by what is there.
    fn skip_all(&mut self, count: u64, kinds: &[u8], depth: usize) -> Result<(), Unread> {
        for _ in 0..count {
            for &kind in kinds {
                if matches!(kind, TRUE | FALSE) { self.advance(1)? } else { self.skip(kind, depth + 1)? }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand from the protocol's description: a data page of version 1 with a statistics structure in it.
    const DATA: [u8; 27] = [
        0x15, 0x00, 0x15, 0xc8, 0x01, 0x15, 0x90, 0x01, 0x2c, 0x15, 0x0a, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c,
        0x36, 0x00, 0x28, 0x02, b'h', b'i', 0x00, 0x00, 0x00,
    ];

    #[test]
    fn headers_are_read() {
        let expected = PageHeader { what: What::Data, unpacked: 100, stored: 72, values: 5, encoding: 0 };
        assert_eq!(parse(&DATA), Ok((expected, 27)));
        for cut in 0..DATA.len() {
            assert_eq!(parse(&DATA[..cut]), Err(Unread::Short), "cut at {cut}");
        }
        let dictionary = [0x15, 0x04, 0x15, 0x02, 0x15, 0x02, 0x4c, 0x15, 0x06, 0x15, 0x00, 0x00, 0x00];
        let expected = PageHeader { what: What::Dictionary, unpacked: 1, stored: 1, values: 3, encoding: 0 };
        assert_eq!(parse(&dictionary), Ok((expected, 13)));
        let second = [
            0x15, 0x06, 0x15, 0x14, 0x15, 0x14, 0x5c, 0x15, 0x04, 0x15, 0x00, 0x15, 0x04, 0x15, 0x10, 0x15, 0x04, 0x15,
            0x00, 0x12, 0x00, 0x00,
        ];
        let what = What::DataV2 { levels: 2, definitions: 2, packed: false };
        assert_eq!(parse(&second).unwrap().0, PageHeader { what, unpacked: 10, stored: 10, values: 2, encoding: 8 });
    }

    #[test]
    fn lies_are_damage() {
        // Negative sizes, no kind, an unknown kind of field, structures without end.
        assert_eq!(
            parse(&[0x15, 0x00, 0x15, 0x01, 0x15, 0x02, 0x2c, 0x15, 0x0a, 0x15, 0x00, 0x00, 0x00]),
            Err(Unread::Damaged)
        );
        assert_eq!(parse(&[0x00]), Err(Unread::Damaged));
        assert_eq!(parse(&[0x1f, 0x00]), Err(Unread::Damaged));
        assert_eq!(parse(&[0x4c; 100]), Err(Unread::Damaged));
        assert_eq!(parse(&[0xff; 100]), Err(Unread::Damaged));
    }

    #[test]
    fn any_bytes_end() {
        bolero::check!().with_iterations(20_000).with_type::<(Vec<u8>, Vec<(u8, u8)>)>().for_each(|(bytes, edits)| {
            let _ = parse(bytes);
            let mut changed = DATA;
            for &(at, value) in edits {
                changed[usize::from(at) % 27] = value;
            }
            if let Ok((_, length)) = parse(&changed) {
                assert!(length <= 27);
            }
        });
    }
}
