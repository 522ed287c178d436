//! The linear protocol: a softmax classifier on a frozen backbone's features.
//!
//! By default features are standardized by the mean and standard deviation of the training rows (batch norm without scale and shift, frozen), as is
//! usual since MoCo v3 and MAE; without it one learning rate would not do for backbones of different scales. The classifier starts at
//! zero and is trained by SGD with Nesterov momentum 0.9, batch 256, a cosine schedule over 100 epochs, on the features of the center view
//! (no augmentation). All learning rates and weight decays of the grid are trained at once, as columns of one matrix; a tenth of the
//! training rows, drawn by the seed, chooses among them. Then the chosen one is trained on all of them. A grid of one has nothing to choose.
//!
//! Published protocols differ in all of this; `recipes/eval/linear` has their settings. The result is that of the last epoch. The best epoch on the test
//! rows is told beside it, since some papers' codes report that.

mod classifiers;
mod optimizer;
mod run;
mod scaling;
mod source;
#[cfg(test)]
mod tests;

use anyhow::{Result, ensure};
pub use optimizer::{Optimizer, Schedule};
pub use run::Fitted;
pub use scaling::Scaling;
use serde::{Deserialize, Serialize};
pub use source::{Augment, Images};

use crate::{BestEpoch, EvalResult, Features};

/// What a classifier's weights are at first; biases are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// 0.
    #[default]
    Zeros,
    /// Normal with standard deviation 0.01, as MoCo's code and those that follow it.
    Normal,
}

/// How a linear probe is trained. Plain data; the default is the protocol that the module describes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Learning rates to try, as they are used: no batch size scales them.
    pub learning_rates: Vec<f64>,
    /// Weight decays to try with each.
    pub weight_decays: Vec<f64>,
    /// Whether biases decay too, as in PyTorch unless told otherwise.
    pub decay_biases: bool,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows per step; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// What a step does with the gradient.
    pub optimizer: Optimizer,
    /// Momentum.
    pub momentum: f32,
    /// Whether the momentum is Nesterov's.
    pub nesterov: bool,
    /// The share of a weight's norm that a step of LARS at learning rate 1 has.
    pub trust: f32,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Epochs after which the schedule `steps` multiplies the rate by 0.1.
    pub milestones: Vec<usize>,
    /// Epochs over which the rate rises to its full height, step by step.
    pub warmup_epochs: usize,
    /// The classifier at the start.
    pub init: Init,
    /// What is done to features before the classifier.
    pub features: Scaling,
    /// What is done to training images in each epoch.
    pub augment: Augment,
    /// Share of the training rows that choose among learning rates and weight decays.
    pub validation: f64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            learning_rates: vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
            weight_decays: vec![0.0, 1e-3, 1e-2, 1e-1],
            decay_biases: false,
            epochs: 100,
            batch_size: 256,
            optimizer: Optimizer::Sgd,
            momentum: 0.9,
            nesterov: true,
            trust: 0.001,
            schedule: Schedule::Cosine,
            milestones: vec![60, 80],
            warmup_epochs: 0,
            init: Init::Zeros,
            features: Scaling::Standardized,
            augment: Augment::None,
            validation: 0.1,
        }
    }
}

impl Probe {
    /// [`Probe::run`] as a result to be printed or kept.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn result(&self, train: &Features, test: &Features, classes: usize, seed: u64) -> Result<EvalResult> {
        Ok(self.told(self.run(train, test, classes, seed)?, test))
    }

    /// [`Probe::run_on_images`] as a result to be printed or kept.
    ///
    /// # Errors
    /// As [`Probe::run_on_images`].
    pub fn result_on_images(
        &self,
        images: &Images,
        train: &Features,
        test: &Features,
        classes: usize,
        seed: u64,
    ) -> Result<EvalResult> {
        Ok(self.told(self.run_on_images(images, train, test, classes, seed)?, test))
    }

    fn told(&self, found: Fitted, test: &Features) -> EvalResult {
        let mut result = EvalResult::top1("linear", found.accuracy, test.indices.len());
        result.top5 = found.top5;
        if found.validation_accuracy.is_some() {
            result.chosen.insert("learning_rate".into(), found.learning_rate);
            result.chosen.insert("weight_decay".into(), found.weight_decay);
        }
        // The first of equal epochs.
        let best = (0..found.epochs.len()).rev().max_by(|&a, &b| found.epochs[a].total_cmp(&found.epochs[b]));
        result.best_epoch = best.map(|at| BestEpoch { epoch: at + 1, value: found.epochs[at] });
        result.words = self.words();
        result
    }

    /// The protocol in a sentence.
    fn words(&self) -> String {
        let features = match self.features {
            Scaling::Standardized => "frozen, standardized features",
            Scaling::Raw => "frozen features as they are",
            Scaling::BatchNorm => "frozen features, normalized by the statistics of each batch",
            Scaling::L2 => "frozen features of length 1",
        };
        let images = match self.augment {
            Augment::None => "the center view",
            Augment::CropFlip => {
                "a random crop, flipped half of the time, of every image in every epoch (test: the center view)"
            }
        };
        let optimizer = match (self.optimizer, self.nesterov) {
            (Optimizer::Sgd, true) => "SGD with Nesterov's momentum",
            (Optimizer::Sgd, false) => "SGD",
            (Optimizer::Lars, _) => "LARS",
        };
        let choice = if self.learning_rates.len() * self.weight_decays.len() == 1 {
            format!("learning rate {}, weight decay {}, nothing chosen", self.learning_rates[0], self.weight_decays[0])
        } else {
            let share = 100.0 * self.validation;
            format!("learning rate and weight decay were chosen on {share} % of the training images")
        };
        let (epochs, batch) = (self.epochs, self.batch_size);
        format!(
            "linear classifier on {features} of {images}; {optimizer}, {epochs} epochs, batch {batch}; {choice}; last epoch"
        )
    }

    /// That the settings make sense; gives the grid.
    fn grid(&self) -> Result<Vec<(f64, f64)>> {
        let good = |values: &[f64]| !values.is_empty() && values.iter().all(|value| value.is_finite() && *value >= 0.0);
        for (name, values) in [("learning_rates", &self.learning_rates), ("weight_decays", &self.weight_decays)] {
            ensure!(good(values), "linear.{name} is {values:?}: give one number from 0 up, or several");
        }
        for (name, value) in [("epochs", self.epochs), ("batch_size", self.batch_size)] {
            ensure!(value > 0, "linear.{name} is 0, it must be 1 at least");
        }
        let share = |value: f64| (0.0..1.0).contains(&value);
        ensure!(share(f64::from(self.momentum)), "linear.momentum is {}, expected 0 to below 1", self.momentum);
        ensure!(share(self.validation), "linear.validation is {}, expected a share from 0 to below 1", self.validation);
        ensure!(self.trust.is_finite() && self.trust > 0.0, "linear.trust is {}, it must be above 0", self.trust);
        let decays = |lr: f64| self.weight_decays.iter().map(move |&decay| (lr, decay));
        let grid: Vec<(f64, f64)> = self.learning_rates.iter().flat_map(|&lr| decays(lr)).collect();
        ensure!(
            grid.len() == 1 || self.validation > 0.0,
            "linear.validation is 0, but there are {} learning rates and weight decays to choose among: give a share of the training images, or one of each",
            grid.len()
        );
        Ok(grid)
    }
}
