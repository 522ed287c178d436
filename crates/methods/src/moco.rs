//! MoCo: Momentum Contrast for Unsupervised Visual Representation Learning (He et al., CVPR 2020, arXiv:1911.05722), and Improved Baselines
//! with Momentum Contrastive Learning (Chen et al. 2020, arXiv:2003.04297), its second version.
//!
//! A query must find the key of its image in a dictionary. The dictionary is a queue of keys that a slowly moving encoder made in earlier
//! steps, or one of the two that the paper compares it with: the batch itself, or a bank with an entry for every image.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::projector;
use diptych_kernels::l2_normalize;
use diptych_losses::InfoNce;
use diptych_nn::{Backbone, Batch, ParamStore};
use serde::{Deserialize, Serialize};

use crate::dictionary::{MemoryBank, Queue, gather_index};
use crate::encoder::{Encoder, Target};
use crate::registry::{check_positive, check_projector, check_share};
use crate::shuffle::Shuffle;
use crate::{Build, Embeddings, Forward, Method, Step, crops};

pub(crate) const PAPER: &str = "MoCo (He et al., CVPR 2020, arXiv:1911.05722; v2: arXiv:2003.04297)";
pub(crate) const VIEWS: usize = 2;
/// Eight GPUs with a batch norm each.
pub(crate) const BN_GROUPS: usize = 8;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::mocov2;
/// The official code of the second version: SGD, 0.03 at 256 images, taken literally; cosine by the epoch, decay of every parameter.
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
final_ratio = 0.0
"#;

/// What a recipe may set; the defaults are those of the second version's official code.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where keys are looked up.
    pub dictionary: Dictionary,
    /// K: keys in the queue, or entries drawn from the bank; of no effect with `end_to_end`.
    pub queue: usize,
    /// The key encoder's decay, MoCo's m: `key = tau key + (1 - tau) query`.
    pub tau: f64,
    /// The temperature of the softmax over similarities: 0.07 in the first version.
    pub temperature: f64,
    /// Widths of the projector's layers; the last is D. Left out: [F, 128]; the first version has [128].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector: Option<Vec<usize>>,
    /// Whether each view is a query once.
    pub symmetric: Symmetric,
    /// Whether keys go through their encoder in another order, so that the groups of batch statistics tell nothing (section 3.3).
    pub shuffle: bool,
    /// How much an entry of the memory bank keeps when its image comes by.
    pub bank_momentum: f64,
}

/// Where keys are looked up (figure 2 of the paper).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dictionary {
    /// In the last K keys of the key encoder.
    Queue,
    /// Among the keys of the batch, through which gradients go as well.
    EndToEnd,
    /// Among K entries of a bank of all images.
    MemoryBank,
}

/// Which views are queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Symmetric {
    /// All but the second, which is the key.
    No,
    /// Each, and the losses are added up (the official notebook for CIFAR).
    Sum,
    /// Each, and the losses are averaged.
    Mean,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dictionary: Dictionary::Queue,
            queue: 65536,
            tau: 0.999,
            temperature: 0.2,
            projector: None,
            symmetric: Symmetric::No,
            shuffle: true,
            bank_momentum: 0.5,
        }
    }
}

impl Config {
    pub(crate) fn resolve(mut self, features: usize) -> Result<Self> {
        check_projector(self.projector.get_or_insert_with(|| vec![features, 128]))?;
        check_share("tau", self.tau)?;
        check_share("bank_momentum", self.bank_momentum)?;
        check_positive("temperature", self.temperature)?;
        if self.queue == 0 {
            bail!("queue must be at least 1, it is 0")
        }
        if self.dictionary == Dictionary::MemoryBank && self.symmetric != Symmetric::No {
            bail!(
                "symmetric needs keys of both views; the memory bank has one entry for an image: set symmetric = \"no\""
            )
        }
        Ok(self)
    }
}

/// The dictionary's memory.
enum Memory {
    Queue { queue: Queue, keys: Target },
    EndToEnd,
    Bank(MemoryBank),
}

pub(crate) struct Moco {
    config: Config,
    params: ParamStore,
    encoder: Encoder,
    memory: Memory,
    objective: InfoNce,
    comm: Arc<dyn Collective>,
    shuffle: Shuffle,
    seed: u64,
    step: u64,
    /// What goes into the memory after the step: images and their keys.
    pending: Vec<(Vec<u32>, Tensor)>,
}

