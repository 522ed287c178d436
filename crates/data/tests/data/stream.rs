//! A data set in memory that records what is asked of it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use diptych_augment::{Image, Picture};
use diptych_data::{DataError, Dataset};

/// Pictures of 12 x 10 pixels, each of its own color and with a bright corner.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) len: usize,
    /// These cannot be decoded.
    pub(crate) broken: HashSet<usize>,
    /// Asking for this one panics.
    pub(crate) panics_at: Option<usize>,
    /// Asking for this one is an error of the whole set.
    pub(crate) fails_at: Option<usize>,
    /// How long a picture takes.
    pub(crate) delay: Duration,
    /// What was asked for, in order.
    pub(crate) asked: Mutex<Vec<usize>>,
}

impl Recorded {
    pub(crate) fn new(len: usize) -> Self {
        Self { len, ..Self::default() }
    }

    pub(crate) fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }
}

impl Dataset for Recorded {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        self.asked.lock().unwrap().push(i);
        std::thread::sleep(self.delay);
        assert!(self.panics_at != Some(i), "image {i} is cursed");
        if self.fails_at == Some(i) {
            return Err(DataError::Invalid(format!("the disk is gone at {i}")));
        }
        if self.broken.contains(&i) {
            return Err(DataError::Decode { name: self.name(i), reason: "torn".into() });
        }
        let mut image = Image::filled(12, 10, [i as u8, (i * 7) as u8, (i * 31 + 5) as u8]);
        image.pixels[..9].fill(255);
        Ok(image.into())
    }
    fn label(&self, i: usize) -> Option<u32> {
        Some((i % 3) as u32)
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn name(&self, i: usize) -> String {
        format!("picture {i}")
    }
    fn fingerprint(&self) -> u64 {
        self.len as u64
    }
}
