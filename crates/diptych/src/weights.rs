//! A backbone with its weights, from a run or a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use diptych_augment::PerChannel;
use diptych_backbones::pretrained::{self, Hints};
use diptych_backbones::{Architecture, BackboneConfig, ResNet};
use diptych_data::Channels;
use diptych_eval::Transform;
use diptych_nn::{Backbone, Group, ParamStore};
use diptych_trainer::{BadInput, OrBadInput, Recipe, RunDir};

/// Where [`Weights`] come from, and what a file may leave unsaid.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A run directory, a safetensors file, or a checkpoint of another project.
    pub path: String,
    /// The backbone's name, where the file does not say.
    pub backbone: Option<String>,
    /// Side of the images, where the file does not say.
    pub image_size: Option<usize>,
}

/// A frozen backbone and how images must be prepared for it.
pub struct Weights {
    /// The network.
    pub backbone: Box<dyn Backbone>,
    /// Its parameters, named as torchvision names them.
    pub params: ParamStore,
    /// How it is built.
    pub config: BackboneConfig,
    /// What that makes.
    pub architecture: Architecture,
    /// How images are prepared.
    pub transform: Transform,
    /// The data that the run was trained on, where known: the default for evaluation.
    pub data: Option<diptych_trainer::recipe::DataConfig>,
    /// How many batches each norm has seen, by its name, as far as the file says.
    pub batches: BTreeMap<String, i64>,
}

impl Weights {
    /// As what the images for this backbone are read.
    pub fn channels(&self) -> Channels {
        let of_backbone = || self.config.channels.map_or(Channels::Auto, Channels::Stored);
        self.data
            .as_ref()
            .map(|data| data.channels)
            .filter(|known| *known != Channels::Auto)
            .unwrap_or_else(of_backbone)
    }
}

/// Opens a run directory or a file and loads its weights.
///
/// # Errors
/// [`BadInput`] if there is nothing there, or the weights do not fit the backbone.
pub fn open(source: &Source) -> Result<Weights> {
    let mut weights = build(source, 0)?;
    let path = Path::new(&source.path);
    let file = if path.is_dir() { RunDir::open(path)?.backbone() } else { path.to_path_buf() };
    if path.is_dir() && !file.exists() {
        let message =
            format!("{} has no backbone.safetensors yet: it is written at the first evaluation", path.display());
        return Err(BadInput(message).into());
    }
    let name = file.to_str().map_or_else(|| file.to_string_lossy().into_owned(), str::to_string);
    let name = if source.path.starts_with("hf://") { source.path.clone() } else { name };
    weights.batches = pretrained::load(&weights.params, &name).or_bad_input()?.batches;
    Ok(weights)
}

/// The same backbone with random weights of `seed`.
///
/// # Errors
/// As [`open`].
pub fn build(source: &Source, seed: u64) -> Result<Weights> {
    let path = Path::new(&source.path);
    let (config, transform, data) = if path.is_dir() {
        let run = RunDir::open(path)?;
        let text = std::fs::read_to_string(run.recipe()).context("recipe.toml can't be read").or_bad_input()?;
        let table = toml::from_str(&text).context("recipe.toml is not TOML").or_bad_input()?;
        let recipe = Recipe::resolve(&run.recipe().display().to_string(), table)?;
        let transform = Transform {
            size: recipe.augment.size,
            mean: recipe.augment.mean,
            std: recipe.augment.std,
            max_error_share: recipe.data.max_error_share,
            ..Transform::default()
        };
        (BackboneConfig { weights: None, ..recipe.backbone }, transform, Some(recipe.data))
    } else {
        let file = pretrained::resolve(&source.path).or_bad_input()?;
        let (config, transform) = from_file(source, &file)?;
        (config, transform, None)
    };
    let device = candle_core::Device::Cpu;
    let mut params = ParamStore::new(seed, &device);
    let architecture = config.architecture(transform.size).or_bad_input()?;
    let backbone = Box::new(ResNet::new(&mut params.scope(Group::Trunk), &architecture)?);
    Ok(Weights { backbone, architecture, params, config, transform, data, batches: BTreeMap::new() })
}

/// What a file says of its backbone, with the flags for what it does not.
fn from_file(source: &Source, file: &Path) -> Result<(BackboneConfig, Transform)> {
    let hints = Hints { backbone: source.backbone.clone(), image_size: source.image_size, ..Hints::default() };
    let found = pretrained::inspect(file, &hints).or_bad_input()?;
    let channels = |numbers: &[f32]| {
        let problem = || format!("weights {}: {} channels, at most 16 are read", source.path, numbers.len());
        PerChannel::new(numbers).with_context(problem).or_bad_input()
    };
    let (size, mean, std) = (found.input.size, channels(&found.input.mean)?, channels(&found.input.std)?);
    Ok((found.config, Transform { size, mean, std, ..Transform::default() }))
}
