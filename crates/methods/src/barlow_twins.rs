//! Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al., ICML 2021, arXiv:2103.03230).
//!
//! Two views of each image go through one network; the cross-correlation of the two embeddings is pulled to the identity.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::{Mlp, predictor, projector};
use diptych_losses::{Balance, BarlowTwins as Objective};
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::registry::check_projector;
use crate::{Build, Embeddings, Forward, Method, crops};

pub(crate) const PAPER: &str = "Barlow Twins (Zbontar et al., ICML 2021, arXiv:2103.03230)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::barlow_twins;
/// The official code: LARS with 0.2 per 256 images for weights and 0.0048 (0.024 of it) for biases and norms, ten epochs of warm-up,
/// cosine to a thousandth.
pub(crate) const OPTIM: &str = r#"
name = "lars"
variant = "official"
lr = 0.2
lr_scaling = "linear"
bias_lr_ratio = 0.024
momentum = 0.9
weight_decay = 1e-6
eta = 0.001
schedule = "cosine"
warmup_epochs = 10
final_ratio = 0.001
"#;

/// What a recipe may set; the defaults are the paper's (section 2.2 and appendix A).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Widths of the projector's layers; the last is D.
    pub projector: Vec<usize>,
    /// How the off-diagonal terms are weighed.
    pub balance: Weighing,
    /// Their weight; of no effect with `balance = "row_mean"`.
    pub lambda: f64,
    /// Ablation (section 4, "asymmetry"): no gradient reaches the second of the two views.
    pub stop_gradient: bool,
    /// Ablation (section 4, "asymmetry"): the first of the two goes through a predictor.
    pub predictor: bool,
}

/// How the off-diagonal terms are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weighing {
    /// By `lambda`, as the paper and its code do.
    Lambda,
    /// As the mean over each row, without a factor to choose.
    RowMean,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            projector: vec![8192, 8192, 8192],
            balance: Weighing::Lambda,
            lambda: 0.0051,
            stop_gradient: false,
            predictor: false,
        }
    }
}

impl Config {
    pub(crate) fn resolve(self, _features: usize) -> Result<Self> {
        check_projector(&self.projector)?;
        if !(self.lambda >= 0.0 && self.lambda.is_finite()) {
            bail!("lambda must be at least 0, it is {}", self.lambda)
        }
        Ok(self)
    }
}

pub(crate) struct BarlowTwins {
    params: ParamStore,
    encoder: Encoder,
    predictor: Option<Mlp>,
    stop_gradient: bool,
    objective: Objective,
    comm: Arc<dyn Collective>,
}

impl BarlowTwins {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let encoder = Encoder::new(&mut params, build, &|_| projector::barlow_twins(&config.projector))?;
        let width = encoder.projector.out_dim();
        let predictor = match config.predictor {
            true => {
                let mut scope = params.scope(Group::Predictor);
                Some(Mlp::new(&mut scope.pp("predictor"), width, &predictor::byol(width, width))?)
            }
            false => None,
        };
        let balance = match config.balance {
            Weighing::Lambda => Balance::Lambda(config.lambda),
            Weighing::RowMean => Balance::RowMean,
        };
        let (objective, comm) = (Objective { balance }, build.comm.clone());
        Ok(Self { params, encoder, predictor, stop_gradient: config.stop_gradient, objective, comm })
    }
}

impl Method for BarlowTwins {
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let z: Vec<Tensor> = batch.views.0.iter().map(|x| self.encoder.embed(x)).collect::<Result<_>>()?;
        let watched = z.iter().take(2).map(Tensor::detach).collect();
        let second: Vec<Tensor> = if self.stop_gradient { z.iter().map(Tensor::detach).collect() } else { z.clone() };
        let first = match &self.predictor {
            // The last view is never the first of two.
            Some(predictor) => {
                z[..global.min(z.len() - 1)].iter().map(|z| predictor.forward(z, true)).collect::<Result<_>>()?
            }
            None => z,
        };
        Ok(match (self.stop_gradient, self.predictor.is_some()) {
            (false, false) => Embeddings { live: first, fixed: Vec::new(), watched, global },
            (false, true) => Embeddings { live: [first, second].concat(), fixed: Vec::new(), watched, global },
            (true, _) => Embeddings { live: first, fixed: second, watched, global },
        })
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let (first, second) = match (self.stop_gradient, self.predictor.is_some()) {
            (false, false) => (&embeddings.live[..], &embeddings.live[..]),
            (false, true) => embeddings.live.split_at(embeddings.global.min((embeddings.live.len() - 1) / 2)),
            (true, _) => (&embeddings.live[..], &embeddings.fixed[..]),
        };
        let losses = crops::unordered(second.len(), embeddings.global)
            .into_iter()
            .map(|(i, j)| self.objective.loss_over(&first[i], &second[j], &self.comm))
            .collect::<Result<Vec<_>>>()?;
        Ok(Forward::new(crops::mean(&losses, 1.0)?, embeddings))
    }

    fn couples_batch(&self) -> bool {
        true
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.encoder.backbone.as_ref()
    }
}
