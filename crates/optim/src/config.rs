//! The section `[optim]` of a recipe, and what is built from it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::groups::{ConstantLr, Decay, GroupLr, Rules};
use crate::schedule::{Constant, Milestones, PerEpoch, Schedule, WarmupCosine};
use crate::variant::Variant;
use crate::{Adam, Lars, Optimizer, Sgd};

/// Which optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// `torch.optim.SGD`.
    Sgd,
    /// Layer-wise adaptive rates.
    Lars,
    /// `torch.optim.Adam`; `momentum` is its beta1.
    Adam,
}

/// How the learning rate, stated at batch 256, follows the batch size B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LrScaling {
    /// `lr * B / 256`.
    Linear,
    /// `lr * sqrt(B / 256)`.
    Sqrt,
    /// `lr`, whatever the batch.
    None,
}

/// The shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine down to `final_ratio`.
    Cosine,
    /// No change.
    Constant,
    /// A factor `gamma` at each of `milestones`.
    Step,
}

/// `[optim]`: the optimizer and its schedule.
///
/// Reading it from a recipe fills what is left out and checks the values, so that writing it shows every setting in use.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Given")]
pub struct OptimConfig {
    /// Which optimizer.
    pub name: Algorithm,
    /// The peak learning rate at batch 256.
    pub lr: f64,
    /// How `lr` follows the batch size; left out: linear.
    pub lr_scaling: LrScaling,
    /// Left out: 0.9.
    pub momentum: f64,
    /// SGD only; left out: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Left out: 0.
    pub weight_decay: f64,
    /// Which roles decay, and with LARS adapt; left out: weights only.
    pub decay: Decay,
    /// Factor on the learning rate of biases and norms; left out: 1.
    pub bias_lr_ratio: f64,
    /// LARS only: the trust coefficient; left out: 0.001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Adam only: the decay of the second moment; left out: 0.999.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// LARS only: which published form; left out: official.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// The shape after the warm-up; left out: cosine.
    pub schedule: ScheduleKind,
    /// Epochs in which the rate rises from 0; left out: 10 with LARS, 0 with SGD.
    pub warmup_epochs: f64,
    /// Cosine only: what share of the peak is left at the end; left out: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_ratio: Option<f64>,
    /// Step only: the epochs at which the rate is multiplied by `gamma`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milestones: Option<Vec<f64>>,
    /// Step only; left out: 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Whether the rate changes once an epoch and not at every step (the official codes of MoCo and SimSiam); left out: false.
    pub per_epoch: bool,
    /// Groups whose rate stays at its peak; `predictor` is the one there is (SimSiam). Left out: none.
    pub constant_lr: Vec<ConstantGroup>,
    /// Factors on the learning rate of groups; left out: 1.
    pub group_lr: GroupLr,
}

/// A group whose learning rate may be constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConstantGroup {
    /// The predictor.
    Predictor,
}

/// What a recipe may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    name: Algorithm,
    lr: f64,
    lr_scaling: Option<LrScaling>,
    momentum: Option<f64>,
    nesterov: Option<bool>,
    weight_decay: Option<f64>,
    decay: Option<Decay>,
    bias_lr_ratio: Option<f64>,
    eta: Option<f64>,
    variant: Option<Variant>,
    beta2: Option<f64>,
    schedule: Option<ScheduleKind>,
    warmup_epochs: Option<f64>,
    final_ratio: Option<f64>,
    milestones: Option<Vec<f64>>,
    gamma: Option<f64>,
    per_epoch: Option<bool>,
    constant_lr: Option<Vec<ConstantGroup>>,
    group_lr: Option<GroupLr>,
}

impl TryFrom<Given> for OptimConfig {
    type Error = ConfigError;

    /// Keys of the optimizer or schedule that was not chosen are dropped: a recipe's `eta` does no harm under
    /// `--set optim.name=sgd`.
    fn try_from(given: Given) -> Result<Self, ConfigError> {
        let lars = given.name == Algorithm::Lars;
        let schedule = given.schedule.unwrap_or(ScheduleKind::Cosine);
        let step = schedule == ScheduleKind::Step;
        let config = Self {
            name: given.name,
            lr: given.lr,
            lr_scaling: given.lr_scaling.unwrap_or(LrScaling::Linear),
            momentum: given.momentum.unwrap_or(0.9),
            nesterov: (given.name == Algorithm::Sgd).then(|| given.nesterov.unwrap_or(false)),
            weight_decay: given.weight_decay.unwrap_or(0.0),
            decay: given.decay.unwrap_or(Decay::Weights),
            bias_lr_ratio: given.bias_lr_ratio.unwrap_or(1.0),
            eta: lars.then(|| given.eta.unwrap_or(0.001)),
            variant: lars.then(|| given.variant.unwrap_or_default()),
            beta2: (given.name == Algorithm::Adam).then(|| given.beta2.unwrap_or(0.999)),
            schedule,
            warmup_epochs: given.warmup_epochs.unwrap_or(if lars { 10.0 } else { 0.0 }),
            final_ratio: (schedule == ScheduleKind::Cosine).then(|| given.final_ratio.unwrap_or(0.0)),
            milestones: if step { given.milestones } else { None },
            gamma: step.then(|| given.gamma.unwrap_or(0.1)),
            per_epoch: given.per_epoch.unwrap_or(false),
            constant_lr: given.constant_lr.unwrap_or_default(),
            group_lr: given.group_lr.unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }
}

/// A setting of `[optim]` that cannot be: a sentence that names its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Refuses a value unless `ok`: `optim.KEY must be RULE, is VALUE`.
fn require(ok: bool, key: &str, rule: &str, value: impl fmt::Display) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError(format!("optim.{key} must be {rule}, is {value}"))) }
}

