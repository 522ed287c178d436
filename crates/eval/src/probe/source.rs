//! Where the rows of each epoch come from: features that were taken once, or images that are augmented anew and go through the backbone.

use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::DType;
use diptych_augment::{Interpolation, Recipe, ViewOverrides, ViewRecipe};
use diptych_data::{Dataset, Loader, LoaderConfig, Subset};
use diptych_nn::Backbone;
use diptych_random::Stream;
use serde::{Deserialize, Serialize};

use crate::rows::Rows;
use crate::{Transform, forward};

/// What is done to training images in each epoch of a linear probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// Nothing: features of the center view are taken once.
    None,
    /// A crop of 8 to 100 % of the area, resized, and flipped half of the time: what papers train linear classifiers on. Every image goes through the
    /// backbone once per epoch.
    CropFlip,
}

/// A frozen backbone and the training images, for a probe that augments them.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Runs in evaluation mode only.
    pub backbone: &'a dyn Backbone,
    /// The training images, of which features of the center view were taken.
    pub dataset: &'a Arc<dyn Dataset>,
    /// How they are prepared: size, normalization, decoding threads.
    pub transform: &'a Transform,
}

/// Training rows, batch by batch.
pub(super) trait Source {
    /// How many batches an epoch has.
    fn batches(&self) -> usize;
    /// The next batch; epochs follow one another.
    fn next(&mut self) -> Result<Rows>;
}

/// Features that stay the same, in a new order in each epoch.
pub(super) struct Fixed<'a> {
    rows: &'a Rows,
    batch: usize,
    seed: u64,
    epoch: u64,
    at: usize,
    order: Vec<usize>,
}

impl<'a> Fixed<'a> {
    pub(super) fn new(rows: &'a Rows, batch: usize, seed: u64) -> Self {
        Self { rows, batch: batch.min(rows.len()), seed, epoch: 0, at: 0, order: Vec::new() }
    }
}

impl Source for Fixed<'_> {
    fn batches(&self) -> usize {
        self.rows.len().div_ceil(self.batch)
    }

    fn next(&mut self) -> Result<Rows> {
        if self.at == self.order.len() {
            let key = [u64::from_be_bytes(*b"probe\0\0\0"), self.epoch];
            self.order = Stream::keyed(self.seed, &key).permutation(self.rows.len());
            (self.at, self.epoch) = (0, self.epoch + 1);
        }
        let end = self.order.len().min(self.at + self.batch);
        let rows = self.rows.select(&self.order[self.at..end]);
        self.at = end;
        Ok(rows)
    }
}

/// Features of views that are drawn anew in each epoch. No more than a few batches of images are in memory.
pub(super) struct Augmented<'a> {
    images: Images<'a>,
    loader: Loader,
    batches: usize,
}

impl<'a> Augmented<'a> {
    /// Over the images at `indices` of the data set, for `epochs` epochs.
    pub(super) fn new(images: Images<'a>, indices: Vec<u32>, batch: usize, epochs: usize, seed: u64) -> Result<Self> {
        let transform = images.transform;
        let (count, size) = (indices.len(), transform.size);
        let dataset: Arc<dyn Dataset> = Arc::new(Subset::new(images.dataset.clone(), indices)?);
        let batch = batch.min(count);
        let batches = count.div_ceil(batch);
        let crop = ViewRecipe {
            crop_scale: [0.08, 1.0],
            interpolation: Interpolation::Bilinear,
            flip: 0.5,
            jitter: 0.0,
            grayscale: 0.0,
            blur: 0.0,
            solarize: 0.0,
            mean: transform.mean,
            std: transform.std,
            ..Recipe::simclr(size).shared()
        };
        let config = LoaderConfig {
            batch_size: batch,
            seed,
            workers: transform.workers,
            recipe: Recipe::of(crop, vec![ViewOverrides::default()]),
            drop_last: false,
            max_error_share: transform.max_error_share,
            end: Some((batches * epochs) as u64),
            ..LoaderConfig::default()
        };
        Ok(Self { images, loader: Loader::new(dataset, config)?, batches })
    }
}

impl Source for Augmented<'_> {
    fn batches(&self) -> usize {
        self.batches
    }

    fn next(&mut self) -> Result<Rows> {
        let Some(batch) = self.loader.next() else {
            bail!("linear probe: the training images ended before the last epoch")
        };
        let batch = batch?;
        let (Some(view), Some(labels)) = (batch.views.0.first(), batch.labels) else {
            bail!("linear probe: needs a label for every training image: class folders, or a data set that has labels")
        };
        let x = forward(self.images.backbone, view)?;
        let width = x.dim(1)?;
        let x = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if x.iter().any(|v| !v.is_finite()) {
            bail!(
                "linear probe: the backbone made a feature of a training image that is not finite; are its weights whole?"
            )
        }
        Ok(Rows { x, labels, width })
    }
}
