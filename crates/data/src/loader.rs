//! Batches of random views for training: deterministic, in order, ready before they are needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use diptych_augment::{Picture, Recipe, ViewRecipe};
use diptych_random::Stream;

use crate::failures::{Failures, Unreadable};
use crate::finish::{Augmented, Finish, Rows};
use crate::pipeline::{Job, Pipeline, Plan};
use crate::sampler::Classes;
use crate::{Cached, DataError, Dataset, MAX_ERROR_SHARE, Sampler, Sampling, Skipped};

/// Keeps the draws of replacements apart from every other use of the seed.
const REPLACE: u64 = u64::from_be_bytes(*b"replace\0");
/// Draws of a replacement before a batch is given up.
const MAX_DRAWS: usize = 10_000;

/// How to make batches.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Images per batch, those of all ranks together.
    pub batch_size: usize,
    /// Which rank of a run this is: its batches are rows `rank N / ranks` to `(rank + 1) N / ranks` of the run's.
    pub rank: usize,
    /// How many ranks share each batch; the batch divides by their number.
    pub ranks: usize,
    /// The seed of the run: of the order, of the views and of replacements.
    pub seed: u64,
    /// Threads that decode and augment; at least 1. Their number changes the speed, not the batches.
    pub workers: usize,
    /// Batches ready or in the making at most, at least 1; each takes `V N S S 3` floats.
    pub prefetch: usize,
    /// How the views are made.
    pub recipe: Recipe,
    /// Leave out the last images of an epoch that do not fill a batch.
    pub drop_last: bool,
    /// Which images an epoch shows.
    pub sampling: Sampling,
    /// The share of unreadable images in [0, 1] above which the stream ends with an error; each image counts once per loader.
    pub max_error_share: f64,
    /// Decoded images are kept in memory up to this many bytes; 0 keeps none.
    pub cache_bytes: usize,
    /// The global step of the first batch: the stream equals that of step 0 without its first batches.
    pub start: u64,
    /// The global step before which the stream ends; `None` never ends.
    pub end: Option<u64>,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 256,
            rank: 0,
            ranks: 1,
            seed: 0,
            workers: 1,
            prefetch: 3,
            recipe: Recipe::default(),
            drop_last: true,
            sampling: Sampling::Shuffled,
            max_error_share: MAX_ERROR_SHARE,
            cache_bytes: 0,
            start: 0,
            end: None,
        }
    }
}

/// A stream of training batches; iterate over it.
///
/// The batch of a step is a function of data set, recipe, batch size, seed and step alone: ranks share out its rows, and each decodes
/// its own. After an error the stream ends. Dropping it ends its threads.
///
/// An image that cannot be decoded is replaced by one drawn from (seed, epoch, index); a batch's indices and labels are those of the images
/// that are shown.
pub struct Loader<F: Finish = Augmented> {
    pipeline: Pipeline<Training<F>>,
    job: Arc<Training<F>>,
    waited: Duration,
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the recipe or a number of the configuration makes no sense, or the data set is smaller than one batch.
    pub fn new(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Result<Self, DataError> {
        let known = Unreadable::new(config.max_error_share, dataset.len());
        Self::with_known(dataset, config, known)
    }

    /// Like [`Self::new`], with what is known of unreadable images, by this loader and by others over the same data set: the ranks of a
    /// process count each image once together. The share above which the stream ends is that of `known`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_known(dataset: Arc<dyn Dataset>, config: LoaderConfig, known: Unreadable) -> Result<Self, DataError> {
        Self::finishing(dataset, config, known, Augmented)
    }
}

impl<F: Finish> Loader<F> {
    /// Like [`Loader::with_known`], for batches that are made as `finish` says.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn finishing(
        dataset: Arc<dyn Dataset>,
        config: LoaderConfig,
        known: Unreadable,
        finish: F,
    ) -> Result<Self, DataError> {
        let len = dataset.len();
        config.recipe.check_for(dataset.format()).map_err(|error| DataError::Invalid(format!("augment: {error}")))?;
        let views = config.recipe.views();
        if views.is_empty() {
            return Err(DataError::Invalid(
                "augment.views is empty: give one entry per view, such as views = [{}, {}]".into(),
            ));
        }
        if !(0.0..=1.0).contains(&config.max_error_share) {
            let share = config.max_error_share;
            return Err(DataError::Invalid(format!("data.max_error_share is {share}, expected a share from 0 to 1")));
        }
        check_len(len)?;
        let classes = match config.sampling {
            Sampling::Shuffled => None,
            Sampling::Balanced => Some(Classes::new((0..len).map(|i| dataset.label(i))).ok_or_else(|| {
                DataError::Invalid(
                    "data.sampling = \"balanced\" needs a label for every training image, as class folders give".into(),
                )
            })?),
        };
        let LoaderConfig { batch_size, seed, drop_last, .. } = config;
        let sampler = Sampler { len, batch_size, seed, drop_last, classes };
        if config.batch_size == 0 {
            return Err(DataError::Invalid("trainer.batch_size is 0, expected at least 1".into()));
        }
        if sampler.steps_per_epoch() == 0 {
            return Err(DataError::Invalid(format!(
                "trainer.batch_size is {}, more than the {len} training images: use at most {len}, or more images",
                config.batch_size
            )));
        }
        let (rank, ranks) = (config.rank, config.ranks);
        if rank >= ranks || !config.batch_size.is_multiple_of(ranks) || (ranks > 1 && !config.drop_last) {
            return Err(DataError::Invalid(format!(
                "trainer.batch_size = {} is shared by {ranks} ranks, of which this is {rank}: their number must divide it, and \
                 every batch must be whole",
                config.batch_size
            )));
        }
        let job = Arc::new(Training {
            finish,
            sampler,
            rank,
            ranks,
            order: Mutex::default(),
            views,
            failures: known.0,
            start: config.start,
            end: config.end.unwrap_or(u64::MAX),
            dataset: if config.cache_bytes > 0 { Arc::new(Cached::new(dataset, config.cache_bytes)) } else { dataset },
        });
        let pipeline = Pipeline::start(job.clone(), config.workers, config.prefetch)?;
        Ok(Self { pipeline, job, waited: Duration::ZERO })
    }

    /// Batches in one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.job.sampler.steps_per_epoch()
    }

    /// Seconds that the caller has waited for batches so far, all together.
    pub fn wait_seconds(&self) -> f64 {
        self.waited.as_secs_f64()
    }

    /// The images found unreadable since the last call, each once per loader or per [`Unreadable`] that loaders share; for
    /// `skipped.log`.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        self.job.failures.take()
    }

    /// How many images were found unreadable so far.
    pub fn skipped(&self) -> usize {
        self.job.failures.count()
    }
}