impl Moco {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let blocks = |_| projector::moco(config.projector.as_deref().unwrap_or_default());
        let encoder = Encoder::new(&mut params, build, &blocks)?;
        let width = encoder.projector.out_dim();
        let memory = match config.dictionary {
            Dictionary::Queue => Memory::Queue {
                queue: Queue::new(build.store(build.seed)?, config.queue, width)?,
                keys: Target::new(build, build.seed, &blocks)?.copy(&params)?,
            },
            Dictionary::EndToEnd => Memory::EndToEnd,
            Dictionary::MemoryBank => {
                Memory::Bank(MemoryBank::new(build.store(build.seed)?, build.dataset_len, width)?)
            }
        };
        Ok(Self {
            objective: InfoNce { temperature: config.temperature },
            shuffle: Shuffle::new(build, config.shuffle),
            config,
            params,
            encoder,
            memory,
            comm: build.comm.clone(),
            seed: build.seed,
            step: 0,
            pending: Vec::new(),
        })
    }

    /// The keys of view `view`, `[N, D]`.
    fn keys(&self, x: &Tensor, view: usize) -> Result<Tensor> {
        self.shuffle.encode(x, self.step, view, |x| match &self.memory {
            Memory::Queue { keys, .. } => keys.embed(x),
            Memory::EndToEnd | Memory::Bank(_) => self.encoder.embed(x),
        })
    }

    /// The views that are keys.
    fn key_views(&self, global: usize) -> Vec<usize> {
        match (self.config.dictionary, self.config.symmetric) {
            (Dictionary::MemoryBank, _) => Vec::new(),
            (_, Symmetric::No) => vec![1],
            _ => (0..global).collect(),
        }
    }

    /// (query, key) by their places among the embeddings.
    fn pairs(&self, queries: usize, global: usize) -> Vec<(usize, usize)> {
        match self.config.symmetric {
            Symmetric::No => (0..queries).map(|query| (query, 0)).collect(),
            _ => crops::ordered(queries, global),
        }
    }
}

impl Method for Moco {
    fn before_step(&mut self, step: Step) -> Result<()> {
        self.step = step.index;
        match &self.memory {
            Memory::Queue { keys, .. } => keys.follow(&self.params, self.config.tau),
            _ => Ok(()),
        }
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let views = &batch.views.0;
        let queries = (0..views.len()).filter(|&view| match (self.config.dictionary, self.config.symmetric) {
            (Dictionary::MemoryBank, _) => view == 0,
            (_, Symmetric::No) => view != 1,
            _ => true,
        });
        let mut live: Vec<Tensor> = queries.map(|view| self.encoder.embed(&views[view])).collect::<Result<_>>()?;
        let key_views = self.key_views(global);
        let keys: Vec<Tensor> =
            key_views.into_iter().map(|view| self.keys(&views[view], view)).collect::<Result<_>>()?;
        let watched = [&live[0]].into_iter().chain(keys.first()).map(Tensor::detach).collect();
        match self.config.dictionary {
            Dictionary::EndToEnd => {
                live.extend(keys);
                Ok(Embeddings { live, fixed: Vec::new(), watched, global })
            }
            _ => Ok(Embeddings { live, fixed: keys, watched, global }),
        }
    }

    fn objective(&mut self, embeddings: &Embeddings, index: &[u32]) -> Result<Forward> {
        let (live, keys, global) = (&embeddings.live, &embeddings.fixed, embeddings.global);
        let rows = live[0].dim(0)? * self.comm.size();
        let (losses, choices, monitors) = match &self.memory {
            Memory::Queue { queue, .. } => {
                let losses = self.pairs(live.len(), global).into_iter();
                let losses = losses.map(|(q, k)| self.objective.loss(&live[q], &keys[k], &queue.keys()));
                let losses = losses.collect::<Result<Vec<_>>>()?;
                for key in keys {
                    self.pending.push((index.to_vec(), l2_normalize(key)?));
                }
                let monitors = vec![("queue_age", queue.age(rows * keys.len())?), ("queue_norm", queue.norm()?)];
                (losses, self.config.queue + 1, monitors)
            }
            Memory::EndToEnd => {
                let (queries, keys) = live.split_at(live.len() - self.key_views(global).len());
                let pairs = self.pairs(queries.len(), global).into_iter();
                let losses = pairs.map(|(q, k)| self.objective.among_over(&queries[q], &keys[k], &self.comm));
                (losses.collect::<Result<Vec<_>>>()?, rows, Vec::new())
            }
            Memory::Bank(bank) => {
                let all = gather_index(index, self.comm.as_ref())?;
                let negatives = bank.draw(self.config.queue, &all, self.seed, self.step)?;
                let loss = self.objective.loss(&live[0], &bank.of(index)?, &negatives)?;
                self.pending.push((index.to_vec(), l2_normalize(&live[0].detach())?));
                (vec![loss], self.config.queue + 1, Vec::new())
            }
        };
        let scale = if self.config.symmetric == Symmetric::Sum { 2.0 } else { 1.0 };
        let loss = crops::mean(&losses, scale)?;
        Ok(Forward { trivial_loss: Some(scale * (choices as f64).ln()), monitors, ..Forward::new(loss, embeddings) })
    }

    fn couples_batch(&self) -> bool {
        self.config.dictionary == Dictionary::EndToEnd
    }

    fn after_step(&mut self, _step: Step) -> Result<()> {
        for (index, keys) in self.pending.drain(..) {
            let keys = self.comm.all_gather(&keys)?;
            match &mut self.memory {
                Memory::Queue { queue, .. } => queue.push(&keys)?,
                Memory::Bank(bank) => {
                    bank.follow(&gather_index(&index, self.comm.as_ref())?, &keys, self.config.bank_momentum)?;
                }
                Memory::EndToEnd => {}
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
        match &self.memory {
            Memory::Queue { queue, keys } => vec![("keys", &keys.params), ("queue", &queue.state)],
            Memory::Bank(bank) => vec![("bank", &bank.state)],
            Memory::EndToEnd => Vec::new(),
        }
    }
}
