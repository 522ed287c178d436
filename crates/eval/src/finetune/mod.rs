//! Fine-tuning: backbone and a linear classifier are trained together on labeled images, all of them or a share (the semi-supervised protocol of SimCLR,
//! Chen et al. 2020, arXiv:2002.05709, appendix B.5).
//!
//! Images are random resized crops and flips, batch norms train, trunk and classifier have learning rates of their own; the test images are center
//! views. What is told is the last epoch; the best one is told beside it.

mod labeled;
mod network;
mod train;

use std::fmt::{Display, Formatter};

use anyhow::{Result, bail, ensure};
use diptych_augment::{Interpolation, Recipe, ViewOverrides, ViewRecipe};
use diptych_optim::{Algorithm, ConfigError, Decay, GroupLr, LrScaling, OptimConfig, ScheduleKind, Variant};
use serde::{Deserialize, Serialize};

pub use network::{HeadInit, Network};
pub use train::{FineTuned, Tuning};

use crate::{EvalResult, Transform};

/// What the classifier stands on. In a recipe: `"representation"`, or `"projector.1"` for the output of a projector's first layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FineTuneFrom {
    /// The backbone's features.
    #[default]
    Representation,
    /// The output of so many layers of the projector, which are trained too.
    Projector(usize),
}

impl Display for FineTuneFrom {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Representation => f.write_str("representation"),
            Self::Projector(layers) => write!(f, "projector.{layers}"),
        }
    }
}

impl From<FineTuneFrom> for String {
    fn from(from: FineTuneFrom) -> Self {
        from.to_string()
    }
}

impl TryFrom<String> for FineTuneFrom {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        match (text.as_str(), text.strip_prefix("projector.").map(str::parse)) {
            ("representation", _) => Ok(Self::Representation),
            (_, Some(Ok(layers @ 1..))) => Ok(Self::Projector(layers)),
            _ => Err(format!(
                "from = {text:?} is not known: it is \"representation\", \"projector.1\", \"projector.2\", ..."
            )),
        }
    }
}

/// How a network is fine-tuned. Plain data; the default is SimCLR's protocol for all labels (appendix B.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineTune {
    /// The share of training images that have a label, of each class at least one; 1 is all of them.
    pub labels: f64,
    /// What the classifier stands on.
    pub from: FineTuneFrom,
    /// Which optimizer.
    pub optimizer: Algorithm,
    /// The peak learning rate of trunk and projector at batch 256.
    pub trunk_lr: f64,
    /// The peak learning rate of the classifier at batch 256.
    pub head_lr: f64,
    /// How both follow the batch size.
    pub lr_scaling: LrScaling,
    /// Momentum.
    pub momentum: f64,
    /// Whether it is Nesterov's; SGD only.
    pub nesterov: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// Which roles decay.
    pub decay: Decay,
    /// The trust coefficient; LARS only.
    pub eta: f64,
    /// Which published form; LARS only. The classifier is neither adapted nor decayed.
    pub variant: Variant,
    /// The shape of the learning rates after the warm-up.
    pub schedule: ScheduleKind,
    /// The epochs at which they are multiplied by `gamma`; schedule `step` only.
    pub milestones: Vec<f64>,
    /// Schedule `step` only.
    pub gamma: f64,
    /// Whether they change once an epoch and not at every step.
    pub per_epoch: bool,
    /// Epochs in which they rise from 0.
    pub warmup_epochs: f64,
    /// Passes over the labeled images.
    pub epochs: u64,
    /// Images per step; all of them where there are fewer.
    pub batch_size: usize,
    /// Where the classifier starts.
    pub head_init: HeadInit,
    /// Least and greatest area of a crop, as shares of the image's area.
    pub crop_scale: [f64; 2],
    /// How a crop is resized.
    pub interpolation: Interpolation,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Epochs from one test to the next; the last one is tested always.
    pub eval_every: u64,
}

/// Fewer steps than this seldom are enough, and a share of few images makes few.
const FEW_STEPS: u64 = 300;

impl Default for FineTune {
    fn default() -> Self {
        Self {
            labels: 1.0,
            from: FineTuneFrom::Representation,
            optimizer: Algorithm::Sgd,
            trunk_lr: 0.05,
            head_lr: 0.05,
            lr_scaling: LrScaling::Linear,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.0,
            decay: Decay::Weights,
            eta: 0.001,
            variant: Variant::default(),
            schedule: ScheduleKind::Cosine,
            milestones: Vec::new(),
            gamma: 0.1,
            per_epoch: false,
            warmup_epochs: 0.0,
            epochs: 30,
            batch_size: 256,
            head_init: HeadInit::Zero,
            crop_scale: [0.08, 1.0],
            interpolation: Interpolation::Bicubic,
            flip: 0.5,
            eval_every: 1,
        }
    }
}

