//! Backbones out of the checkpoints of other projects: found, named as torchvision names them, and checked.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use diptych_nn::Layout;

use super::array::Array;
use super::convention::{CONVENTIONS, Convention, IMAGENET_MEAN, IMAGENET_STD, Naming, PLACES, is_head, layer_numbers};
use super::infer;
use super::source::{Key, Source};
use crate::{Architecture, BackboneConfig, Input, Stem, describe, described};

/// What a user may say about a file; what is left out is found in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints {
    /// One of [`CONVENTIONS`].
    pub from: Option<String>,
    /// The backbone's name, one of [`NAMES`](crate::NAMES), and its width.
    pub backbone: Option<String>,
    /// Every channel times this.
    pub width: Option<usize>,
    /// The stem; a 3x3 one cannot be told from another by its shape.
    pub stem: Option<Stem>,
    /// Side of the images, in pixels.
    pub image_size: Option<usize>,
    /// What is subtracted from the channels.
    pub mean: Option<Vec<f32>>,
    /// What the channels are divided by.
    pub std: Option<Vec<f32>>,
}

/// What a file says about its backbone, before any tensor is read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file, after any download.
    pub path: PathBuf,
    /// What kind of file it is, in words.
    pub kind: &'static str,
    /// Whose names it has, one of [`CONVENTIONS`].
    pub convention: &'static str,
    /// The key of the dictionary under which the state dict is; empty where it is the file itself.
    pub container: &'static str,
    /// What is before the backbone's names.
    pub prefix: &'static str,
    /// The backbone as a recipe says it.
    pub config: BackboneConfig,
    /// The backbone.
    pub architecture: Architecture,
    /// How images are prepared: as the file or the user says, else the side by the stem (224, or 32 for a 3x3 one) and ImageNet's channels.
    pub input: Input,
    /// Keys that are no part of the backbone (heads, another encoder), in order.
    pub ignored: Vec<String>,
    /// What a user should know, a sentence each.
    pub notes: Vec<String>,
}

/// A backbone's tensors under torchvision's names, and how they were found.
#[derive(Clone, Debug)]
pub struct Imported {
    /// How they were found.
    pub found: Found,
    /// Parameters and running statistics as f32, and the counts of batches as i64 (0 where the file has none).
    pub tensors: BTreeMap<String, Array>,
}

impl Imported {
    /// The weights file's bytes, with what it says about itself.
    ///
    /// # Errors
    /// If the tensors cannot be written one after the other.
    pub fn safetensors(&self) -> Result<Vec<u8>> {
        let Found { config, architecture, input, convention, .. } = &self.found;
        let mut metadata = describe(config, architecture, input);
        metadata.insert("imported_from".into(), (*convention).into());
        super::serialize(&self.tensors, metadata)
    }
}

/// A backbone's keys in a file: torchvision's name and the key of each.
pub(crate) struct Located {
    pub(crate) place: &'static Convention,
    pub(crate) container: &'static str,
    pub(crate) prefix: &'static str,
    pub(crate) names: BTreeMap<String, Key>,
    pub(crate) ignored: Vec<String>,
}

/// What [`import`] would read, found without reading a tensor.
///
/// # Errors
/// As [`import`], but for what only the tensors' values show.
pub fn inspect(path: &Path, hints: &Hints) -> Result<Found> {
    let source = Source::open(path)?;
    let located = locate(&source, hints.from.as_deref())?;
    found(&source, &located, hints)
}

/// Reads the backbone out of a checkpoint of another project (`.pth`, `.pt`, `.tar`, `.ckpt`, `.bin`, zip or older) or out of a safetensors file.
/// Nothing in the file is run.
///
/// # Errors
/// If the file is not whole, holds no ResNet where `hints.from` or any known project keeps one, or the backbone is not one of ours; if a tensor is
/// missing, too many or of another shape. Each in one sentence that names the file, the key and both shapes.
pub fn import(path: &Path, hints: &Hints) -> Result<Imported> {
    let mut source = Source::open(path)?;
    let located = locate(&source, hints.from.as_deref())?;
    let mut found = found(&source, &located, hints)?;
    let layout = source.layout()?;
    let mut tensors = BTreeMap::new();
    let mut converted: BTreeMap<String, usize> = BTreeMap::new();
    for (name, key) in &located.names {
        let mut array = source.read(key)?;
        if !name.ends_with("num_batches_tracked") {
            if array.dtype != safetensors::Dtype::F32 {
                *converted.entry(format!("{:?}", array.dtype).to_lowercase()).or_default() += 1;
            }
            array = array.into_f32().with_context(|| format!("{}: {}", path.display(), key.name))?;
            if layout == Layout::Ohwi && array.shape.len() == 4 {
                array = Array::from_tensor(&array.tensor()?.permute((0, 3, 1, 2))?.contiguous()?)?;
            }
        }
        tensors.insert(name.clone(), array);
    }
    for norm in
        found.architecture.shapes().into_keys().filter_map(|name| Some(name.strip_suffix("running_mean")?.to_string()))
    {
        tensors.entry(format!("{norm}num_batches_tracked")).or_insert_with(|| Array::from_count(0));
    }
    for (dtype, count) in converted {
        found.notes.push(format!("{count} tensors were {dtype} and are f32 now"));
    }
    Ok(Imported { found, tensors })
}

