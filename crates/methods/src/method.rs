//! What the training loop knows of a method.

use candle_core::{Device, Result, Tensor};
use diptych_losses::Loss;
use diptych_nn::{Backbone, Batch, ParamStore, Scope};

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

/// What a forward pass gives.
#[derive(Debug)]
pub struct Forward {
    /// The objective, with its graph.
    pub loss: Loss,
    /// The embeddings z, one `[N, D]` a view, detached: monitors watch them.
    pub embeddings: Vec<Tensor>,
    /// The loss of a network that tells no image from another, if the objective has such a value: ln(2N - 1) for NT-Xent
    /// over N pairs, ln(K + 1) for InfoNCE over K negatives. A loss that stays there learns nothing.
    pub trivial_loss: Option<f64>,
    /// Further numbers to watch, by name (`queue_age`, `queue_norm`): rows of metrics and curves of the report.
    pub monitors: Vec<(&'static str, f64)>,
}

/// A method: networks, and an objective over the views of a batch.
///
/// A step runs `before_step`, `forward`, backward and the optimizer, `after_step`. A method with a target network, a
/// queue or prototypes keeps them in stores of its own, changes them in `before_step` or `after_step`, and names them
/// in `extra_state`, so that a checkpoint holds them.
pub trait Method: Send {
    /// Runs before the forward pass (MoCo moves its key encoder here).
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn before_step(&mut self, _step: Step) -> Result<()> {
        Ok(())
    }

    /// Builds the graph of the objective; changes nothing but running statistics.
    ///
    /// # Errors
    /// If the batch has another number of views than the method takes, or a tensor operation fails.
    fn forward(&mut self, batch: &Batch) -> Result<Forward>;

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
    /// Where parameters live.
    pub device: &'a Device,
    /// The seed of initial values.
    pub seed: u64,
    /// Images in the training set, for methods that keep something per image.
    pub dataset_len: usize,
    /// Steps of the run, for schedules inside a method.
    pub total_steps: u64,
}
