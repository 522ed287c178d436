//! SimSiam: Exploring Simple Siamese Representation Learning (Chen and He, CVPR 2021, arXiv:2011.10566).
//!
//! One network predicts, for each view, what it makes of the other one, which is held still. There are no negatives and no momentum.

use candle_core::{Result, Tensor, bail};
use diptych_augment::Recipe;
use diptych_heads::{Mlp, Norm, predictor, projector};
use diptych_losses::{Loss, NegativeCosine, SimilarityCrossEntropy};
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::registry::check_projector;
use crate::{Build, Embeddings, Forward, Method, crops};

pub(crate) const PAPER: &str = "SimSiam (Chen and He, CVPR 2021, arXiv:2011.10566)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::mocov2;
/// Section 3 and the official code: SGD, 0.05 per 256 images, cosine to 0 without warm-up, decay of every parameter; the predictor's rate stays
/// as it is.
pub(crate) const OPTIM: &str = r#"
name = "sgd"
lr = 0.05
lr_scaling = "linear"
momentum = 0.9
weight_decay = 1e-4
decay = "all"
schedule = "cosine"
per_epoch = true
warmup_epochs = 0
final_ratio = 0.0
constant_lr = ["predictor"]
"#;

/// What a recipe may set; the defaults are the paper's (section 3).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Widths of the projector's layers; the last is D.
    pub projector: Vec<usize>,
    /// Where the projector has batch norms (table 3).
    pub projector_bn: Norms,
    /// What predicts the other view's projection (table 1 and section 4.2).
    pub predictor: Predictor,
    /// Width of the predictor's hidden layer.
    pub predictor_hidden: usize,
    /// Where the predictor has batch norms (table 3).
    pub predictor_bn: Norms,
    /// Whether the other view's projection is held still (section 4.1).
    pub stop_gradient: bool,
    /// What similarity is (section 4.5).
    pub similarity: Similarity,
    /// Whether each view predicts the other; else the first predicts the second (section 4.6).
    pub symmetric: bool,
}

/// Where a head has batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Norms {
    /// Behind every layer.
    All,
    /// Behind hidden layers.
    Hidden,
    /// Nowhere.
    None,
}

/// What predicts the other view's projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Predictor {
    /// A network of two layers.
    Mlp,
    /// Nothing: the projection itself (ablation).
    None,
    /// The network as it was drawn, never trained (ablation).
    Fixed,
}

/// What similarity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Similarity {
    /// The cosine.
    Cosine,
    /// The cross-entropy of softmaxes.
    CrossEntropy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            projector: vec![2048, 2048, 2048],
            projector_bn: Norms::All,
            predictor: Predictor::Mlp,
            predictor_hidden: 512,
            predictor_bn: Norms::Hidden,
            stop_gradient: true,
            similarity: Similarity::Cosine,
            symmetric: true,
        }
    }
}

impl Config {
    pub(crate) fn resolve(self, _features: usize) -> Result<Self> {
        check_projector(&self.projector)?;
        if self.predictor_hidden == 0 {
            bail!("predictor_hidden must be at least 1, it is 0")
        }
        Ok(self)
    }
}

pub(crate) struct SimSiam {
    config: Config,
    params: ParamStore,
    encoder: Encoder,
    predictor: Option<Mlp>,
}

impl SimSiam {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let (hidden, output) = match config.projector_bn {
            Norms::All => (true, true),
            Norms::Hidden => (true, false),
            Norms::None => (false, false),
        };
        let blocks = |_| projector::simsiam_with(&config.projector, hidden, output);
        let encoder = Encoder::new(&mut params, build, &blocks)?;
        let width = encoder.projector.out_dim();
        let mut blocks = predictor::simsiam_with(config.predictor_hidden, width, config.predictor_bn != Norms::None);
        if let (Norms::All, Some(last)) = (config.predictor_bn, blocks.last_mut()) {
            last.norm = Norm::ScaleShift;
        }
        let group = match config.predictor {
            Predictor::Mlp => Some(Group::Predictor),
            Predictor::Fixed => Some(Group::Frozen),
            Predictor::None => None,
        };
        let predictor = match group {
            Some(group) => Some(Mlp::new(&mut params.scope(group).pp("predictor"), width, &blocks)?),
            None => None,
        };
        Ok(Self { config, params, encoder, predictor })
    }

    fn similarity(&self, p: &Tensor, z: &Tensor) -> Result<Loss> {
        match self.config.similarity {
            Similarity::Cosine => NegativeCosine.loss(p, z),
            Similarity::CrossEntropy => SimilarityCrossEntropy.loss(p, z),
        }
    }
}

impl Method for SimSiam {
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let z: Vec<Tensor> = batch.views.0.iter().map(|x| self.encoder.embed(x)).collect::<Result<_>>()?;
        let watched = z.iter().take(2).map(Tensor::detach).collect();
        let p: Vec<Tensor> = match &self.predictor {
            Some(predictor) => z.iter().map(|z| predictor.forward(z, true)).collect::<Result<_>>()?,
            None => z.clone(),
        };
        let z = &z[..global];
        Ok(match self.config.stop_gradient {
            true => Embeddings { live: p, fixed: z.iter().map(Tensor::detach).collect(), watched, global },
            false => Embeddings { live: [&p, z].concat(), fixed: Vec::new(), watched, global },
        })
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let (p, z) = match self.config.stop_gradient {
            true => (&embeddings.live[..], &embeddings.fixed[..]),
            false => embeddings.live.split_at(embeddings.live.len() - embeddings.global),
        };
        let losses = crops::ordered(p.len(), embeddings.global)
            .into_iter()
            .filter(|&(view, target)| self.config.symmetric || view < target || view >= embeddings.global)
            .map(|(view, target)| self.similarity(&p[view], &z[target]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Forward::new(crops::mean(&losses, 1.0)?, embeddings))
    }

    fn couples_batch(&self) -> bool {
        false
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.encoder.backbone.as_ref()
    }
}