impl<F: Finish> Iterator for Loader<F> {
    type Item = Result<F::Batch, DataError>;

    /// The next batch; waits for it.
    fn next(&mut self) -> Option<Self::Item> {
        let begun = Instant::now();
        let batch = self.pipeline.next();
        self.waited += begun.elapsed();
        batch
    }
}

/// Indices are 32 bits wide.
pub(crate) fn check_len(len: usize) -> Result<(), DataError> {
    if u32::try_from(len).is_err() {
        return Err(DataError::Invalid(format!(
            "{len} images are more than the {} that one data set may have",
            u32::MAX
        )));
    }
    Ok(())
}

/// Writes pictures of `size` x `size` into one tensor `[N, size, size, C]`, normalized; C numbers are in `mean` and `std`.
pub(crate) fn stack<'a>(
    images: impl ExactSizeIterator<Item = &'a Picture>,
    size: usize,
    mean: &[f32],
    std: &[f32],
) -> Result<Tensor, DataError> {
    let (n, channels) = (images.len(), mean.len());
    let mut data = Vec::with_capacity(n * size * size * channels);
    images.for_each(|image| image.normalize_onto(mean, std, &mut data));
    Tensor::from_vec(data, (n, size, size, channels), &Device::Cpu)
        .map_err(|error| DataError::Worker(error.to_string()))
}

/// The loader's job.
struct Training<F> {
    finish: F,
    dataset: Arc<dyn Dataset>,
    sampler: Sampler,
    /// The order of the epoch planned last.
    order: Mutex<Option<(u64, Vec<u32>)>>,
    views: Vec<ViewRecipe>,
    rank: usize,
    ranks: usize,
    failures: Arc<Failures>,
    start: u64,
    end: u64,
}

/// One image as it goes into a batch.
struct Sample<S> {
    index: u32,
    label: Option<u32>,
    made: S,
}

impl<F: Finish> Training<F> {
    /// Image `index`, or its replacement in this epoch, and where it lies.
    fn load(&self, epoch: u64, index: u32) -> Result<(u32, Arc<Picture>), DataError> {
        if let Some(image) = self.attempt(index)? {
            return Ok((index, image));
        }
        let mut draws = Stream::keyed(self.sampler.seed, &[REPLACE, epoch, u64::from(index)]);
        for _ in 0..MAX_DRAWS {
            let other = draws.below(self.sampler.len as u64) as u32;
            if let Some(image) = self.attempt(other)? {
                return Ok((other, image));
            }
        }
        Err(DataError::Invalid(format!(
            "no readable image found to replace {} in {MAX_DRAWS} draws: are the files images?",
            self.dataset.name(index as usize)
        )))
    }

    /// Image `index`; `None`, and taken note of, if it cannot be decoded.
    fn attempt(&self, index: u32) -> Result<Option<Arc<Picture>>, DataError> {
        if self.failures.contains(index) {
            return Ok(None);
        }
        match self.dataset.shared(index as usize) {
            Ok(image) => Ok(Some(image)),
            Err(error) => self.failures.record(index, error).map(|()| None),
        }
    }
}

impl<F: Finish> Job for Training<F> {
    type Item = Sample<F::Sample>;
    type Out = F::Batch;

    fn plan(&self, step: u64) -> Option<Plan> {
        let step = self.start.checked_add(step).filter(|&step| step < self.end)?;
        let (epoch, batch) = self.sampler.position(step);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            *order = Some((epoch, self.sampler.order(epoch)));
        }
        let (_, order) = order.as_ref()?;
        let whole = self.sampler.batch(order, batch);
        let rows = whole.len() / self.ranks;
        let indices = whole[self.rank * rows..(self.rank + 1) * rows].to_vec();
        Some(Plan { epoch, indices })
    }

    fn sample(&self, epoch: u64, index: u32) -> Result<Self::Item, DataError> {
        let (shown, image) = self.load(epoch, index)?;
        // By the index that was to come, so that an image that replaces another gets views of its own.
        let stream = |v: usize| Stream::keyed(self.sampler.seed, &[epoch, u64::from(index), v as u64]);
        let made = self.finish.sample(image, &self.views, &stream);
        Ok(Sample { index: shown, label: self.dataset.label(shown as usize), made })
    }

    fn assemble(&self, samples: Vec<Self::Item>) -> Result<F::Batch, DataError> {
        let labels = samples.iter().map(|sample| sample.label).collect();
        let index = samples.iter().map(|sample| sample.index).collect();
        let made = samples.into_iter().map(|sample| sample.made).collect();
        self.finish.batch(made, &self.views, Rows { labels, index })
    }
}
