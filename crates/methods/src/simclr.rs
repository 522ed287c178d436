//! SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., ICML 2020,
//! arXiv:2002.05709).
//!
//! Two views of each image go through one network; each view must find its partner among all other views of the batch.

use candle_core::{DType, Result, Tensor, bail};
use diptych_augment::Recipe;
use diptych_heads::{Mlp, projector};
use diptych_losses::NtXent;
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::registry::check_projector;
use crate::{Build, Forward, Method};

pub(crate) const PAPER: &str = "SimCLR (Chen et al., ICML 2020, arXiv:2002.05709)";
pub(crate) const BATCH_COUPLED: bool = true;
pub(crate) const VIEWS: usize = 2;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::simclr;
/// Section 2.2: LARS, 0.3 per 256 images, ten epochs of warm-up, cosine to 0; the official code keeps the learning rate
/// inside the momentum buffer.
pub(crate) const OPTIM: &str = r#"
name = "lars"
variant = "lr_in_momentum"
lr = 0.3
lr_scaling = "linear"
momentum = 0.9
weight_decay = 1e-6
eta = 0.001
schedule = "cosine"
warmup_epochs = 10
final_ratio = 0.0
"#;

/// What a recipe may set; the defaults are the paper's (sections 2.1 and 4.2, appendix B.9).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The temperature of the softmax over similarities.
    pub temperature: f64,
    /// Widths of the projector's layers; the last is D. Left out: [F, 128].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector: Option<Vec<usize>>,
    /// Whether both views share one forward pass, and so their batch statistics.
    pub forward: ForwardMode,
}

/// How the two views go through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ForwardMode {
    /// In one batch of 2N, as the official code does.
    Fused,
    /// One after the other, each normalized by its own statistics.
    Split,
}

impl Default for Config {
    fn default() -> Self {
        Self { temperature: 0.1, projector: None, forward: ForwardMode::Fused }
    }
}

impl Config {
    pub(crate) fn resolve(mut self, features: usize) -> Result<Self> {
        let widths = self.projector.get_or_insert_with(|| vec![features, 128]);
        check_projector(widths)?;
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            bail!("temperature must be positive, it is {}", self.temperature)
        }
        Ok(self)
    }
}

pub(crate) struct SimClr {
    params: ParamStore,
    backbone: Box<dyn Backbone>,
    projector: Mlp,
    objective: NtXent,
    mode: ForwardMode,
}

impl SimClr {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = ParamStore::new(build.seed, build.device);
        let backbone = (build.backbone)(&mut params.scope(Group::Trunk).pp("backbone"))?;
        let config = config.resolve(backbone.out_dim())?;
        let blocks = projector::simclr(&config.projector.unwrap_or_default());
        let projector = Mlp::new(&mut params.scope(Group::Projector).pp("projector"), backbone.out_dim(), &blocks)?;
        let objective = NtXent { temperature: config.temperature };
        Ok(Self { params, backbone, projector, objective, mode: config.forward })
    }

    fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.backbone.forward_t(x, true)?;
        self.projector.forward(&h, true)?.to_dtype(DType::F32)
    }
}

impl Method for SimClr {
    fn forward(&mut self, batch: &Batch) -> Result<Forward> {
        let [x1, x2] = batch.views.pair()?;
        let (z1, z2) = match self.mode {
            ForwardMode::Split => (self.embed(x1)?, self.embed(x2)?),
            ForwardMode::Fused => {
                let n = x1.dim(0)?;
                let z = self.embed(&Tensor::cat(&[x1, x2], 0)?)?;
                (z.narrow(0, 0, n)?, z.narrow(0, n, n)?)
            }
        };
        let loss = self.objective.loss(&z1, &z2)?;
        let trivial_loss = Some((2.0 * z1.dim(0)? as f64 - 1.0).ln());
        Ok(Forward { loss, embeddings: vec![z1.detach(), z2.detach()], trivial_loss, monitors: Vec::new() })
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }
}
