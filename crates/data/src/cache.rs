//! Decoded images kept in memory, as many as fit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use diptych_augment::{Picture, PixelFormat};

use crate::{DataError, Dataset};

/// A data set that keeps what it has decoded until a number of bytes is full; nothing is ever thrown out.
///
/// For sets that fit (drawn ones, CIFAR-10, small folders): one `Arc<Cached>` serves training and evaluation.
pub struct Cached {
    base: Arc<dyn Dataset>,
    images: Vec<OnceLock<Arc<Picture>>>,
    limit: usize,
    used: AtomicUsize,
}

impl Cached {
    /// Keeps up to `limit` bytes of decoded pixels of `base`.
    pub fn new(base: Arc<dyn Dataset>, limit: usize) -> Self {
        let images = (0..base.len()).map(|_| OnceLock::new()).collect();
        Self { base, images, limit, used: AtomicUsize::new(0) }
    }

    /// Bytes of pixels kept now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Dataset for Cached {
    fn len(&self) -> usize {
        self.base.len()
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        self.shared(i).map(Arc::unwrap_or_clone)
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.base.label(i)
    }
    fn classes(&self) -> &[String] {
        self.base.classes()
    }
    fn targets(&self, i: usize) -> Option<&[i8]> {
        self.base.targets(i)
    }
    fn target_classes(&self) -> &[String] {
        self.base.target_classes()
    }
    fn name(&self, i: usize) -> String {
        self.base.name(i)
    }
    fn format(&self) -> PixelFormat {
        self.base.format()
    }
    fn fingerprint(&self) -> u64 {
        self.base.fingerprint()
    }
    fn key(&self, i: usize) -> u64 {
        self.base.key(i)
    }
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.base.encoded(i)
    }
    fn shared(&self, i: usize) -> Result<Arc<Picture>, DataError> {
        if let Some(image) = self.images[i].get() {
            return Ok(image.clone());
        }
        let image = self.base.shared(i)?;
        let bytes = image.bytes();
        // Bytes are reserved before they are kept, so that workers together stay below the limit.
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit
            || self.images[i].set(image.clone()).is_err()
        {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(image)
    }
}