impl OptimConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// The first one that cannot be, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = |key, v: f64| require(v.is_finite() && v > 0.0, key, "positive", v);
        let at_least_0 = |key, v: f64| require(v.is_finite() && v >= 0.0, key, "at least 0", v);
        positive("lr", self.lr)?;
        require((0.0..1.0).contains(&self.momentum), "momentum", "at least 0 and below 1", self.momentum)?;
        let plain = self.nesterov != Some(true) || self.momentum > 0.0;
        require(plain, "momentum", "above 0 with optim.nesterov = true", self.momentum)?;
        at_least_0("weight_decay", self.weight_decay)?;
        at_least_0("bias_lr_ratio", self.bias_lr_ratio)?;
        let beta2 = self.beta2.unwrap_or(0.999);
        require((0.0..1.0).contains(&beta2), "beta2", "at least 0 and below 1", beta2)?;
        positive("eta", self.eta.unwrap_or(1.0))?;
        at_least_0("warmup_epochs", self.warmup_epochs)?;
        let final_ratio = self.final_ratio.unwrap_or(0.0);
        require((0.0..=1.0).contains(&final_ratio), "final_ratio", "from 0 to 1", final_ratio)?;
        positive("gamma", self.gamma.unwrap_or(1.0))?;
        if self.schedule == ScheduleKind::Step {
            let milestones = self.milestones.as_deref().unwrap_or_default();
            if milestones.is_empty() {
                return Err(ConfigError(
                    "optim.schedule = \"step\" needs optim.milestones, the epochs at which the rate falls, such as \
                     [120, 160]"
                        .into(),
                ));
            }
            milestones.iter().try_for_each(|&epoch| positive("milestones", epoch))?;
        }
        for (key, v) in self.group_lr.entries() {
            require(v.is_finite() && v >= 0.0, &format!("group_lr.{key}"), "at least 0", v)?;
        }
        Ok(())
    }

    /// The peak learning rate at this batch size.
    pub fn effective_lr(&self, batch_size: usize) -> f64 {
        let share = batch_size as f64 / 256.0;
        match self.lr_scaling {
            LrScaling::Linear => self.lr * share,
            LrScaling::Sqrt => self.lr * share.sqrt(),
            LrScaling::None => self.lr,
        }
    }

    /// How the effective rate comes about, in words.
    pub fn lr_scaling_text(&self) -> String {
        match self.lr_scaling {
            LrScaling::Linear => format!("{} at batch 256, scaled with the batch", self.lr),
            LrScaling::Sqrt => format!("{} at batch 256, scaled with the batch's square root", self.lr),
            LrScaling::None => "not scaled with the batch".to_string(),
        }
    }

    /// Which parameters decay, adapt, and learn at which share of the rate.
    pub fn rules(&self) -> Rules {
        let constant_lr = ConstantLr { predictor: self.constant_lr.contains(&ConstantGroup::Predictor), lr: self.lr };
        Rules { decay: self.decay, bias_lr_ratio: self.bias_lr_ratio, group_lr: self.group_lr, constant_lr }
    }

    /// The learning rate over `steps` steps in all.
    fn schedule(&self, batch_size: usize, steps: u64, steps_per_epoch: u64) -> Result<Box<dyn Schedule>, ConfigError> {
        let in_steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let base = self.effective_lr(batch_size);
        let warmup = in_steps(self.warmup_epochs);
        if warmup > 0 && warmup >= steps {
            let epochs = steps as f64 / steps_per_epoch.max(1) as f64;
            return Err(ConfigError(format!(
                "optim.warmup_epochs = {} leaves nothing of the run's {epochs} epochs; set it to {} or train longer",
                self.warmup_epochs,
                epochs / 10.0
            )));
        }
        Ok(match self.schedule {
            ScheduleKind::Constant => Box::new(Constant { base, warmup }),
            ScheduleKind::Cosine => {
                let final_ratio = self.final_ratio.unwrap_or(0.0);
                Box::new(WarmupCosine { base, warmup, total: steps, final_ratio })
            }
            ScheduleKind::Step => {
                let milestones = self.milestones.iter().flatten().map(|&epoch| in_steps(epoch)).collect();
                Box::new(Milestones { base, warmup, steps: milestones, gamma: self.gamma.unwrap_or(0.1) })
            }
        })
    }
}

/// What [`build`] gives: the optimizer and the learning rate of each step.
pub type Built = (Box<dyn Optimizer>, Box<dyn Schedule>);

/// An optimizer and its schedule for a run of `steps` steps at a (global) batch size.
///
/// # Errors
/// The first setting that cannot be, by its key: `optim.lr must be positive, is -1`.
pub fn build(config: &OptimConfig, batch_size: usize, steps: u64, steps_per_epoch: u64) -> Result<Built, ConfigError> {
    config.check()?;
    let schedule = config.schedule(batch_size, steps, steps_per_epoch)?;
    let schedule: Box<dyn Schedule> = match config.per_epoch {
        true => Box::new(PerEpoch { schedule, steps_per_epoch }),
        false => schedule,
    };
    let (momentum, decay, mut rules) = (config.momentum, config.weight_decay, config.rules());
    rules.constant_lr.lr = config.effective_lr(batch_size);
    let optimizer: Box<dyn Optimizer> = match config.name {
        Algorithm::Adam => Box::new(Adam::new(momentum, config.beta2.unwrap_or(0.999), decay, rules)),
        Algorithm::Sgd => Box::new(Sgd::new(momentum, decay, config.nesterov.unwrap_or(false), rules)),
        Algorithm::Lars => {
            let (eta, variant) = (config.eta.unwrap_or(0.001), config.variant.unwrap_or_default());
            Box::new(Lars::new(momentum, decay, eta, variant, rules))
        }
    };
    Ok((optimizer, schedule))
}
