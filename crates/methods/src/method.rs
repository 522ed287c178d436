//! What the training loop knows of a method.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use diptych_comm::Collective;
use diptych_losses::Loss;
use diptych_nn::{Backbone, Batch, NormGroups, ParamStore, Scope};

/// Where in the run a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The step, from 0.
    pub index: u64,
    /// How many steps the run has.
    pub total: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
}

/// What the networks make of a batch. Row i of every tensor belongs to image i.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    /// What the objective pulls at, `[N, ..]` f32 each, with a graph: projections, predictions, scores.
    pub live: Vec<Tensor>,
    /// What the objective holds still, `[N, ..]` f32 each, without one: targets, keys.
    pub fixed: Vec<Tensor>,
    /// The embeddings z of the first two views, `[N, D]` each, detached: monitors watch them.
    pub watched: Vec<Tensor>,
    /// How many views, from the first on, are global ones.
    pub global: usize,
}

impl Embeddings {
    /// Live embeddings of all views, which are watched themselves.
    pub(crate) fn of(live: Vec<Tensor>, fixed: Vec<Tensor>, global: usize) -> Self {
        let watched = live.iter().take(2).map(Tensor::detach).collect();
        Self { live, fixed, watched, global }
    }

    /// The embeddings of several parts of a batch as those of the whole.
    ///
    /// # Errors
    /// If the parts do not fit each other.
    pub fn cat(parts: &[Self]) -> Result<Self> {
        let all = |of: fn(&Self) -> &Vec<Tensor>| -> Result<Vec<Tensor>> {
            let count = parts.first().map_or(0, |part| of(part).len());
            (0..count).map(|i| Tensor::cat(&parts.iter().map(|part| &of(part)[i]).collect::<Vec<_>>(), 0)).collect()
        };
        Ok(Self {
            live: all(|e| &e.live)?,
            fixed: all(|e| &e.fixed)?,
            watched: all(|e| &e.watched)?,
            global: parts.first().map_or(0, |part| part.global),
        })
    }
}

/// What a forward pass gives.
#[derive(Debug)]
pub struct Forward {
    /// The objective, with its graph.
    pub loss: Loss,
    /// The embeddings z of the first two views, `[N, D]` each, detached: monitors watch them.
    pub embeddings: Vec<Tensor>,
    /// The loss of a network that tells no image from another, if the objective has such a value: ln(2N - 1) for NT-Xent
    /// over N pairs, ln(K + 1) for InfoNCE over K negatives. A loss that stays there learns nothing.
    pub trivial_loss: Option<f64>,
    /// Further numbers to watch, by name (`queue_age`, `queue_norm`): rows of metrics and curves of the report. Tensors, so that nobody waits
    /// for a device in the steps that are not logged.
    pub monitors: Vec<(&'static str, Tensor)>,
}

impl Forward {
    /// A loss of these embeddings, with nothing more to watch.
    pub fn new(loss: Loss, embeddings: &Embeddings) -> Self {
        Self { loss, embeddings: embeddings.watched.clone(), trivial_loss: None, monitors: Vec::new() }
    }
}

/// A method: networks, and an objective over the views of a batch.
///
/// A step runs `before_step`, `embed`, `objective`, backward and the optimizer, `after_step`. A method with a target network, a
/// queue or prototypes keeps them in stores of its own, changes them in `before_step` or `after_step`, and names them
/// in `extra_state`, so that a checkpoint holds them.
///
/// A large batch may come in parts: `embed` then runs more than once in a step (and twice for each part), `objective` once over all rows
/// (or once a part, where [`Method::couples_batch`] says that this is the same). So `embed` remembers nothing, and what `after_step` needs is
/// gathered by `objective`.
pub trait Method: Send {
    /// Whether the method wants to see every image once before the first step.
    fn surveys(&self) -> bool {
        false
    }

    /// Sees a batch of the first epoch before the first step, without learning from it (DeepCluster fills its memory).
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn survey(&mut self, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    /// Runs before the forward pass (MoCo moves its key encoder here).
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn before_step(&mut self, _step: Step) -> Result<()> {
        Ok(())
    }

    /// Runs the networks; changes nothing but running statistics.
    ///
    /// # Errors
    /// If the batch has another number of views than the method takes, or a tensor operation fails.
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings>;

    /// The objective of embeddings and of the places of their images in the data set.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn objective(&mut self, embeddings: &Embeddings, index: &[u32]) -> Result<Forward>;

    /// [`Self::embed`], then [`Self::objective`].
    ///
    /// # Errors
    /// As theirs.
    fn forward(&mut self, batch: &Batch) -> Result<Forward> {
        let embeddings = self.embed(batch)?;
        self.objective(&embeddings, &batch.index)
    }

    /// Whether one image's loss depends on the rest of the batch: such a loss can't be summed over micro-batches.
    fn couples_batch(&self) -> bool;

    /// What the optimizer may change, and the running statistics that go with it.
    fn params(&self) -> &ParamStore;

    /// What evaluation and export take away; its parameters are those below `backbone.` in [`Self::params`].
    fn backbone(&self) -> &dyn Backbone;

    /// Runs after the optimizer (BYOL's target, MoCo's queue, SwAV's prototypes move here).
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn after_step(&mut self, _step: Step) -> Result<()> {
        Ok(())
    }

    /// State that is checkpointed and never optimized: a target network, a queue.
    fn extra_state(&self) -> Vec<(&'static str, &ParamStore)> {
        Vec::new()
    }
}

/// Makes a backbone in a scope.
pub type BackboneMaker<'a> = dyn Fn(&mut Scope) -> Result<Box<dyn Backbone>> + 'a;

/// What a method is built from.
pub struct Build<'a> {
    /// The recipe's `[method]` table, as [`crate::Entry::resolve`] filled it.
    pub config: &'a toml::Table,
    /// Makes the backbone; a method with a target network calls it twice.
    pub backbone: &'a BackboneMaker<'a>,
    /// The ranks of the run; each builds the method for itself, from the same seed.
    pub comm: &'a Arc<dyn Collective>,
    /// Groups of a global batch with batch statistics of their own.
    pub bn_groups: usize,
    /// Where parameters live.
    pub device: &'a Device,
    /// The seed of initial values.
    pub seed: u64,
    /// Images in the training set, for methods that keep something per image.
    pub dataset_len: usize,
    /// Steps of the run, for schedules inside a method.
    pub total_steps: u64,
}

impl Build<'_> {
    /// An empty store whose parameters will be drawn from `seed`.
    ///
    /// # Errors
    /// If ranks and groups of batch statistics do not fit each other.
    pub fn store(&self, seed: u64) -> Result<ParamStore> {
        let groups = NormGroups::new(self.comm, self.bn_groups)?;
        Ok(ParamStore::new(seed, self.device).with_norm_groups(groups))
    }
}
