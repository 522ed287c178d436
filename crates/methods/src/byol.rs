//! BYOL: Bootstrap Your Own Latent (Grill et al., NeurIPS 2020, arXiv:2006.07733).
//!
//! The online network predicts, for each view, what a slowly moving target network makes of the other one. There are no negatives.

use std::f64::consts::PI;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::{Mlp, predictor, projector};
use diptych_kernels::l2_normalize;
use diptych_losses::NormalizedMse;
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::encoder::{Encoder, Target};
use crate::least_squares::least_squares;
use crate::registry::{check_projector, check_share};
use crate::{Build, Embeddings, Forward, Method, Step, crops};

pub(crate) const PAPER: &str = "BYOL (Grill et al., NeurIPS 2020, arXiv:2006.07733)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::byol;
/// Section 3.3 and the official code at 1000 epochs: LARS, 0.2 per 256 images, decay 1.5e-6, ten epochs of warm-up, cosine to 0.
pub(crate) const OPTIM: &str = r#"
name = "lars"
variant = "official"
lr = 0.2
lr_scaling = "linear"
momentum = 0.9
weight_decay = 1.5e-6
eta = 0.001
schedule = "cosine"
warmup_epochs = 10
final_ratio = 0.0
"#;

/// What a recipe may set; the defaults are the paper's at 1000 epochs (section 3.3).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Widths of the projector's layers; the last is D.
    pub projector: Vec<usize>,
    /// What predicts the target's projection.
    pub predictor: Predictor,
    /// Width of the predictor's hidden layer.
    pub predictor_hidden: usize,
    /// The target's decay in the first step: `target = tau target + (1 - tau) online`.
    pub tau: f64,
    /// How the decay goes on.
    pub tau_schedule: TauSchedule,
    /// Where the target begins.
    pub target_start: TargetStart,
}

/// What predicts the target's projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Predictor {
    /// A network of two layers.
    Mlp,
    /// Nothing: the projection itself (ablation).
    None,
    /// The linear map that fits the targets of the batch best, found anew in each step (ablation).
    LinearRegression,
}

/// How the target's decay changes over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TauSchedule {
    /// From `tau` to 1 along half a cosine.
    Cosine,
    /// Always `tau`.
    Constant,
}

/// Where the target network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetStart {
    /// From initial values of its own, as in the official code.
    Independent,
    /// As a copy of the online network.
    Copy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            projector: vec![4096, 256],
            predictor: Predictor::Mlp,
            predictor_hidden: 4096,
            tau: 0.996,
            tau_schedule: TauSchedule::Cosine,
            target_start: TargetStart::Independent,
        }
    }
}

impl Config {
    pub(crate) fn resolve(self, _features: usize) -> Result<Self> {
        check_projector(&self.projector)?;
        check_share("tau", self.tau)?;
        if self.predictor_hidden == 0 {
            bail!("predictor_hidden must be at least 1, it is 0")
        }
        Ok(self)
    }

    /// The decay of step k of K: `1 - (1 - tau) (1 + cos(pi k / K)) / 2` (section 3.3).
    fn tau_at(&self, step: Step) -> f64 {
        let progress = step.index as f64 / step.total.max(1) as f64;
        match self.tau_schedule {
            TauSchedule::Constant => self.tau,
            TauSchedule::Cosine => 1.0 - (1.0 - self.tau) * ((PI * progress).cos() + 1.0) / 2.0,
        }
    }
}

pub(crate) struct Byol {
    config: Config,
    params: ParamStore,
    online: Encoder,
    predictor: Option<Mlp>,
    target: Target,
    comm: Arc<dyn Collective>,
}

impl Byol {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let blocks = |_| projector::byol(&config.projector);
        let online = Encoder::new(&mut params, build, &blocks)?;
        let width = online.projector.out_dim();
        let predictor = match config.predictor {
            Predictor::Mlp => {
                let blocks = predictor::byol(config.predictor_hidden, width);
                Some(Mlp::new(&mut params.scope(Group::Predictor).pp("predictor"), width, &blocks)?)
            }
            Predictor::None | Predictor::LinearRegression => None,
        };
        let target = match config.target_start {
            TargetStart::Independent => Target::new(build, build.seed.wrapping_add(1), &blocks)?,
            TargetStart::Copy => Target::new(build, build.seed, &blocks)?.copy(&params)?,
        };
        Ok(Self { config, params, online, predictor, target, comm: build.comm.clone() })
    }
}

impl Method for Byol {
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let z: Vec<Tensor> = batch.views.0.iter().map(|x| self.online.embed(x)).collect::<Result<_>>()?;
        let watched = z.iter().take(2).map(Tensor::detach).collect();
        let live = match &self.predictor {
            Some(predictor) => z.iter().map(|z| predictor.forward(z, true)).collect::<Result<_>>()?,
            None => z,
        };
        let fixed = batch.views.0[..global].iter().map(|x| self.target.embed(x)).collect::<Result<_>>()?;
        Ok(Embeddings { live, fixed, watched, global })
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let (p, target) = (&embeddings.live, &embeddings.fixed);
        let losses = crops::ordered(p.len(), embeddings.global)
            .into_iter()
            .map(|(view, of)| match self.config.predictor {
                Predictor::LinearRegression => {
                    // The best map is where the error's derivative for it is zero, so it may be held still in this step.
                    let goal = l2_normalize(&target[of])?;
                    let map = least_squares(&p[view].detach(), &goal, self.comm.as_ref())?;
                    NormalizedMse.loss(&p[view].matmul(&map)?, &goal)
                }
                _ => NormalizedMse.loss(&p[view], &target[of]),
            })
            .collect::<Result<Vec<_>>>()?;
        // Both directions are added up (section 3.1).
        Ok(Forward::new(crops::mean(&losses, 2.0)?, embeddings))
    }

    fn couples_batch(&self) -> bool {
        self.config.predictor == Predictor::LinearRegression
    }

    fn after_step(&mut self, step: Step) -> Result<()> {
        self.target.follow(&self.params, self.config.tau_at(step))
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.online.backbone.as_ref()
    }

    fn extra_state(&self) -> Vec<(&'static str, &ParamStore)> {
        vec![("target", &self.target.params)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 3.3: tau at the start, 1 at the end, half way between in the middle.
    #[test]
    fn the_decay_rises_to_one() {
        let config = Config::default();
        let at = |index| config.tau_at(Step { index, total: 100, epoch: 0, steps_per_epoch: 100 });
        assert!((at(0) - 0.996).abs() < 1e-12 && (at(50) - 0.998).abs() < 1e-12 && (at(100) - 1.0).abs() < 1e-12);
    }
}