/// Finds the backbone's keys.
pub(crate) fn locate(source: &Source, from: Option<&str>) -> Result<Located> {
    let file = source.path.display();
    if let Some(name) = from.filter(|name| !CONVENTIONS.contains(name)) {
        bail!("--from {name} is not known; there are {}", CONVENTIONS.join(", "))
    }
    let mut dictionaries: HashMap<&str, Option<Vec<Key>>> = HashMap::new();
    let mut places = PLACES.iter().filter(|place| from.is_none_or(|name| name == place.name));
    let located = places.find_map(|place| {
        place.containers.iter().find_map(|container| {
            let keys = dictionaries.entry(container).or_insert_with(|| source.keys(container)).as_ref()?;
            let marked = |key: &Key| place.marks.iter().any(|mark| key.name.starts_with(mark));
            if from.is_none() && !place.marks.is_empty() && !keys.iter().any(marked) {
                return None;
            }
            place.prefixes.iter().find_map(|prefix| {
                let shows = |naming: &&Naming| {
                    keys.iter().any(|key| key.name.strip_prefix(prefix).is_some_and(|name| naming.shows(name)))
                };
                let naming = place.namings.iter().find(shows)?;
                Some((place, *container, *prefix, *naming, keys.clone()))
            })
        })
    });
    if let Some((place, container, prefix, naming, keys)) = located {
        return Ok(named(place, container, prefix, naming, keys));
    }
    let elsewhere = if from.is_some() { locate(source, None).ok() } else { None };
    if let (Some(name), Some(other)) = (from, elsewhere) {
        bail!(
            "{file}: no ResNet where {name} keeps one; the file looks like {}'s: give --from {}, or leave it out",
            other.place.name,
            other.place.name
        )
    }
    let Some(keys) =
        ["state_dict", "model", "model_state_dict", ""].iter().find_map(|container| source.keys(container))
    else {
        bail!("{file} holds {}, no state dict; save model.state_dict() with torch.save", source.describe())
    };
    let first: Vec<&str> = keys.iter().take(3).map(|key| key.name.as_str()).collect();
    bail!(
        "{file} holds no ResNet that is known here: no key ends in layer1.0.conv1.weight; its first keys are {}",
        first.join(", ")
    )
}

/// The keys below the prefix under torchvision's names, and the rest.
fn named(
    place: &'static Convention,
    container: &'static str,
    prefix: &'static str,
    naming: Naming,
    keys: Vec<Key>,
) -> Located {
    let below = |key: &Key| key.name.strip_prefix(prefix).map(String::from);
    let bare: Vec<String> = keys.iter().filter_map(below).collect();
    let layers = layer_numbers(bare.iter().map(String::as_str));
    let (mut names, mut ignored) = (BTreeMap::new(), Vec::new());
    for key in keys {
        let name = below(&key).filter(|name| !is_head(name)).and_then(|name| naming.torchvision(&name, &layers));
        match name {
            // What is no tensor and no part of a backbone, such as an epoch beside the weights.
            Some(name) if key.tensor || infer::is_part(&name) => drop(names.insert(name, key)),
            Some(_) if !key.tensor => {}
            _ if key.tensor && !key.name.ends_with("num_batches_tracked") => ignored.push(key.name),
            _ => {}
        }
    }
    ignored.sort();
    Located { place, container, prefix, names, ignored }
}

/// What the keys and shapes say, with the hints and the file's own words.
fn found(source: &Source, located: &Located, hints: &Hints) -> Result<Found> {
    let file = source.path.display().to_string();
    let layout = source.layout()?;
    let mut shapes = BTreeMap::new();
    for (name, key) in &located.names {
        let mut shape = source.shape(key)?;
        if layout == Layout::Ohwi && shape.len() == 4 {
            shape = vec![shape[0], shape[3], shape[1], shape[2]];
        }
        shapes.insert(name.clone(), shape);
    }
    let (said, input) = described(&source.metadata()).with_context(|| file.clone())?;
    let said = said.filter(|_| hints.backbone.is_none());
    let config = infer::config(&shapes, said, hints).with_context(|| file.clone())?;
    let size = hints.image_size.or(input.as_ref().map(|input| input.size));
    let size = size.unwrap_or(if infer::kernel(&shapes) == Some(7) { 224 } else { 32 });
    let architecture = config.architecture(size).with_context(|| file.clone())?;
    infer::check(&architecture.shapes(), &shapes, &config.name, located).with_context(|| file.clone())?;
    let channel = |said: &Option<Vec<f32>>, own: Option<&Vec<f32>>, usual: &[f32]| {
        let usual: Vec<f32> = (0..architecture.channels).map(|i| usual[i % usual.len()]).collect();
        said.clone().or(own.cloned()).unwrap_or(usual)
    };
    let mean = channel(&hints.mean, input.as_ref().map(|input| &input.mean), &IMAGENET_MEAN);
    let std = channel(&hints.std, input.as_ref().map(|input| &input.std), &IMAGENET_STD);
    for (flag, values) in [("--mean", &mean), ("--std", &std)] {
        if values.len() != architecture.channels || values.iter().any(|value| !value.is_finite()) {
            bail!(
                "{flag} has {} numbers; the backbone of {file} takes images of {} channels: give one finite number for each",
                values.len(),
                architecture.channels
            )
        }
    }
    if std.iter().any(|value| *value <= 0.0) {
        bail!("--std must be above 0 for each channel")
    }
    let mut notes = Vec::new();
    if located.place.name == "solo-learn" && architecture.stem == Stem::Cifar {
        notes.push("solo-learn pads its 3x3 stem by 2 pixels, this library by 1: features differ near the border from solo-learn's own".into());
    }
    Ok(Found {
        path: source.path.clone(),
        kind: source.kind(),
        convention: located.place.name,
        container: located.container,
        prefix: located.prefix,
        config,
        architecture,
        input: Input { size, mean, std },
        ignored: located.ignored.clone(),
        notes,
    })
}
