//! A run as plain data: the recipe.
//!
//! A recipe is a TOML table in sections. What it leaves out is filled from the method's published values and then from
//! the defaults below, so that the merged recipe, which is printed and kept, has no hidden value.

mod channels;
mod defaults;
mod explain;
mod merge;
mod sampling;

use candle_core::DType;
use diptych_augment as augment;
use diptych_backbones::BackboneConfig;
use diptych_data::{Channels, Sampling};
use diptych_optim::OptimConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::bad_input;
use crate::{BadInput, OrBadInput};
pub use merge::{changed_keys, merge, set, set_value};

/// Everything that makes a run, merged and checked.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// The method's name and its own settings.
    pub method: Table,
    /// The network to pretrain.
    pub backbone: BackboneConfig,
    /// The images.
    pub data: DataConfig,
    /// The views of an image.
    pub augment: augment::Recipe,
    /// The optimizer and its schedule.
    pub optim: OptimConfig,
    /// The loop.
    pub trainer: TrainerConfig,
    /// What the run's report shows.
    pub report: ReportConfig,
}

/// `[data]`: the images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A folder, a file of a known format, or `synthetic`.
    pub path: String,
    /// Test images given apart; empty: as found beside the training images, or a hold-out.
    pub test: String,
    /// Side of the square views, and of the drawn images, in pixels.
    pub image_size: usize,
    /// As what images are read: `"auto"` (image files as 8-bit RGB, arrays as they are stored), `"rgb"`, or a number of channels, 1 to 16, of the depth
    /// that is stored.
    #[serde(with = "channels")]
    pub channels: Channels,
    /// Train on this many images; 0: all of them, or 10,000 drawn ones.
    pub train_size: usize,
    /// Test on this many images; 0: all of them, or 2,000 drawn ones.
    pub test_size: usize,
    /// Train on the images that this file names only, one a line; empty: on all.
    pub subset: String,
    /// `"shuffled"`: every image once in an epoch; `"balanced"`: every class equally often, for labeled data.
    #[serde(with = "sampling")]
    pub sampling: Sampling,
    /// Threads that decode and augment; 0: one less than the machine's cores, at least one.
    pub workers: usize,
    /// Decoded images are kept in memory up to this many MiB.
    pub cache_mib: usize,
    /// The run stops when a greater share of the images can't be decoded.
    pub max_error_share: f64,
}

/// `[trainer]`: the loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {
    /// Passes over the training images.
    pub epochs: u64,
    /// Images in a step, over all ranks.
    pub batch_size: usize,
    /// `f32` or `bf16`; `tf32` is for devices that have it.
    pub precision: Precision,
    /// The seed of all randomness.
    pub seed: u64,
    /// `auto`, `cpu` or `cuda[:I]`.
    pub device: String,
    /// Micro-batches whose gradients are summed before a step; 1: none.
    pub accumulate: usize,
    /// Parts in which a large batch goes through the networks, one after the other, while the loss sees it as a whole; 1: none.
    pub grad_cache: usize,
    /// Groups of the global batch with batch statistics of their own; 1: all images together.
    pub bn_groups: usize,
    /// Steps between checkpoints; 0: one at the end of each epoch.
    pub checkpoint_every: u64,
    /// How many of the last checkpoints are kept, beside the best.
    pub keep_checkpoints: usize,
    /// Epochs between evaluations; there is always one at the end. 0: only that.
    pub eval_every: u64,
    /// Neighbors that vote in the online kNN.
    pub knn_k: usize,
    /// Temperature of their votes.
    pub knn_temperature: f64,
    /// Training images that the online kNN may use as its bank.
    pub knn_bank: usize,
    /// Steps between rows of metrics.
    pub log_every: u64,
    /// What happens when the embeddings collapse to a point.
    pub on_collapse: OnCollapse,
}

/// Number formats of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 32-bit storage, products of tensor-core precision (10 bits of mantissa). GPUs only.
    Tf32,
    /// 16-bit activations and their gradients; parameters, their gradients, statistics and losses stay in 32 bits. On a GPU the products of losses
    /// are those of `Tf32`.
    Bf16,
}

impl Precision {
    /// The type of a step's images, which decides that of all activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// What happens when the embeddings collapse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCollapse {
    /// Say so and go on.
    Warn,
    /// Save and stop with exit code 3.
    Stop,
}

