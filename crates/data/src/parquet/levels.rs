//! Parquet's mixture of repeated and bit-packed numbers, in which levels and references into a dictionary are written.

/// The numbers of such a mixture, as they come.
pub(super) struct Hybrid<'a> {
    bytes: &'a [u8],
    width: u32,
    /// What is left of a run of one number.
    repeated: (u64, u32),
    /// What is left of a run of packed numbers: their count, and the bit that is next.
    packed: (u64, u64),
    run: &'a [u8],
}

impl<'a> Hybrid<'a> {
    /// Numbers of `width` bits, at most 32.
    pub(super) fn new(bytes: &'a [u8], width: u32) -> Option<Self> {
        (width <= 32).then_some(Self { bytes, width, repeated: (0, 0), packed: (0, 0), run: &[] })
    }

    /// The next number; `None` if there is none, or what should be a run is none.
    pub(super) fn next(&mut self) -> Option<u32> {
        loop {
            if self.repeated.0 > 0 {
                self.repeated.0 -= 1;
                return Some(self.repeated.1);
            }
            if self.packed.0 > 0 {
                self.packed.0 -= 1;
                let first = self.packed.1;
                self.packed.1 += u64::from(self.width);
                return Some(bits(self.run, first, self.width));
            }
            let head = self.unsigned()?;
            let count = head >> 1;
            if count == 0 {
                return None;
            }
            if head & 1 == 0 {
                let (value, rest) = self.bytes.split_at_checked(self.width.div_ceil(8) as usize)?;
                self.bytes = rest;
                self.repeated = (count, value.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)));
            } else {
                // Groups of eight; the last group of a page may be cut to its bytes.
                let length = usize::try_from(count.checked_mul(self.width.into())?).ok()?.min(self.bytes.len());
                let (run, rest) = self.bytes.split_at(length);
                let there = (length as u64 * 8).checked_div(self.width.into()).unwrap_or(u64::MAX);
                (self.run, self.bytes, self.packed) = (run, rest, (there.min(count.saturating_mul(8)), 0));
                if there == 0 {
                    return None;
                }
            }
        }
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// `width` bits from bit `first` on, the lowest first.
fn bits(bytes: &[u8], first: u64, width: u32) -> u32 {
    let at = (first / 8) as usize;
    let mut word = [0; 8];
    let there = bytes.len().saturating_sub(at).min(8);
    word[..there].copy_from_slice(&bytes[at..at + there]);
    let mask = if width == 32 { u32::MAX.into() } else { (1u64 << width) - 1 };
    (u64::from_le_bytes(word) >> (first % 8) & mask) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], width: u32) -> Vec<u32> {
        let mut hybrid = Hybrid::new(bytes, width).unwrap();
        std::iter::from_fn(|| hybrid.next()).take(1000).collect()
    }

    /// The format's own example packs 0 to 7 in three bits each into these bytes.
    #[test]
    fn runs_of_both_kinds_are_read() {
        assert_eq!(all(&[0x03, 0b1000_1000, 0b1100_0110, 0b1111_1010], 3), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(all(&[10, 4], 3), [4; 5]);
        assert_eq!(all(&[4, 1, 0x03, 0b1010_1010], 1), [1, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(all(&[4, 0x34, 0x12, 6, 1, 0], 12), [0x1234, 0x1234, 1, 1, 1]);
        assert_eq!(all(&[0x03, 1, 0, 0, 0x80], 32), [0x8000_0001]);
        assert_eq!((all(&[6], 0), all(&[3], 0)), (vec![0; 3], vec![0; 8]));
    }

    #[test]
    fn what_is_cut_ends() {
        for bytes in [&[][..], &[0x80], &[0], &[1], &[3], &[4], &[0xff; 12]] {
            assert_eq!(all(bytes, 8), [0; 0], "{bytes:?}");
        }
        assert!(Hybrid::new(&[], 33).is_none());
        bolero::check!().with_iterations(20_000).with_type::<(Vec<u8>, u8)>().for_each(|(bytes, width)| {
            all(bytes, u32::from(width % 33));
        });
    }
}
