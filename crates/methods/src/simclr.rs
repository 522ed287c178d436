//! SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., ICML 2020,
//! arXiv:2002.05709).
//!
//! Two views of each image go through one network; each view must find its partner among all other views of the batch.

use std::sync::Arc;

use candle_core::{Result, bail};
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::{Block, projector};
use diptych_losses::NtXent;
use diptych_nn::{Backbone, Batch, ParamStore};
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::registry::check_projector;
use crate::{Build, Embeddings, Forward, Method, crops};

pub(crate) const PAPER: &str = "SimCLR (Chen et al., ICML 2020, arXiv:2002.05709)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
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
    /// Whether similarities are cosines; else plain products (table 5).
    pub normalize: bool,
    /// What stands behind the backbone (section 4.2).
    pub head: Head,
    /// Widths of the projector's layers; the last is D. Left out: [F, 128], or [128] of a linear head. SimCLR v2 has three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector: Option<Vec<usize>>,
    /// Whether both views share one forward pass, and so their batch statistics.
    pub forward: ForwardMode,
}

/// The projector's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Head {
    /// A multi-layer perceptron.
    Mlp,
    /// One linear layer.
    Linear,
    /// Nothing: the loss sees the representation itself.
    None,
}

/// How the views go through the network.
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
        Self { temperature: 0.1, normalize: true, head: Head::Mlp, projector: None, forward: ForwardMode::Fused }
    }
}

impl Config {
    pub(crate) fn resolve(mut self, features: usize) -> Result<Self> {
        let widths = self.projector.get_or_insert_with(|| match self.head {
            Head::Mlp => vec![features, 128],
            Head::Linear => vec![128],
            Head::None => vec![features],
        });
        check_projector(widths)?;
        match (self.head, widths.as_slice()) {
            (Head::Linear, [_, _, ..]) => bail!(
                "head = \"linear\" is one layer, projector = {widths:?} has {}; give one width or use head = \"mlp\"",
                widths.len()
            ),
            (Head::None, widths) if widths != [features] => bail!(
                "head = \"none\" leaves the {features} features as they are; projector = {widths:?} must be left out"
            ),
            _ => {}
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            bail!("temperature must be positive, it is {}", self.temperature)
        }
        Ok(self)
    }

    fn blocks(&self) -> Vec<Block> {
        match self.head {
            Head::None => Vec::new(),
            Head::Mlp | Head::Linear => projector::simclr(self.projector.as_deref().unwrap_or_default()),
        }
    }
}

pub(crate) struct SimClr {
    params: ParamStore,
    encoder: Encoder,
    objective: NtXent,
    mode: ForwardMode,
    comm: Arc<dyn Collective>,
}

impl SimClr {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let encoder = Encoder::new(&mut params, build, &|_| config.blocks())?;
        let objective = NtXent { temperature: config.temperature, normalize: config.normalize };
        Ok(Self { params, encoder, objective, mode: config.forward, comm: build.comm.clone() })
    }
}

impl Method for SimClr {
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let z = match self.mode {
            ForwardMode::Fused => self.encoder.embed_fused(&batch.views.0)?,
            ForwardMode::Split => batch.views.0.iter().map(|x| self.encoder.embed(x)).collect::<Result<_>>()?,
        };
        Ok(Embeddings::of(z, Vec::new(), global))
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let z = &embeddings.live;
        let losses = crops::unordered(z.len(), embeddings.global)
            .into_iter()
            .map(|(i, j)| self.objective.loss_over(&z[i], &z[j], &self.comm))
            .collect::<Result<Vec<_>>>()?;
        let choices = 2 * z[0].dim(0)? * self.comm.size() - 1;
        Ok(Forward {
            trivial_loss: Some((choices as f64).ln()),
            ..Forward::new(crops::mean(&losses, 1.0)?, embeddings)
        })
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
