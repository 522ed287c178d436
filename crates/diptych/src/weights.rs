//! A backbone with its weights, from a run or a file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use diptych_backbones::{BackboneConfig, pretrained};
use diptych_eval::Transform;
use diptych_nn::{Backbone, Group, ParamStore};
use diptych_trainer::{BadInput, OrBadInput, Recipe, RunDir};

/// Where [`Weights`] come from, and what a file may leave unsaid.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A run directory or a safetensors file.
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
    /// How images are prepared.
    pub transform: Transform,
    /// The data that the run was trained on, where known: the default for evaluation.
    pub data: Option<diptych_trainer::recipe::DataConfig>,
}

/// Opens a run directory or a file and loads its weights.
///
/// # Errors
/// [`BadInput`] if there is nothing there, or the weights do not fit the backbone.
pub fn open(source: &Source) -> Result<Weights> {
    let weights = build(source, 0)?;
    let path = Path::new(&source.path);
    let file = if path.is_dir() { RunDir::open(path)?.backbone() } else { path.to_path_buf() };
    if path.is_dir() && !file.exists() {
        let message = format!("{} has no backbone.safetensors yet: it is written at the first evaluation", path.display());
        return Err(BadInput(message).into());
    }
    let name = file.to_str().map_or_else(|| file.to_string_lossy().into_owned(), str::to_string);
    let name = if source.path.starts_with("hf://") { source.path.clone() } else { name };
    pretrained::load(&name, &weights.params).or_bad_input()?;
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
            ..Transform::default()
        };
        (BackboneConfig { weights: None, ..recipe.backbone }, transform, Some(recipe.data))
    } else {
        let metadata = match source.path.starts_with("hf://") {
            true => HashMap::new(),
            false => pretrained::metadata(path).or_bad_input()?,
        };
        let (config, transform) = described(source, &metadata)?;
        (config, transform, None)
    };
    let device = candle_core::Device::Cpu;
    let mut params = ParamStore::new(seed, &device);
    let backbone =
        diptych_backbones::build(&config, transform.size, &mut params.scope(Group::Trunk)).or_bad_input()?;
    Ok(Weights { backbone, params, config, transform, data })
}

/// What a file's metadata say, with the flags for what they do not.
fn described(source: &Source, metadata: &HashMap<String, String>) -> Result<(BackboneConfig, Transform)> {
    let get = |key: &str| metadata.get(key).map(String::as_str);
    let Some(name) = source.backbone.as_deref().or(get("backbone")) else {
        let message = format!("{} does not say what backbone it holds; give --backbone, such as resnet50", source.path);
        return Err(BadInput(message).into());
    };
    let number = |key: &str, text: &str| {
        text.parse::<usize>().map_err(|_| BadInput(format!("{}: metadata {key} = {text} is not a number", source.path)))
    };
    let mut config = BackboneConfig { name: name.to_string(), ..BackboneConfig::default() };
    if let Some(width) = get("width") {
        config.width = number("width", width)?;
    }
    if let Some(stem) = get("stem") {
        config.stem = stem.parse().or_bad_input()?;
    }
    let mut transform = Transform::default();
    let from_file = get("image_size").map(|text| number("image_size", text)).transpose()?;
    transform.size = source.image_size.or(from_file).unwrap_or(224);
    for (key, values) in [("mean", &mut transform.mean), ("std", &mut transform.std)] {
        let Some(text) = get(key) else { continue };
        let read: Vec<f32> = text.split(',').filter_map(|value| value.trim().parse().ok()).collect();
        *values = read.try_into().map_err(|_| BadInput(format!("{}: metadata {key} = {text} are not three numbers", source.path)))?;
    }
    Ok((config, transform))
}

/// What a weights file says of itself beside the names: enough to build the backbone and prepare images.
pub fn describe(config: &BackboneConfig, transform: &Transform) -> std::collections::BTreeMap<String, String> {
    let list = |values: &[f32; 3]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    [
        ("backbone", config.name.clone()),
        ("width", config.width.to_string()),
        ("stem", config.stem.to_string()),
        ("image_size", transform.size.to_string()),
        ("mean", list(&transform.mean)),
        ("std", list(&transform.std)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect()
}
