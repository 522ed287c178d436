//! All images of a set once, in order, for evaluation.

use std::sync::Arc;

use candle_core::Tensor;
use diptych_augment::{PerChannel, Picture};

use crate::failures::Failures;
use crate::loader::{check_len, stack};
use crate::pipeline::{Job, Pipeline, Plan};
use crate::{DataError, Dataset, Skipped};

/// Some images in the order of the data set.
#[derive(Clone, Debug)]
pub struct EvalBatch {
    /// The middles of the images, normalized, `[n, S, S, C]`.
    pub images: Tensor,
    /// One label per image, where the data set has them.
    pub labels: Option<Vec<u32>>,
    /// The images' places in the data set.
    pub indices: Vec<u32>,
}

/// The stream of [`eval_batches`].
pub struct EvalBatches {
    pipeline: Pipeline<Evaluation>,
    job: Arc<Evaluation>,
}

/// All images of `dataset` in order, `batch_size` at a time, as [`center_view`](Picture::center_view)s of `size` normalized by `mean` and `std`,
/// made by `workers` threads.
///
/// An image that cannot be decoded is left out, with its label and index, and counted; above `max_error_share` of the set
/// the stream ends with an error. A batch of which nothing is left is passed over.
///
/// # Errors
/// If `batch_size` or `size` is zero, or a standard deviation is not positive.
pub fn eval_batches(
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    size: usize,
    mean: PerChannel,
    std: PerChannel,
    workers: usize,
    max_error_share: f64,
) -> Result<EvalBatches, DataError> {
    check_len(dataset.len())?;
    if batch_size == 0 || size == 0 || std.iter().any(|std| !std.is_finite() || *std <= 0.0) {
        return Err(DataError::Invalid(format!(
            "evaluation with batch size {batch_size}, image size {size}, std {std:?}: all must be above 0"
        )));
    }
    let format = dataset.format();
    if mean.len() != format.channels || std.len() != format.channels {
        return Err(DataError::Invalid(format!(
            "the images have {format}, the backbone was trained with {} channels (numbers of mean and std): use data of as many",
            mean.len()
        )));
    }
    let failures = Failures::new(max_error_share, dataset.len());
    let job = Arc::new(Evaluation { dataset, batch_size, size, mean, std, failures });
    Ok(EvalBatches { pipeline: Pipeline::start(job.clone(), workers, 2)?, job })
}

impl EvalBatches {
    /// The images found unreadable since the last call.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        self.job.failures.take()
    }

    /// How many images were found unreadable so far.
    pub fn skipped(&self) -> usize {
        self.job.failures.count()
    }
}

impl Iterator for EvalBatches {
    type Item = Result<EvalBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.pipeline.next()? {
                Ok(batch) if batch.indices.is_empty() => {}
                other => return Some(other),
            }
        }
    }
}

/// The job of [`EvalBatches`].
struct Evaluation {
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    size: usize,
    mean: PerChannel,
    std: PerChannel,
    failures: Failures,
}

impl Job for Evaluation {
    /// `None` if the image could not be decoded.
    type Item = Option<(u32, Picture)>;
    type Out = EvalBatch;

    fn plan(&self, step: u64) -> Option<Plan> {
        let start =
            usize::try_from(step).ok()?.checked_mul(self.batch_size).filter(|&start| start < self.dataset.len())?;
        let end = self.dataset.len().min(start + self.batch_size);
        Some(Plan { epoch: 0, indices: (start as u32..end as u32).collect() })
    }

    fn sample(&self, _epoch: u64, index: u32) -> Result<Self::Item, DataError> {
        match self.dataset.shared(index as usize) {
            Ok(image) => Ok(Some((index, image.center_view(self.size)))),
            Err(error) => self.failures.record(index, error).map(|()| None),
        }
    }

    fn assemble(&self, items: Vec<Self::Item>) -> Result<EvalBatch, DataError> {
        let items: Vec<(u32, Picture)> = items.into_iter().flatten().collect();
        Ok(EvalBatch {
            images: stack(items.iter().map(|(_, image)| image), self.size, &self.mean, &self.std)?,
            labels: items.iter().map(|&(index, _)| self.dataset.label(index as usize)).collect(),
            indices: items.iter().map(|&(index, _)| index).collect(),
        })
    }
}
