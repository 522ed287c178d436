//! SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al., NeurIPS 2020, arXiv:2006.09882).
//!
//! Each view must predict to which prototypes another view of its image is assigned, while the assignments use all prototypes equally.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use diptych_augment::{Recipe, ViewOverrides};
use diptych_comm::{Collective, Local};
use diptych_heads::{Prototypes, projector};
use diptych_kernels::l2_normalize;
use diptych_losses::{SwappedPrediction, sinkhorn};
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::dictionary::Queue;
use crate::encoder::Encoder;
use crate::registry::{check_positive, check_projector};
use crate::{Build, Embeddings, Forward, Method, Step, crops};

pub(crate) const PAPER: &str = "SwAV (Caron et al., NeurIPS 2020, arXiv:2006.09882)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
/// Two global crops and six local ones of 96 in 224 (section 4.1 and the official code), with SimCLR's colors.
pub(crate) const AUGMENT: fn(usize) -> Recipe = |size| {
    let small = (size.saturating_mul(96) / 224).max(1);
    let global = ViewOverrides { crop_scale: Some([0.14, 1.0]), ..ViewOverrides::default() };
    let local = ViewOverrides { size: Some(small), crop_scale: Some([0.05, 0.14]), ..ViewOverrides::default() };
    let bilinear = diptych_augment::Interpolation::Bilinear;
    Recipe { interpolation: bilinear, views: [vec![global; 2], vec![local; 6]].concat(), ..Recipe::simclr(size) }
};
/// The official code: LARS in its apex form, of every parameter, 0.6 per 256 images without warm-up, cosine to a thousandth.
pub(crate) const OPTIM: &str = r#"
name = "lars"
variant = "bolts"
lr = 0.6
lr_scaling = "linear"
momentum = 0.9
weight_decay = 1e-6
decay = "all"
eta = 0.001
schedule = "cosine"
warmup_epochs = 0
final_ratio = 0.001
"#;

/// What a recipe may set; the defaults are the official code's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Widths of the projector's layers; the last is D.
    pub projector: Vec<usize>,
    /// K, the number of prototypes.
    pub prototypes: usize,
    /// The temperature of predictions.
    pub temperature: f64,
    /// How soft assignments are.
    pub epsilon: f64,
    /// Rounds of Sinkhorn and Knopp's algorithm.
    pub sinkhorn_iterations: usize,
    /// Embeddings of earlier batches that share in the assignment, for each global view; 0: none.
    pub queue: usize,
    /// The epoch, from 0, in which the queue begins to fill.
    pub queue_start_epoch: u64,
    /// Epochs at the start in which prototypes stay as they were drawn.
    pub freeze_prototypes_epochs: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            projector: vec![2048, 128],
            prototypes: 3000,
            temperature: 0.1,
            epsilon: 0.05,
            sinkhorn_iterations: 3,
            queue: 0,
            queue_start_epoch: 15,
            freeze_prototypes_epochs: 1.0,
        }
    }
}

impl Config {
    pub(crate) fn resolve(self, _features: usize) -> Result<Self> {
        check_projector(&self.projector)?;
        check_positive("temperature", self.temperature)?;
        check_positive("epsilon", self.epsilon)?;
        if self.prototypes < 2 || self.sinkhorn_iterations == 0 {
            bail!("prototypes must be at least 2 and sinkhorn_iterations at least 1")
        }
        if self.freeze_prototypes_epochs.is_nan() || self.freeze_prototypes_epochs < 0.0 {
            bail!("freeze_prototypes_epochs must be at least 0, it is {}", self.freeze_prototypes_epochs)
        }
        Ok(self)
    }
}

pub(crate) struct Swav {
    config: Config,
    params: ParamStore,
    encoder: Encoder,
    prototypes: Prototypes,
    /// One for each of the first two views.
    queues: Vec<Queue>,
    objective: SwappedPrediction,
    comm: Arc<dyn Collective>,
    epoch: u64,
    frozen: bool,
    /// Embeddings for the queues after the step.
    pending: Vec<Vec<Tensor>>,
}

