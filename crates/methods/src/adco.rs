//! AdCo: Adversarial Contrast for Efficient Learning of Unsupervised Representations from Self-Trained Negative Adversaries (Hu et al., CVPR
//! 2021, arXiv:2011.08435).
//!
//! MoCo's queue is replaced by negatives that are learned: they climb the loss that the network descends.

use std::sync::Arc;

use candle_core::{D, Result, Tensor, Var, bail};
use candle_nn::ops::log_softmax;
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::projector;
use diptych_kernels::l2_normalize;
use diptych_losses::InfoNce;
use diptych_nn::{Backbone, Batch, Group, Init, ParamStore, Role};
use serde::{Deserialize, Serialize};

use crate::encoder::{Encoder, Target};
use crate::registry::{check_positive, check_projector, check_share};
use crate::shuffle::Shuffle;
use crate::{Build, Embeddings, Forward, Method, Step, crops};

pub(crate) const PAPER: &str = "AdCo (Hu et al., CVPR 2021, arXiv:2011.08435)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 8;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::mocov2;
/// The official code: SGD, 0.03 at 256 images, cosine by the epoch, decay of every parameter.
pub(crate) const OPTIM: &str = r#"
name = "sgd"
lr = 0.03
lr_scaling = "none"
momentum = 0.9
weight_decay = 1e-4
decay = "all"
schedule = "cosine"
per_epoch = true
warmup_epochs = 0
final_ratio = 0.02
"#;

/// What a recipe may set; the defaults are the official code's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How many negatives are learned.
    pub negatives: usize,
    /// The key encoder's decay: `key = tau key + (1 - tau) query`.
    pub tau: f64,
    /// The temperature of the network's loss.
    pub temperature: f64,
    /// The temperature of the loss that negatives climb.
    pub negatives_temperature: f64,
    /// The negatives' learning rate.
    pub negatives_lr: f64,
    /// The momentum of their steps.
    pub negatives_momentum: f64,
    /// Their weight decay.
    pub negatives_weight_decay: f64,
    /// Widths of the projector's layers; the last is D. Left out: [F, 128].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector: Option<Vec<usize>>,
    /// Whether each view is a query once, with the mean of both losses; else the first alone.
    pub symmetric: bool,
    /// Whether the keys of the batch's other images are negatives too, as in the official code; the paper's loss has the learned ones alone.
    pub batch_negatives: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            negatives: 65536,
            tau: 0.999,
            temperature: 0.12,
            negatives_temperature: 0.02,
            negatives_lr: 3.0,
            negatives_momentum: 0.9,
            negatives_weight_decay: 1e-4,
            projector: None,
            symmetric: false,
            batch_negatives: true,
        }
    }
}

impl Config {
    pub(crate) fn resolve(mut self, features: usize) -> Result<Self> {
        check_projector(self.projector.get_or_insert_with(|| vec![features, 128]))?;
        check_share("tau", self.tau)?;
        check_share("negatives_momentum", self.negatives_momentum)?;
        check_positive("temperature", self.temperature)?;
        check_positive("negatives_temperature", self.negatives_temperature)?;
        check_positive("negatives_lr", self.negatives_lr)?;
        if self.negatives == 0 || self.negatives_weight_decay.is_nan() || self.negatives_weight_decay < 0.0 {
            bail!("negatives must be at least 1 and negatives_weight_decay at least 0")
        }
        Ok(self)
    }
}

pub(crate) struct AdCo {
    config: Config,
    params: ParamStore,
    encoder: Encoder,
    keys: Target,
    adversary: Adversary,
    objective: InfoNce,
    comm: Arc<dyn Collective>,
    shuffle: Shuffle,
    step: u64,
    /// What the negatives will answer to.
    pending: Vec<Pair>,
}

/// Queries with their keys, without a graph, at length 1.
struct Pair {
    /// `[N, D]`.
    queries: Tensor,
    /// Each query's own, `[N, D]`, or those of the batch of all ranks.
    keys: Tensor,
    /// Among keys of the batch: where those of these queries begin.
    first: Option<usize>,
}

/// The negatives, `[K, D]`, and the momentum of their steps.
struct Adversary {
    state: ParamStore,
    negatives: Var,
    velocity: Var,
}

impl Adversary {
    fn new(mut state: ParamStore, count: usize, width: usize) -> Result<Self> {
        let mut scope = state.scope(Group::Frozen);
        let negatives = scope.get("negatives", &[count, width], Role::Buffer, Init::Normal(1.0))?;
        negatives.set(&l2_normalize(&negatives.as_detached_tensor())?)?;
        let velocity = scope.get("velocity", &[count, width], Role::Buffer, Init::Constant(0.0))?;
        Ok(Self { state, negatives, velocity })
    }

    /// The negatives at length 1, without a graph.
    fn keys(&self) -> Result<Tensor> {
        l2_normalize(&self.negatives.as_detached_tensor())
    }

