//! The part of a packed file that says which splits it holds, what their classes are, and how it was made.

use diptych_augment::{Depth, MAX_CHANNELS, PixelFormat};

use super::PackFormat;
use super::layout::u32_at;

/// Which split a set of a packed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Train,
    Test,
    LabeledTrain,
}

/// One split: its images are those after the images of the sets before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) role: Role,
    pub(crate) images: u64,
    pub(crate) format: PixelFormat,
    /// The names of the classes; none where the set is unlabeled.
    pub(crate) classes: Vec<String>,
}

/// What a packed file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) short_side: u32,
    pub(crate) format: PackFormat,
    pub(crate) quality: u8,
    /// Images that could not be read when it was made.
    pub(crate) left_out: u64,
    /// What was said about the data that it was made of.
    pub(crate) notes: Vec<String>,
    pub(crate) sets: Vec<Set>,
}

/// The number that stands for a depth in the file: the bytes of one number.
pub(crate) fn depth_number(depth: Depth) -> u8 {
    depth.size() as u8
}

/// The format of these channels and this depth, if there is one.
pub(crate) fn pixel_format(channels: u8, depth: u8) -> Option<PixelFormat> {
    let depth = [Depth::U8, Depth::U16, Depth::F32].into_iter().find(|known| depth_number(*known) == depth)?;
    let channels = usize::from(channels);
    (1..=MAX_CHANNELS).contains(&channels).then_some(PixelFormat { channels, depth })
}

impl About {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.short_side.to_le_bytes());
        out.extend([self.format as u8, self.quality]);
        out.extend(self.left_out.to_le_bytes());
        put_strings(&mut out, &self.notes);
        out.push(self.sets.len() as u8);
        for set in &self.sets {
            out.push(set.role as u8);
            out.extend(set.images.to_le_bytes());
            out.extend([set.format.channels as u8, depth_number(set.format.depth)]);
            put_strings(&mut out, &set.classes);
        }
        out
    }

    /// Reads all of `bytes`; `None` if they are anything else than what [`to_bytes`](Self::to_bytes) makes, or there is no training set or a
    /// set twice.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let short_side = reader.u32()?;
        let format = match reader.u8()? {
            0 => PackFormat::Raw,
            1 => PackFormat::Jpeg,
            2 => PackFormat::Png,
            _ => return None,
        };
        let (quality, left_out, notes) = (reader.u8()?, reader.u64()?, reader.strings()?);
        let mut sets: Vec<Set> = Vec::new();
        for _ in 0..reader.u8()? {
            let role = match reader.u8()? {
                0 => Role::Train,
                1 => Role::Test,
                2 => Role::LabeledTrain,
                _ => return None,
            };
            let images = reader.u64()?;
            let format = pixel_format(reader.u8()?, reader.u8()?)?;
            if sets.iter().any(|set| set.role == role) {
                return None;
            }
            sets.push(Set { role, images, format, classes: reader.strings()? });
        }
        let whole = reader.0.is_empty() && sets.iter().any(|set| set.role == Role::Train);
        whole.then_some(Self { short_side, format, quality, left_out, notes, sets })
    }
}

fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    out.extend((strings.len() as u32).to_le_bytes());
    for string in strings {
        out.extend((string.len() as u32).to_le_bytes());
        out.extend(string.as_bytes());
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }
    fn u32(&mut self) -> Option<u32> {
        u32_at(self.take(4)?, 0)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
    /// Every string takes at least its length's four bytes, so that no count makes the list longer than the file.
    fn strings(&mut self) -> Option<Vec<String>> {
        let mut strings = Vec::new();
        for _ in 0..self.u32()? {
            let len = self.u32()? as usize;
            strings.push(str::from_utf8(self.take(len)?).ok()?.to_owned());
        }
        Some(strings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        let set = |role, images, classes: &[&str]| Set {
            role,
            images,
            format: PixelFormat { channels: 4, depth: Depth::U16 },
            classes: classes.iter().map(|&class| class.to_owned()).collect(),
        };
        About {
            short_side: 256,
            format: PackFormat::Png,
            quality: 95,
            left_out: 3,
            notes: vec!["one".into(), String::new(), "zwölf".into()],
            sets: vec![set(Role::Train, 10, &["a", "b"]), set(Role::LabeledTrain, 2, &[]), set(Role::Test, 1, &["b"])],
        }
    }

    #[test]
    fn it_survives_the_way_through_bytes() {
        assert_eq!(About::read(&about().to_bytes()), Some(about()));
    }

    #[test]
    fn what_is_cut_off_or_longer_or_without_a_training_set_is_refused() {
        let bytes = about().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(About::read(&bytes[..len]), None, "{len}");
        }
        assert_eq!(About::read(&[bytes.clone(), vec![0]].concat()), None);
        let changed = |change: &dyn Fn(&mut About)| {
            let mut about = about();
            change(&mut about);
            About::read(&about.to_bytes())
        };
        assert_eq!(changed(&|about| about.sets[0].role = Role::Test), None, "two test sets");
        assert_eq!(changed(&|about| drop(about.sets.remove(0))), None, "no training set");
        assert_eq!(changed(&|about| about.sets[0].format.channels = 17), None);
        let mut huge = bytes;
        huge[14..18].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(About::read(&huge), None, "four billion notes");
    }
}
