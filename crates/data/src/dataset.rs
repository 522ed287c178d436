//! What a data set is to the rest of Diptych: numbered images, perhaps with labels.

use std::sync::Arc;

use diptych_augment::{Picture, PixelFormat};
use diptych_random::{Stream, hash};

use crate::DataError;

/// Numbered images, perhaps labeled. The order is fixed: index `i` is the same image in every run.
pub trait Dataset: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Image `i`, decoded, in the set's [`format`](Self::format).
    ///
    /// # Errors
    /// [`DataError::Decode`] if this one image cannot be read (the loader then replaces it); anything else ends the run.
    fn get(&self, i: usize) -> Result<Picture, DataError>;

    /// The class of image `i`, an index into [`classes`](Self::classes); `None` in an unlabeled set.
    fn label(&self, i: usize) -> Option<u32>;

    /// The names of the classes in the order of their labels; empty when the set is unlabeled.
    fn classes(&self) -> &[String];

    /// What image `i` shows, where it may show several things: for each of the [`target_classes`](Self::target_classes) 1 (shown), 0 (not) or -1 (too
    /// difficult to say, left out of training and judgment). `None` in a set of one class per image, or of none.
    fn targets(&self, i: usize) -> Option<&[i8]> {
        let _ = i;
        None
    }

    /// The names of the classes of [`targets`](Self::targets), in their order; empty where there are none.
    fn target_classes(&self) -> &[String] {
        &[]
    }

    /// What to call image `i` in messages: for files the path under the data folder, lossily where it is not UTF-8.
    fn name(&self, i: usize) -> String;

    /// A hash of the list of images (names and sizes, not pixels): a checkpoint refuses to go on with another list.
    fn fingerprint(&self) -> u64;

    /// Channels and depth of the images: 8-bit RGB unless a set says otherwise.
    fn format(&self) -> PixelFormat {
        PixelFormat::RGB
    }

    /// The image file of image `i` as it is stored, still encoded; `None` where the set keeps none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        let _ = i;
        Ok(None)
    }

    /// Whether there is no image at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A hash of image `i`'s identity that does not depend on its neighbors; hold-outs and subsets go by it.
    fn key(&self, i: usize) -> u64 {
        hash(self.name(i).as_bytes())
    }

    /// Image `i` behind a shared pointer; sets that keep decoded images hand them out without a copy.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn shared(&self, i: usize) -> Result<Arc<Picture>, DataError> {
        self.get(i).map(Arc::new)
    }
}

/// A training set, what to test on, and how these came about.
#[derive(Clone)]
pub struct Splits {
    /// What to pretrain on.
    pub train: Arc<dyn Dataset>,
    /// What to evaluate on; never seen in training.
    pub test: Option<Arc<dyn Dataset>>,
    /// Where pretraining uses images without labels beside a small labeled set (STL-10): that labeled set.
    pub labeled_train: Option<Arc<dyn Dataset>>,
    /// Sentences for the user: how the splits came about, what was skipped.
    pub notes: Vec<String>,
}

impl Splits {
    /// The images whose labels a kNN or linear classifier learns from: `labeled_train` where there is one, else `train`.
    pub fn bank(&self) -> &Arc<dyn Dataset> {
        self.labeled_train.as_ref().unwrap_or(&self.train)
    }

    /// Whether both the bank and the test split have labels, so that an accuracy can be measured.
    pub fn labeled(&self) -> bool {
        !self.bank().classes().is_empty() && self.test.as_ref().is_some_and(|test| !test.classes().is_empty())
    }

    /// Whether both say of each image which of several classes it shows.
    pub fn multi_labeled(&self) -> bool {
        let known = |set: &Arc<dyn Dataset>| !set.target_classes().is_empty();
        known(self.bank()) && self.test.as_ref().is_some_and(known)
    }
}

impl std::fmt::Debug for Splits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Splits")
            .field("train", &self.train.len())
            .field("test", &self.test.as_ref().map(|test| test.len()))
            .field("labeled_train", &self.labeled_train.as_ref().map(|set| set.len()))
            .field("notes", &self.notes)
            .finish()
    }
}

/// Some images of another data set, in the order given.
pub struct Subset {
    base: Arc<dyn Dataset>,
    indices: Vec<u32>,
}

impl Subset {
    /// The images `indices` of `base`, in this order.
    ///
    /// # Errors
    /// If an index is not one of `base`.
    pub fn new(base: Arc<dyn Dataset>, indices: Vec<u32>) -> Result<Self, DataError> {
        match indices.iter().find(|&&i| i as usize >= base.len()) {
            Some(i) => {
                Err(DataError::Invalid(format!("subset: index {i} is not below the data set's length {}", base.len())))
            }
            None => Ok(Self { base, indices }),
        }
    }

    /// The `n` images whose keys are lowest, in the order of `base`: the choice does not change when others are added or
    /// left out, and needs no seed. All of them where `n` is at least their number.
    pub fn by_key(base: Arc<dyn Dataset>, n: usize) -> Self {
        Self::split_by_key(base, n).0
    }

    /// As [`by_key`](Self::by_key), with the rest as a second set.
    pub fn split_by_key(base: Arc<dyn Dataset>, n: usize) -> (Self, Self) {
        let n = n.min(base.len());
        let mut order: Vec<(u64, u32)> = (0..base.len()).map(|i| (base.key(i), i as u32)).collect();
        order.sort_unstable();
        let part = |part: &[(u64, u32)]| {
            let mut indices: Vec<u32> = part.iter().map(|&(_, i)| i).collect();
            indices.sort_unstable();
            Self { base: base.clone(), indices }
        };
        (part(&order[..n]), part(&order[n..]))
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        self.base.get(self.indices[i] as usize)
    }
    fn label(&self, i: usize) -> Option<u32> {
        self.base.label(self.indices[i] as usize)
    }
    fn classes(&self) -> &[String] {
        self.base.classes()
    }
    fn targets(&self, i: usize) -> Option<&[i8]> {
        self.base.targets(self.indices[i] as usize)
    }
    fn target_classes(&self) -> &[String] {
        self.base.target_classes()
    }
    fn name(&self, i: usize) -> String {
        self.base.name(self.indices[i] as usize)
    }
    fn format(&self) -> PixelFormat {
        self.base.format()
    }
    fn fingerprint(&self) -> u64 {
        let mut fingerprint = Fingerprint::new("subset");
        fingerprint.add(&self.base.fingerprint().to_le_bytes());
        self.indices.iter().for_each(|i| fingerprint.add(&i.to_le_bytes()));
        fingerprint.finish()
    }
    fn key(&self, i: usize) -> u64 {
        self.base.key(self.indices[i] as usize)
    }
    fn shared(&self, i: usize) -> Result<Arc<Picture>, DataError> {
        self.base.shared(self.indices[i] as usize)
    }
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.base.encoded(self.indices[i] as usize)
    }
}

/// A running hash over the parts of a list, in order.
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new(kind: &str) -> Self {
        Self(hash(kind.as_bytes()))
    }

    pub(crate) fn add(&mut self, part: &[u8]) {
        // The length goes in too, so that ["ab", "c"] is not ["a", "bc"].
        self.0 = Stream::keyed(self.0, &[part.len() as u64, hash(part)]).next_u64();
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}
