//! Representations of a whole data set.

use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use diptych_augment::PerChannel;
use diptych_data::{Dataset, EvalBatch, EvalBatches, eval_batches};
use diptych_nn::Backbone;

/// Rows that go through a backbone at once.
const ROWS: usize = 256;

/// How images are prepared for evaluation: the middle of each, `size` x `size`, normalized.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Side of the square that the backbone sees.
    pub size: usize,
    /// Mean of each channel, of values in [0, 1].
    pub mean: PerChannel,
    /// Standard deviation of each channel.
    pub std: PerChannel,
    /// Images per batch; changes the speed, not the features.
    pub batch_size: usize,
    /// Threads that decode; changes the speed, not the features.
    pub workers: usize,
    /// The share of images that may be undecodable, and are left out; above it the features end with an error.
    pub max_error_share: f64,
}

impl Default for Transform {
    /// 224 pixels, ImageNet's mean and standard deviation, a decoding thread per processor.
    fn default() -> Self {
        Self {
            size: 224,
            mean: diptych_augment::IMAGENET_MEAN.into(),
            std: diptych_augment::IMAGENET_STD.into(),
            batch_size: ROWS,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_error_share: diptych_data::MAX_ERROR_SHARE,
        }
    }
}

impl Transform {
    /// The prepared images of a data set, batch by batch.
    pub(crate) fn batches(&self, dataset: Arc<dyn Dataset>, batch_size: usize) -> Result<EvalBatches> {
        Ok(eval_batches(dataset, batch_size, self.size, self.mean, self.std, self.workers, self.max_error_share)?)
    }
}

/// Features of a data set's images, in its order.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[M, F]` f32.
    pub x: Tensor,
    /// One class per row, if every image has one.
    pub labels: Option<Vec<u32>>,
    /// The place in the data set of each row: images that cannot be decoded have none.
    pub indices: Vec<u32>,
    /// How many images could not be decoded.
    pub skipped: usize,
}

impl Features {
    /// The labels, or an error that says what needs them.
    pub(crate) fn labels(&self, what: &str) -> Result<&[u32]> {
        match &self.labels {
            Some(labels) => Ok(labels),
            None => bail!("{what} needs a label for every image: class folders, or a data set that has labels"),
        }
    }
}

/// The representations of `x` `[N, H, W, C]` in evaluation mode, `[N, F]`: detached, a part of the rows at a time.
///
/// # Errors
/// If the backbone refuses the images.
pub fn forward(backbone: &dyn Backbone, x: &Tensor) -> Result<Tensor> {
    let (rows, device) = (x.dim(0)?, backbone.device());
    let parts = (0..rows)
        .step_by(ROWS)
        .map(|start| {
            let part = x.narrow(0, start, ROWS.min(rows - start))?.to_device(&device)?;
            Ok(backbone.forward_t(&part, false)?.detach())
        })
        .collect::<Result<Vec<Tensor>>>()?;
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        _ => Ok(Tensor::cat(&parts, 0)?),
    }
}

/// The representations of all images of `dataset`, in evaluation mode.
///
/// # Errors
/// If too many images cannot be decoded, there is none, or the backbone refuses them.
pub fn features(backbone: &dyn Backbone, dataset: &Arc<dyn Dataset>, transform: &Transform) -> Result<Features> {
    features_with(backbone, dataset, transform, &mut |_, _| {})
}

/// [`features`] with `progress(done, all)` called after each batch.
///
/// # Errors
/// As [`features`].
pub fn features_with(
    backbone: &dyn Backbone,
    dataset: &Arc<dyn Dataset>,
    transform: &Transform,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Features> {
    collect(dataset, transform, progress, &mut |batch| forward(backbone, &batch.images))
}

/// The prepared pixels themselves as features, `[M, S S C]`: what every representation must beat.
///
/// # Errors
/// As [`features`].
pub fn pixels(dataset: &Arc<dyn Dataset>, transform: &Transform) -> Result<Features> {
    collect(dataset, transform, &mut |_, _| {}, &mut |batch| Ok(batch.images.flatten_from(1)?))
}

fn collect(
    dataset: &Arc<dyn Dataset>,
    transform: &Transform,
    progress: &mut dyn FnMut(usize, usize),
    embed: &mut dyn FnMut(&EvalBatch) -> Result<Tensor>,
) -> Result<Features> {
    let (mut parts, mut labels, mut indices) = (Vec::new(), Some(Vec::new()), Vec::new());
    let mut batches = transform.batches(dataset.clone(), transform.batch_size)?;
    for batch in &mut batches {
        let batch = batch?;
        parts.push(embed(&batch)?);
        indices.extend(&batch.indices);
        labels = match (labels, batch.labels) {
            (Some(mut all), Some(more)) => {
                all.extend(more);
                Some(all)
            }
            _ => None,
        };
        progress(indices.len(), dataset.len());
    }
    if parts.is_empty() {
        bail!("there is no image to evaluate on")
    }
    let x = Tensor::cat(&parts, 0)?.to_device(&Device::Cpu)?;
    Ok(Features { x, labels, indices, skipped: batches.skipped() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, MeanColor, transform};

    /// Rows come in the data set's order, whatever batch size and number of threads.
    #[test]
    fn features_are_those_of_each_image_alone() -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(37, 3));
        let expected: Vec<Vec<f32>> = (0..37)
            .map(|i| {
                let one: Arc<dyn Dataset> = Arc::new(diptych_data::Subset::new(dataset.clone(), vec![i])?);
                Ok(features(&MeanColor, &one, &transform(1, 1))?.x.to_vec2::<f32>()?.remove(0))
            })
            .collect::<Result<_>>()?;
        for (batch_size, workers) in [(5, 1), (16, 3), (64, 2)] {
            let mut last = (0, 0);
            let found = features_with(&MeanColor, &dataset, &transform(batch_size, workers), &mut |done, all| {
                last = (done, all)
            })?;
            assert_eq!(found.x.to_vec2::<f32>()?, expected);
            assert_eq!(found.indices, (0..37).collect::<Vec<u32>>());
            assert_eq!(found.labels, Some((0..37).map(|i| dataset.label(i).unwrap()).collect()));
            assert_eq!(last, (37, 37));
        }
        Ok(())
    }

    #[test]
    fn pixels_are_the_normalized_image() -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(4, 2));
        let found = pixels(&dataset, &transform(3, 1))?;
        assert_eq!(found.x.dims(), [4, 8 * 8 * 3]);
        // The normalization of `transform` has mean 0.5 and standard deviation 0.25.
        let expected = (f32::from(dataset.get(2)?.to_rgb().pixels[0]) / 255.0 - 0.5) / 0.25;
        assert!((found.x.to_vec2::<f32>()?[2][0] - expected).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn an_empty_set_is_refused() {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(0, 1));
        assert!(features(&MeanColor, &dataset, &transform(4, 1)).is_err());
    }
}