impl FineTune {
    /// That the settings can be.
    ///
    /// # Errors
    /// The first one that cannot, by its key.
    pub fn check(&self) -> Result<()> {
        let share = self.labels.is_finite() && self.labels > 0.0 && self.labels <= 1.0;
        ensure!(
            share,
            "finetune.labels is the share of training images with a label, above 0 and at most 1 (all), is {}",
            self.labels
        );
        ensure!(self.epochs > 0, "finetune.epochs must be at least 1, is 0");
        ensure!(self.eval_every > 0, "finetune.eval_every must be at least 1, is 0");
        let batch = self.batch_size;
        ensure!(batch > 1, "finetune.batch_size must be at least 2 (batch norms take its statistics), is {batch}");
        for (key, lr) in [("trunk_lr", self.trunk_lr), ("head_lr", self.head_lr)] {
            ensure!(lr.is_finite() && lr > 0.0, "finetune.{key} must be positive, is {lr}");
            self.optim(lr).check().map_err(Self::named)?;
        }
        let warm = self.warmup_epochs;
        ensure!(warm < self.epochs as f64, "finetune.warmup_epochs = {warm} leaves none of {} epochs", self.epochs);
        if let Err(error) = self.views(&Transform::default()).check() {
            bail!("{}", error.to_string().replace("augment.", "finetune."))
        }
        Ok(())
    }

    /// A setting's error under the name it has here.
    fn named(error: ConfigError) -> anyhow::Error {
        anyhow::anyhow!(error.to_string().replace("optim.", "finetune."))
    }

    /// The optimizer's settings for a part of the network.
    fn optim(&self, lr: f64) -> OptimConfig {
        let (lars, step) = (self.optimizer == Algorithm::Lars, self.schedule == ScheduleKind::Step);
        OptimConfig {
            name: self.optimizer,
            lr,
            lr_scaling: self.lr_scaling,
            momentum: self.momentum,
            nesterov: (self.optimizer == Algorithm::Sgd).then_some(self.nesterov),
            weight_decay: self.weight_decay,
            decay: self.decay,
            bias_lr_ratio: 1.0,
            eta: lars.then_some(self.eta),
            beta2: (self.optimizer == Algorithm::Adam).then_some(0.999),
            variant: lars.then_some(self.variant),
            schedule: self.schedule,
            warmup_epochs: self.warmup_epochs,
            final_ratio: (self.schedule == ScheduleKind::Cosine).then_some(0.0),
            milestones: step.then(|| self.milestones.clone()),
            gamma: step.then_some(self.gamma),
            per_epoch: self.per_epoch,
            constant_lr: Vec::new(),
            group_lr: GroupLr::default(),
        }
    }

    /// How training images are seen: one view each, cropped and flipped.
    fn views(&self, transform: &Transform) -> Recipe {
        let shared = ViewRecipe {
            size: transform.size,
            crop_scale: self.crop_scale,
            interpolation: self.interpolation,
            flip: self.flip,
            jitter: 0.0,
            grayscale: 0.0,
            blur: 0.0,
            solarize: 0.0,
            mean: transform.mean,
            std: transform.std,
            ..ViewRecipe::default()
        };
        Recipe::of(shared, vec![ViewOverrides::default()])
    }

    /// A training as a result to be printed or kept.
    pub fn result(&self, tuned: &FineTuned) -> EvalResult {
        let mut result = EvalResult::top1("finetune", tuned.accuracy, tuned.predictions.len());
        result.top5 = tuned.top5;
        result.best_epoch = Some(tuned.best);
        let named = match self.optimizer {
            Algorithm::Sgd if self.nesterov => "SGD with Nesterov momentum",
            Algorithm::Sgd => "SGD with momentum",
            Algorithm::Lars => "LARS",
            Algorithm::Adam => "Adam",
        };
        let batch = tuned.batch_size;
        let rate = |lr| (1e6 * self.optim(lr).effective_lr(batch)).round() / 1e6;
        let schedule = match self.schedule {
            ScheduleKind::Cosine => "cosine",
            ScheduleKind::Constant => "constant",
            ScheduleKind::Step => "step",
        };
        let steps = self.epochs * (tuned.labeled / batch.max(1)) as u64;
        let few = match steps < FEW_STEPS {
            true => " (few: finetune.epochs and finetune.batch_size give more)",
            false => "",
        };
        result.words = format!(
            "backbone and linear classifier fine-tuned from the {} on {} labeled images of {}; {named}, learning rate {} (classifier {}), {schedule} schedule, \
             {} epochs, batch {batch}, {steps} steps{few}, weight decay {}; random crops and flips, batch norm in training mode; center view at test; last epoch",
            match self.from {
                FineTuneFrom::Representation => "representation".to_string(),
                FineTuneFrom::Projector(layers) => format!("projector's layer {layers}"),
            },
            tuned.labeled,
            tuned.images,
            rate(self.trunk_lr),
            rate(self.head_lr),
            self.epochs,
            self.weight_decay,
        );
        result
    }
}