/// `[report]`: what the run's report shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Whether it may hold the user's pictures.
    pub images: bool,
}

impl Recipe {
    /// Fills `user` (a recipe file with all overrides merged in) with defaults and checks every section.
    ///
    /// # Errors
    /// [`BadInput`] that names the recipe, the section and the key.
    pub fn resolve(name: &str, user: Table) -> anyhow::Result<Self> {
        Self::checked(user).map_err(|error| BadInput(format!("recipe {name}: {error:#}")).into())
    }

    fn checked(user: Table) -> anyhow::Result<Self> {
        let table = defaults::fill(user)?;
        if let Some(unknown) = table.keys().find(|key| !defaults::SECTIONS.contains(&key.as_str())) {
            bad_input!("{}", explain::unknown_section(unknown, defaults::SECTIONS));
        }
        let recipe = Self {
            method: table.get("method").and_then(|v| v.as_table()).cloned().unwrap_or_default(),
            backbone: section(&table, "backbone")?,
            data: section(&table, "data")?,
            augment: section(&table, "augment")?,
            optim: section(&table, "optim")?,
            trainer: section(&table, "trainer")?,
            report: section(&table, "report")?,
        };
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.augment.check().or_bad_input()?;
        self.backbone.architecture(self.augment.size).or_bad_input()?;
        let (data, trainer) = (&self.data, &self.trainer);
        let at_least = |key: &str, value: u64, least: u64| match value < least {
            true => Err(BadInput(format!("{key} must be at least {least}, it is {value}"))),
            false => Ok(()),
        };
        at_least("trainer.epochs", trainer.epochs, 1)?;
        at_least("trainer.batch_size", trainer.batch_size as u64, 2)?;
        at_least("trainer.knn_k", trainer.knn_k as u64, 1)?;
        at_least("trainer.log_every", trainer.log_every, 1)?;
        at_least("trainer.keep_checkpoints", trainer.keep_checkpoints as u64, 1)?;
        at_least("trainer.accumulate", trainer.accumulate as u64, 1)?;
        at_least("trainer.grad_cache", trainer.grad_cache as u64, 1)?;
        at_least("trainer.bn_groups", trainer.bn_groups as u64, 1)?;
        at_least("data.image_size", data.image_size as u64, 8)?;
        if trainer.knn_temperature.is_nan() || trainer.knn_temperature <= 0.0 {
            bad_input!("trainer.knn_temperature must be positive, it is {}", trainer.knn_temperature);
        }
        if !(0.0..=1.0).contains(&data.max_error_share) {
            bad_input!("data.max_error_share is a share from 0 to 1, it is {}", data.max_error_share);
        }
        Ok(())
    }

    /// The method's name.
    pub fn method_name(&self) -> &str {
        self.method.get("name").and_then(|name| name.as_str()).unwrap_or_default()
    }

    /// The recipe as a table of sections.
    ///
    /// # Errors
    /// Never for a recipe that came from [`Self::resolve`].
    pub fn to_table(&self) -> anyhow::Result<Table> {
        let mut table = Value::Table(Table::try_from(self)?);
        shorten(&mut table);
        match table {
            Value::Table(table) => Ok(table),
            _ => Ok(Table::new()),
        }
    }

    /// The recipe as the text of a file that makes the same run.
    ///
    /// # Errors
    /// Never for a recipe that came from [`Self::resolve`].
    pub fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(&self.to_table()?)?)
    }
}

/// A 32-bit number that became a 64-bit one reads 0.48500001430511475; this makes it 0.485 again.
fn shorten(value: &mut Value) {
    match value {
        Value::Float(number) if f64::from(*number as f32) == *number => {
            *number = (*number as f32).to_string().parse().unwrap_or(*number);
        }
        Value::Array(list) => list.iter_mut().for_each(shorten),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| shorten(value)),
        _ => {}
    }
}

/// Reads one section of a filled table into its type.
fn section<T: DeserializeOwned>(table: &Table, name: &str) -> anyhow::Result<T> {
    let section = table.get(name).cloned().unwrap_or_else(|| Table::new().into());
    section.try_into().map_err(|error: toml::de::Error| BadInput(explain::key(name, &error.to_string())).into())
}

/// What a method said about its own table, as a sentence about `[method]`.
pub(crate) fn explain_method(message: &str) -> String {
    explain::key("method", message)
}
