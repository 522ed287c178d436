//! Snappy that can be entered in the middle: compressors begin anew every 64 KiB, so a page falls into runs that unpack alone.
//!
//! An image in a page of a hundred megabytes is then as near as one in a file: one or two runs are read and unpacked. Where a
//! compressor looks further back, the runs are longer; a page is one run at worst.

/// Where compressors begin anew.
const BLOCK: u64 = 1 << 16;

/// A run of elements that refers to nothing before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its first byte in the unpacked page.
    pub(crate) start: u64,
    /// Its first byte in the packed page.
    pub(crate) at: u64,
}

/// The runs of a packed page of this unpacked length; `None` if it is damaged.
pub(crate) fn runs(packed: &[u8], unpacked: u64) -> Option<Vec<Run>> {
    let (said, mut at) = length(packed)?;
    if said != unpacked {
        return None;
    }
    let mut runs = vec![Run { start: 0, at: at as u64 }];
    let mut out = 0u64;
    while at < packed.len() {
        if out.is_multiple_of(BLOCK) && out > 0 {
            runs.push(Run { start: out, at: at as u64 });
        }
        let tag = usize::from(packed[at]);
        let operand = |n: usize| -> Option<usize> {
            let bytes = packed.get(at + 1..at + 1 + n)?;
            Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
        };
        let (step, length, back) = match tag & 3 {
            0 => {
                let short = tag >> 2;
                let wide = short.saturating_sub(59);
                let length = 1 + if wide == 0 { short } else { operand(wide)? };
                (1 + wide + length, length, None)
            }
            1 => (2, 4 + (tag >> 2 & 7), Some((tag >> 5) << 8 | operand(1)?)),
            2 => (3, 1 + (tag >> 2), Some(operand(2)?)),
            _ => (5, 1 + (tag >> 2), Some(operand(4)?)),
        };
        if let Some(back) = back {
            let from = out.checked_sub(back as u64).filter(|_| back > 0)?;
            while runs.last().is_some_and(|run| run.start > from) {
                runs.pop();
            }
        }
        at = at.checked_add(step).filter(|&at| at <= packed.len())?;
        out += length as u64;
        if out > unpacked {
            return None;
        }
    }
    (out == unpacked).then_some(runs)
}

/// The unpacked length that a packed page begins with, and how many bytes that takes.
fn length(packed: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, &byte) in packed.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// What makes a run of this unpacked length a page of its own: the length, to be written before it.
pub(crate) fn head(length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = length;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Unpacks one run, after its [`head`], into `length` bytes; `None` if it is damaged.
pub(crate) fn unpack(page: &[u8], length: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    let written = snap::raw::Decoder::new().decompress(page, &mut bytes).ok()?;
    (written == bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], packed: &[u8], expected: usize) {
        let runs = runs(packed, bytes.len() as u64).unwrap();
        assert_eq!(runs.len(), expected);
        for (i, run) in runs.iter().enumerate() {
            let (end, next) =
                runs.get(i + 1).map_or((bytes.len(), packed.len()), |run| (run.start as usize, run.at as usize));
            let length = (end - run.start as usize) as u32;
            let part = unpack(&[&head(length), &packed[run.at as usize..next]].concat(), length).unwrap();
            assert!(part == bytes[run.start as usize..end], "run {i}");
        }
    }

    /// Some noise, some text, some zeros.
    fn mixed(length: usize) -> Vec<u8> {
        let mut stream = diptych_random::Stream::keyed(3, &[1]);
        let noise: Vec<u8> = (0..length).map(|_| stream.next_u64() as u8).collect();
        let at = |i: usize| {
            if i % 3000 < 1000 {
                noise[i]
            } else if i % 3000 < 2000 {
                b"packed text "[i % 12]
            } else {
                0
            }
        };
        (0..length).map(at).collect()
    }

    #[test]
    fn every_run_unpacks_alone() {
        for (length, expected) in [(1, 1), (65_536, 1), (65_537, 2), (300_000, 5)] {
            let bytes = mixed(length);
            check(&bytes, &snap::raw::Encoder::new().compress_vec(&bytes).unwrap(), expected);
        }
    }

    /// By hand: 65,536 zeros in literals, then a copy that reaches back over the boundary.
    #[test]
    fn a_reference_over_the_boundary_joins_runs() {
        let mut packed = vec![0x84, 0x80, 0x04, 0xf4, 0xff, 0xff];
        packed.extend([7; 65_536]);
        let copy = [2u8 | 3 << 2, 4, 0];
        check(&[7; 65_540], &[&packed[..], &copy].concat(), 1);
        let literal = [3u8 << 2, 7, 7, 7, 7];
        check(&[7; 65_540], &[&packed[..], &literal].concat(), 2);
    }

    #[test]
    fn damage_is_noticed() {
        let bytes = mixed(70_000);
        let packed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        assert!(runs(&packed, 70_001).is_none() && runs(&packed[..packed.len() - 1], 70_000).is_none());
        for bad in [&b""[..], &[0xff; 6], &[4, 0xf0], &[4, 1, 1], &[4, 12, 1, 2], &[2, 12, 1, 2, 3, 4]] {
            assert!(runs(bad, 4).is_none() && runs(bad, 2).is_none(), "{bad:?}");
        }
        assert!(unpack(&[4, 12, 1, 2], 4).is_none() && unpack(&[3, 8, 1, 2, 3], 4).is_none());
    }

    /// Against the decoder of the format's own crate: both take a page or both refuse it.
    #[test]
    fn runs_and_the_decoder_agree_on_any_bytes() {
        let good = snap::raw::Encoder::new().compress_vec(&mixed(200)).unwrap();
        bolero::check!().with_iterations(20_000).with_type::<Vec<(u8, u8)>>().for_each(|edits| {
            let mut packed = good.clone();
            for &(at, value) in edits {
                let at = usize::from(at) % packed.len();
                packed[at] = value;
            }
            if let Ok(length) = snap::raw::decompress_len(&packed)
                && length < 1 << 16
            {
                let decoded = snap::raw::Decoder::new().decompress_vec(&packed);
                let found = runs(&packed, length as u64);
                assert_eq!(decoded.is_ok(), found.is_some());
                if let Ok(bytes) = decoded {
                    check(&bytes, &packed, found.unwrap().len());
                }
            }
        });
    }
}
