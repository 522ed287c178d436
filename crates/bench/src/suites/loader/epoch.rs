//! What is timed: a loader from its start to its last batch.

use std::sync::Arc;

use anyhow::{Result, bail};
use diptych_augment::Recipe;
use diptych_data::{Dataset, Loader, LoaderConfig};
use diptych_nn::Batch;

use crate::case::{Runner, Tensors};
use crate::suites::pictures::Statistics;

/// An epoch of a data set. Nothing is ready before it begins, and nothing is left in the making when it ends.
pub(super) struct Epoch {
    /// The images.
    pub(super) dataset: Arc<dyn Dataset>,
    /// Their views.
    pub(super) recipe: Recipe,
    /// Images in a batch.
    pub(super) batch: usize,
    /// Threads that make them. The one that asks for batches only waits, as a training loop does whose network runs on a GPU.
    pub(super) workers: usize,
    /// Epochs whose views are compared.
    pub(super) repeats: usize,
    /// Epochs so far; each draws views of its own.
    pub(super) done: u64,
}

impl Epoch {
    fn batches(&mut self, mut each: impl FnMut(Batch) -> Result<()>) -> Result<()> {
        let steps = (self.dataset.len() / self.batch) as u64;
        let config = LoaderConfig {
            batch_size: self.batch,
            workers: self.workers,
            recipe: self.recipe.clone(),
            start: self.done * steps,
            end: Some((self.done + 1) * steps),
            ..LoaderConfig::default()
        };
        self.done += 1;
        let mut loader = Loader::new(self.dataset.clone(), config)?;
        for batch in &mut loader {
            each(batch?)?;
        }
        if loader.skipped() > 0 {
            bail!("{} images could not be read", loader.skipped())
        }
        Ok(())
    }
}

impl Runner for Epoch {
    /// The peer reads the same files.
    fn inputs(&self) -> Result<Tensors> {
        Ok(Tensors::new())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let mut statistics = Statistics::default();
        for _ in 0..self.repeats {
            self.batches(|batch| {
                for view in &batch.views.0 {
                    statistics.add(&view.flatten_all()?.to_vec1()?);
                }
                Ok(())
            })?;
        }
        statistics.tensors()
    }

    fn run(&mut self) -> Result<()> {
        self.batches(|batch| {
            std::hint::black_box(batch);
            Ok(())
        })
    }
}
