//! Images that could not be read: each counted and named once, and too many of them an error.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::DataError;

/// The share of unreadable images above which a run stops, unless another is given.
pub const MAX_ERROR_SHARE: f64 = 0.05;

/// An image that was left out, for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in the data set.
    pub index: u32,
    /// Its name in the data set.
    pub name: String,
    /// Why it could not be decoded.
    pub reason: String,
}

/// What loaders over the same data set know together of its unreadable images; clones share it.
#[derive(Clone)]
pub struct Unreadable(pub(crate) Arc<Failures>);

impl Unreadable {
    /// Nothing known yet of a data set of `len` images; more than `max_error_share` of them, in [0, 1], end a stream with an error.
    pub fn new(max_error_share: f64, len: usize) -> Self {
        Self(Arc::new(Failures::new(max_error_share, len)))
    }
}

/// The images of one data set that failed so far.
pub(crate) struct Failures {
    share: f64,
    total: usize,
    count: AtomicUsize,
    state: Mutex<(HashSet<u32>, Vec<Skipped>)>,
}

impl Failures {
    pub(crate) fn new(share: f64, total: usize) -> Self {
        Self { share, total, count: AtomicUsize::new(0), state: Mutex::default() }
    }

    /// Whether image `index` is known to fail, so that it need not be tried again.
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.count() > 0 && self.state.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&index)
    }

    /// Takes note of an error at image `index`.
    ///
    /// # Errors
    /// The error itself if it is not about this image alone; [`DataError::TooManyErrors`] above the share.
    pub(crate) fn record(&self, index: u32, error: DataError) -> Result<(), DataError> {
        let DataError::Decode { name, reason } = error else { return Err(error) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.0.insert(index) {
            return Ok(());
        }
        let failed = state.0.len();
        self.count.store(failed, Ordering::Relaxed);
        let last = format!("{name}: {reason}");
        state.1.push(Skipped { index, name, reason });
        if failed as f64 > self.share * self.total as f64 {
            return Err(DataError::TooManyErrors { failed, total: self.total, share: self.share, last });
        }
        Ok(())
    }

    /// How many images failed so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The failures since the last call.
    pub(crate) fn take(&self) -> Vec<Skipped> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}