impl Swav {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let encoder = Encoder::new(&mut params, build, &|_| projector::swav(&config.projector))?;
        let width = encoder.projector.out_dim();
        let mut scope = params.scope(Group::Prototypes);
        let prototypes = Prototypes::new(&mut scope.pp("prototypes"), width, config.prototypes)?;
        let queues = (0..if config.queue > 0 { 2 } else { 0 })
            .map(|view| Queue::new(build.store(build.seed.wrapping_add(view))?, config.queue, width))
            .collect::<Result<_>>()?;
        Ok(Self {
            objective: SwappedPrediction { temperature: config.temperature },
            frozen: config.freeze_prototypes_epochs > 0.0,
            config,
            params,
            encoder,
            prototypes,
            queues,
            comm: build.comm.clone(),
            epoch: 0,
            pending: Vec::new(),
        })
    }

    /// The cosines of z with the prototypes, `[N, K]`; while those are frozen, no gradient reaches them.
    fn scores(&self, z: &Tensor) -> Result<Tensor> {
        match self.frozen {
            true => l2_normalize(z)?.matmul(&self.prototypes.weight().as_detached_tensor().t()?),
            false => self.prototypes.forward(z, true),
        }
    }

    /// The assignments of this rank's rows of one view, `[N, K]`, made equal over all ranks and the queue.
    fn codes(&self, view: usize, scores: &Tensor) -> Result<Tensor> {
        let (rows, rank) = (scores.dim(0)?, self.comm.rank());
        let mut all = self.comm.all_gather(scores)?;
        if let Some(queue) = self.queues.get(view).filter(|queue| queue.is_full().unwrap_or(false)) {
            all = Tensor::cat(&[all, self.prototypes.forward(&queue.keys(), false)?], 0)?;
        }
        sinkhorn(&all, self.config.epsilon, self.config.sinkhorn_iterations, &Local)?.narrow(0, rank * rows, rows)
    }
}

impl Method for Swav {
    fn before_step(&mut self, step: Step) -> Result<()> {
        self.epoch = step.epoch;
        let frozen = self.config.freeze_prototypes_epochs * step.steps_per_epoch as f64;
        self.frozen = (step.index as f64) < frozen;
        Ok(())
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let z = self.encoder.embed_fused(&batch.views.0)?;
        let live = z.iter().map(|z| self.scores(z)).collect::<Result<Vec<_>>>()?;
        let watched: Vec<Tensor> = z.iter().take(2).map(Tensor::detach).collect();
        let mut fixed: Vec<Tensor> = live[..global].iter().map(Tensor::detach).collect();
        fixed.extend(watched.iter().map(l2_normalize).collect::<Result<Vec<_>>>()?);
        Ok(Embeddings { live, fixed, watched, global })
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let (scores, global) = (&embeddings.live, embeddings.global);
        // Scores that codes are made of, then embeddings for the queues.
        let (held, z) = embeddings.fixed.split_at(global);
        let codes = held.iter().enumerate().map(|(view, held)| self.codes(view, held)).collect::<Result<Vec<_>>>()?;
        let losses = crops::ordered(scores.len(), global)
            .into_iter()
            .map(|(view, of)| self.objective.loss(&scores[view], &codes[of]))
            .collect::<Result<Vec<_>>>()?;
        if self.epoch >= self.config.queue_start_epoch {
            self.pending.push(z.to_vec());
        }
        // Predictions that tell nothing against codes that are spread evenly.
        let trivial_loss = Some((self.config.prototypes as f64).ln());
        Ok(Forward { trivial_loss, ..Forward::new(crops::mean(&losses, 1.0)?, embeddings) })
    }

    fn couples_batch(&self) -> bool {
        true
    }

    fn after_step(&mut self, _step: Step) -> Result<()> {
        self.prototypes.normalize()?;
        for views in self.pending.drain(..) {
            for (queue, z) in self.queues.iter_mut().zip(&views) {
                queue.push(&self.comm.all_gather(z)?)?;
            }
        }
        Ok(())
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.encoder.backbone.as_ref()
    }

    fn extra_state(&self) -> Vec<(&'static str, &ParamStore)> {
        ["queue1", "queue2"].into_iter().zip(self.queues.iter().map(|queue| &queue.state)).collect()
    }
}
