//! Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al., ICML 2021, arXiv:2103.03230).
//!
//! Two views of each image go through one network; the cross-correlation of the two embeddings is pulled to the identity.

use candle_core::{DType, Result, Tensor, bail};
use diptych_augment::Recipe;
use diptych_heads::{Mlp, projector};
use diptych_losses::{Balance, BarlowTwins as Objective};
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::registry::check_projector;
use crate::{Build, Forward, Method};

pub(crate) const PAPER: &str = "Barlow Twins (Zbontar et al., ICML 2021, arXiv:2103.03230)";
pub(crate) const BATCH_COUPLED: bool = true;
pub(crate) const VIEWS: usize = 2;
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
    /// The weight of the off-diagonal terms.
    pub lambda: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { projector: vec![8192, 8192, 8192], lambda: 0.0051 }
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
    backbone: Box<dyn Backbone>,
    projector: Mlp,
    objective: Objective,
}

impl BarlowTwins {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = ParamStore::new(build.seed, build.device);
        let backbone = (build.backbone)(&mut params.scope(Group::Trunk).pp("backbone"))?;
        let blocks = projector::barlow_twins(&config.projector);
        let projector = Mlp::new(&mut params.scope(Group::Projector).pp("projector"), backbone.out_dim(), &blocks)?;
        let objective = Objective { balance: Balance::Lambda(config.lambda) };
        Ok(Self { params, backbone, projector, objective })
    }

    fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.backbone.forward_t(x, true)?;
        self.projector.forward(&h, true)?.to_dtype(DType::F32)
    }
}

impl Method for BarlowTwins {
    fn forward(&mut self, batch: &Batch) -> Result<Forward> {
        let [x1, x2] = batch.views.pair()?;
        let z1 = self.embed(x1)?;
        let z2 = self.embed(x2)?;
        let loss = self.objective.loss(&z1, &z2)?;
        let embeddings = vec![z1.detach(), z2.detach()];
        Ok(Forward { loss, embeddings, trivial_loss: None, monitors: Vec::new() })
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }
}
