//! A probe from the first batch to the judgment of the test rows.

use anyhow::{Result, ensure};
use diptych_random::Stream;

use super::classifiers::Classifiers;
use super::scaling::Scaler;
use super::source::{Augmented, Fixed, Source};
use super::{Augment, Images, Probe};
use crate::Features;
use crate::rows::Rows;

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Share of the test rows that were classified rightly after the last epoch.
    pub accuracy: f64,
    /// The same after each epoch.
    pub epochs: Vec<f64>,
    /// Share of the test rows whose class is among the first five after the last epoch; where there are more than five.
    pub top5: Option<f64>,
    /// A class for each test row.
    pub predictions: Vec<u32>,
    /// The classifier's weights `[classes, width]`, for features scaled as [`Probe::features`] says.
    pub weights: Vec<f32>,
    /// Its biases `[classes]`.
    pub biases: Vec<f32>,
    /// The learning rate, chosen or given.
    pub learning_rate: f64,
    /// The weight decay, chosen or given.
    pub weight_decay: f64,
    /// Their accuracy on the rows that chose them; a grid of one is not chosen.
    pub validation_accuracy: Option<f64>,
}

/// Training images and where in the data set each of the training rows lies.
type Origin<'a> = Option<(&'a Images<'a>, &'a [u32])>;

impl Probe {
    /// Trains on `train`, judges on `test`; labels are below `classes`. `seed` gives the validation rows, the first weights and the order of batches.
    ///
    /// # Errors
    /// If a setting makes no sense, a set has no labels or an unknown one, there are fewer than 2 training rows, a feature is not finite, the widths differ,
    /// or training images are to be augmented, which takes [`Probe::run_on_images`].
    pub fn run(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<Fitted> {
        ensure!(
            self.augment == Augment::None,
            "linear.augment = crop_flip needs images and a backbone, not features: use linear.augment=none here"
        );
        self.run_from(None, train, test, classes, seed)
    }

    /// [`Probe::run`] where training images are augmented as [`Probe::augment`] says; `train` has the features of their center views, which give the
    /// statistics of standardization and choose. The views of an epoch depend on `seed` alone.
    ///
    /// # Errors
    /// As [`Probe::run`], and if too many images cannot be decoded or the backbone refuses them.
    pub fn run_on_images(
        &self,
        images: &Images,
        train: &Features,
        test: &Features,
        classes: usize,
        seed: u64,
    ) -> Result<Fitted> {
        let origin = (self.augment == Augment::CropFlip).then_some((images, train.indices.as_slice()));
        self.run_from(origin, train, test, classes, seed)
    }

    fn run_from(&self, origin: Origin, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<Fitted> {
        let grid = self.grid()?;
        let (train, test) = Rows::both(train, test, classes)?;
        let (best, validation_accuracy) = match grid.len() {
            1 => (0, None),
            _ => {
                let (best, accuracy) = self.choose(origin, &train, &grid, classes, seed)?;
                (best, Some(accuracy))
            }
        };
        let mut epochs = Vec::with_capacity(self.epochs);
        let mut scaler = Scaler::new(self.features, &train);
        let chosen = &grid[best..=best];
        let mut scaled = scaler.settled().then(|| scaler.apply(test.clone()));
        let classifier = self.fit(origin, &train, &mut scaler, chosen, classes, seed, &mut |classifier, scaler| {
            let after = match &scaled {
                Some(test) => classifier.judge(test),
                None => classifier.judge(&scaler.apply(test.clone())),
            };
            epochs.push(after[0].0);
        })?;
        let test = scaled.take().unwrap_or_else(|| scaler.apply(test));
        let (predictions, among) = classifier.predict(&test);
        Ok(Fitted {
            accuracy: diptych_metrics::accuracy(&predictions, &test.labels)?,
            epochs,
            top5: (classes > 5).then(|| among as f64 / test.len() as f64),
            predictions,
            weights: classifier.w,
            biases: classifier.b,
            learning_rate: chosen[0].0,
            weight_decay: chosen[0].1,
            validation_accuracy,
        })
    }

    /// Which of the grid does best on the validation rows, and its accuracy there. They take no part in the standardization either.
    fn choose(
        &self,
        origin: Origin,
        train: &Rows,
        grid: &[(f64, f64)],
        classes: usize,
        seed: u64,
    ) -> Result<(usize, f64)> {
        let n = train.len();
        let order = Stream::named(seed, "probe.validation").permutation(n);
        let (held, kept) = order.split_at(((n as f64 * self.validation).round() as usize).clamp(1, n - 1));
        let (validation, rest) = (train.select(held), train.select(kept));
        let indices: Option<Vec<u32>> = origin.map(|(_, indices)| kept.iter().map(|&row| indices[row]).collect());
        let origin = origin.zip(indices.as_deref()).map(|((images, _), indices)| (images, indices));
        let mut scaler = Scaler::new(self.features, &rest);
        let fitted = self.fit(origin, &rest, &mut scaler, grid, classes, seed, &mut |_, _| {})?;
        let scores = fitted.judge(&scaler.apply(validation));
        let mut best = 0;
        for (i, &(accuracy, loss)) in scores.iter().enumerate() {
            let (top, least) = scores[best];
            // A loss of NaN comes from a rate too high.
            if accuracy > top || (accuracy == top && (loss < least || least.is_nan())) {
                best = i;
            }
        }
        Ok((best, scores[best].0))
    }

    /// Trains one classifier for each (learning rate, weight decay), all in one pass over the rows; `see` is called after each epoch.
    #[expect(clippy::too_many_arguments, reason = "all of a training's parts, at two places")]
    pub(super) fn fit(
        &self,
        origin: Origin,
        rows: &Rows,
        scaler: &mut Scaler,
        grid: &[(f64, f64)],
        classes: usize,
        seed: u64,
        see: &mut dyn FnMut(&Classifiers, &Scaler),
    ) -> Result<Classifiers> {
        let mut source: Box<dyn Source> = match origin {
            None => Box::new(Fixed::new(rows, self.batch_size, seed)),
            Some((images, indices)) => {
                Box::new(Augmented::new(*images, indices.to_vec(), self.batch_size, self.epochs, seed)?)
            }
        };
        let mut found = Classifiers::new(grid.len(), classes, rows.width, self.init, seed);
        let steps = source.batches();
        for epoch in 0..self.epochs {
            for step in 0..steps {
                let batch = scaler.batch(source.next()?);
                ensure!(
                    batch.width == rows.width && batch.labels.iter().all(|label| (*label as usize) < classes),
                    "linear probe: augmented images do not go with the features of their center views"
                );
                found.step(self, &batch, grid, self.factor(epoch, step, steps));
            }
            see(&found, scaler);
        }
        Ok(found)
    }
}
