//! The embedded pictures as a data set.

use diptych_augment::Picture;

use crate::dataset::Fingerprint;
use crate::synthetic::{CLASSES, Split, draw, label};
use crate::{DataError, Dataset};

/// A number of drawn pictures of one split; each is drawn when it is asked for.
pub struct Synthetic {
    seed: u64,
    split: Split,
    len: usize,
    size: usize,
    classes: Vec<String>,
}

impl Synthetic {
    /// The first `len` pictures of a split, `size` x `size`.
    pub fn new(seed: u64, split: Split, len: usize, size: usize) -> Self {
        Self { seed, split, len, size, classes: CLASSES.iter().map(|&name| name.to_owned()).collect() }
    }
}

impl Dataset for Synthetic {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        Ok(draw(self.seed, self.split, i as u64, self.size).0.into())
    }
    fn label(&self, i: usize) -> Option<u32> {
        Some(label(self.seed, self.split, i as u64))
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        format!("{}/{i:06}", self.split.name())
    }
    fn fingerprint(&self) -> u64 {
        let mut fingerprint = Fingerprint::new("synthetic");
        for part in [self.seed, self.split as u64, self.len as u64, self.size as u64] {
            fingerprint.add(&part.to_le_bytes());
        }
        fingerprint.finish()
    }
}