    /// The gradient of the loss of these queries and keys for the negatives; equation 7 of the paper.
    fn gradient(&self, pair: &Pair, temperature: f64) -> Result<Tensor> {
        let Pair { queries, keys, first } = pair;
        let rows = queries.dim(0)? as u32;
        let (positive, place) = match *first {
            Some(first) => (queries.matmul(&keys.t()?)?, (0..rows).map(|row| first as u32 + row).collect()),
            None => ((queries * keys)?.sum_keepdim(D::Minus1)?, vec![0; rows as usize]),
        };
        let negative = queries.matmul(&l2_normalize(self.negatives.as_tensor())?.t()?)?;
        let logits = (Tensor::cat(&[positive, negative], 1)? / temperature)?;
        let place = Tensor::from_vec(place, (rows as usize, 1), logits.device())?;
        let loss = log_softmax(&logits, D::Minus1)?.gather(&place, 1)?.mean_all()?.neg()?;
        match loss.backward()?.get(&self.negatives) {
            Some(gradient) => Ok(gradient.clone()),
            None => bail!("adco: the negatives have no gradient"),
        }
    }
}

impl AdCo {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let blocks = |_| projector::moco(config.projector.as_deref().unwrap_or_default());
        let encoder = Encoder::new(&mut params, build, &blocks)?;
        let adversary = Adversary::new(build.store(build.seed)?, config.negatives, encoder.projector.out_dim())?;
        let keys = Target::new(build, build.seed, &blocks)?.copy(&params)?;
        let objective = InfoNce { temperature: config.temperature };
        let (comm, shuffle) = (build.comm.clone(), Shuffle::new(build, true));
        Ok(Self { config, params, encoder, keys, adversary, objective, comm, shuffle, step: 0, pending: Vec::new() })
    }

    /// (query, key): with symmetry every view but the key's own, else all against the second.
    fn pairs(&self, queries: usize, global: usize) -> Vec<(usize, usize)> {
        match self.config.symmetric {
            true => crops::ordered(queries, global),
            false => (0..queries).map(|query| (query, 0)).collect(),
        }
    }
}

impl Method for AdCo {
    fn before_step(&mut self, step: Step) -> Result<()> {
        self.step = step.index;
        self.keys.follow(&self.params, self.config.tau)
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let views = &batch.views.0;
        let (queries, keys): (Vec<usize>, Vec<usize>) = match self.config.symmetric {
            true => ((0..views.len()).collect(), (0..global).collect()),
            false => ((0..views.len()).filter(|&view| view != 1).collect(), vec![1]),
        };
        let live: Vec<Tensor> =
            queries.into_iter().map(|view| self.encoder.embed(&views[view])).collect::<Result<_>>()?;
        let encode = |view: usize| self.shuffle.encode(&views[view], self.step, view, |x| self.keys.embed(x));
        let fixed: Vec<Tensor> = keys.into_iter().map(encode).collect::<Result<_>>()?;
        let watched = [&live[0], &fixed[0]].map(Tensor::detach).to_vec();
        Ok(Embeddings { live, fixed, watched, global })
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let (live, negatives) = (&embeddings.live, self.adversary.keys()?);
        let keys = embeddings.fixed.iter().map(l2_normalize).collect::<Result<Vec<_>>>()?;
        let all = keys.iter().map(|keys| self.comm.all_gather(keys)).collect::<Result<Vec<_>>>()?;
        let (rows, batch) = (live[0].dim(0)?, self.config.batch_negatives);
        let first = batch.then_some(self.comm.rank() * rows);
        let mut losses = Vec::new();
        for (query, key) in self.pairs(live.len(), embeddings.global) {
            let (q, own) = (&live[query], if batch { &all[key] } else { &keys[key] });
            losses.push(match first {
                Some(first) => self.objective.loss_among(q, &Tensor::cat(&[own, &negatives], 0)?, first)?,
                None => self.objective.loss(q, own, &negatives)?,
            });
            self.pending.push(Pair { queries: l2_normalize(&q.detach())?, keys: own.clone(), first });
        }
        let choices = self.config.negatives + if batch { rows * self.comm.size() } else { 1 };
        let trivial_loss = Some((choices as f64).ln());
        Ok(Forward { trivial_loss, ..Forward::new(crops::mean(&losses, 1.0)?, embeddings) })
    }

    fn couples_batch(&self) -> bool {
        self.config.batch_negatives
    }

    /// One step of the negatives up the loss, with momentum and decay (section 3.3 and the official code).
    fn after_step(&mut self, _step: Step) -> Result<()> {
        let config = &self.config;
        let scale = 1.0 / (self.pending.len() * self.comm.size()) as f64;
        let mut sum: Option<Tensor> = None;
        for pair in self.pending.drain(..) {
            let gradient = self.adversary.gradient(&pair, config.negatives_temperature)?;
            sum = Some(match sum {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            });
        }
        let Some(sum) = sum else { return Ok(()) };
        let gradient = (self.comm.all_reduce_sum(&sum)? * scale)?;
        let negatives = self.adversary.negatives.as_detached_tensor();
        let velocity = (self.adversary.velocity.as_detached_tensor() * config.negatives_momentum)?;
        let velocity = ((velocity - gradient)? + (&negatives * config.negatives_weight_decay)?)?;
        self.adversary.negatives.set(&(negatives - (&velocity * config.negatives_lr)?)?)?;
        self.adversary.velocity.set(&velocity)
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.encoder.backbone.as_ref()
    }

    fn extra_state(&self) -> Vec<(&'static str, &ParamStore)> {
        vec![("keys", &self.keys.params), ("adversary", &self.adversary.state)]
    }
}
