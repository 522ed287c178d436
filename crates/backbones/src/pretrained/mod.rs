//! Weights of other projects in, weights for other projects out.
//!
//! What is written is safetensors with torchvision's names ([`export`]), or a `.pth` with Detectron2's ([`export_detectron2`]). What is read ([`load`], [`import`]) is
//! either that, or a checkpoint of another project ([`CONVENTIONS`]): `.pth`, `.pt`, `.tar`, `.ckpt`, `.bin`, of any version of PyTorch. Their pickles are
//! read as data; nothing in them is run.
//!
//! Convolutions lie `[O, I, kh, kw]` unless the metadata says `layout=ohwi`; the metadata decides, never a shape, since [64, 3, 3, 3] is both.
//!
//! | convention | where the backbone is |
//! | --- | --- |
//! | torchvision, timm | the file itself, `state_dict`, `model` or `model_state_dict`; `module.` or `backbone.` before the names or not; `fc.` left aside |
//! | moco | `state_dict`, `module.encoder_q.` (v3: `module.base_encoder.`) |
//! | simsiam | `state_dict`, `module.encoder.` |
//! | barlowtwins | `model`, `module.backbone.` (`checkpoint.pth`), or the file itself (`resnet50.pth`) |
//! | swav | the file itself or `state_dict`, `module.`, beside `projection_head` and `prototypes` |
//! | byol | as converters of the published Haiku weights write it: torchvision's names in the file itself; or an `online_network.` |
//! | solo-learn | `state_dict`, `backbone.` (before 1.0.3 `encoder.`) |
//! | lightly | `state_dict`, `backbone.`, with torchvision's names or the numbers of an `nn.Sequential` |
//! | detectron2 | `model`, `stem.` and `res2.` to `res5.` |

mod array;
mod convention;
mod detectron2;
mod import;
mod infer;
mod pickle;
mod source;
#[cfg(test)]
mod tests;
mod torch;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use diptych_hub::Policy;
use diptych_nn::{Layout, ParamStore};

use crate::{Architecture, BackboneConfig};

pub use array::Array;
pub use convention::{CONVENTIONS, IMAGENET_MEAN, IMAGENET_STD};
pub use detectron2::{export_detectron2, fits_detectron2};
pub use import::{Found, Hints, Imported, import, inspect};
use source::Source;

/// The layer that sees the images.
const FIRST: &str = "conv1.weight";

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The file, after any download.
    pub path: PathBuf,
    /// Tensors copied into the store.
    pub tensors: usize,
    /// Names of the file that are no part of a backbone (a classifier, a projector), in order.
    pub ignored: Vec<String>,
    /// How many batches each norm has seen, by the norm's name (`bn1`), where the file says it.
    pub batches: BTreeMap<String, i64>,
}

/// The file that `source` means: a path, or `hf://owner/name[@revision][/file]`, downloaded if need be (the file is
/// `model.safetensors` and the revision `main` unless given; `HF_HUB_OFFLINE` forbids the network).
///
/// # Errors
/// If there is no such file, here or there.
pub fn resolve(source: &str) -> Result<PathBuf> {
    let Some(rest) = source.strip_prefix("hf://") else {
        let path = PathBuf::from(source);
        if !path.is_file() {
            bail!("backbone weights: there is no file {source}")
        }
        return Ok(path);
    };
    let (repo, revision, file) = parse_hub(rest).with_context(|| format!("backbone weights: {source}"))?;
    diptych_hub::resolve(&repo, &revision, &file, Policy::from_env())
        .with_context(|| format!("backbone weights: {source}"))
}

/// (repository, revision, file) of `owner/name[@revision][/file]`.
fn parse_hub(rest: &str) -> Result<(String, String, String)> {
    let mut parts = rest.splitn(3, '/');
    let (owner, name, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    if owner.is_empty() || name.is_empty() || revision.is_empty() || file == Some("") {
        bail!("expected hf://owner/name, hf://owner/name/file or hf://owner/name@revision/file")
    }
    Ok((format!("{owner}/{name}"), revision.into(), file.unwrap_or("model.safetensors").into()))
}

/// How weights for images of three channels get into a backbone for images of another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapt {
    /// They do not: another number is an error.
    No,
    /// The filters of red, green and blue in turn, times 3 / channels; for one channel this is their sum.
    Channels,
}

/// Copies the weights that `source` (as [`resolve`]) names into `store`, a backbone's own store with torchvision's names.
///
/// The file is safetensors or a PyTorch checkpoint; the backbone is found in it as [`import`] finds it, and the other parts are left aside.
/// Nothing is copied unless every tensor fits.
///
/// # Errors
/// If the file cannot be read, or a parameter is missing, unknown or of another shape; the message names the key and
/// both shapes.
pub fn load(store: &ParamStore, source: &str) -> Result<Loaded> {
    load_adapted(store, source, Adapt::No)
}

/// [`load`], with the first layer adapted to the backbone's channels where `adapt` allows it.
///
/// # Errors
/// As [`load`].
pub fn load_adapted(store: &ParamStore, source: &str, adapt: Adapt) -> Result<Loaded> {
    let path = resolve(source)?;
    let mut file = Source::open(&path)?;
    let located = import::locate(&file, None)?;
    let layout = file.layout()?;
    let (mut shapes, mut weights, mut batches) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (name, key) in &located.names {
        if let Some(norm) = name.strip_suffix(".num_batches_tracked") {
            batches.extend(file.read(key)?.count().map(|count| (norm.to_string(), count)));
            continue;
        }
        let mut shape = file.shape(key)?;
        // Only what the backbone has is read: what it lacks is told below.
        if let Some(param) = store.get(name) {
            let value = file.read(key)?.tensor().with_context(|| format!("{}: {}", path.display(), key.name))?;
            let value = match (adapt, name == FIRST) {
                (Adapt::Channels, true) => adapted(&value, layout, param.var.dims().last().copied().unwrap_or(3))?,
                _ => value,
            };
            shape = value.dims().to_vec();
            weights.insert(name.clone(), value);
        }
        shapes.insert(name.clone(), shape);
    }
    let expected: BTreeMap<String, Vec<usize>> =
        store.iter().map(|(name, param)| (name.to_string(), shape_in(param.var.dims(), layout))).collect();
    channels_fit(&expected, &shapes, layout)
        .and_then(|()| infer::check(&expected, &shapes, "the backbone", &located))
        .with_context(|| format!("{}: these weights do not fit the backbone", path.display()))?;
    for (name, value) in &weights {
        store.load_tensor(name, value, layout)?;
    }
    Ok(Loaded { path, tensors: weights.len(), ignored: located.ignored, batches })
}

/// The metadata of a weights file; empty where it has none, or is a PyTorch checkpoint.
///
/// # Errors
/// If it can't be read, or is no weights file.
pub fn metadata(path: &Path) -> Result<HashMap<String, String>> {
    Ok(Source::open(path)?.metadata())
}

/// A parameter's shape in a file of this layout.
fn shape_in(dims: &[usize], layout: Layout) -> Vec<usize> {
    match dims {
        &[o, kh, kw, i] if layout == Layout::Oihw => vec![o, i, kh, kw],
        dims => dims.to_vec(),
    }
}

/// Says what can be done where the first layer is for images of other channels.
fn channels_fit(expected: &infer::Shapes, shapes: &infer::Shapes, layout: Layout) -> Result<()> {
    let channels = if layout == Layout::Oihw { 1 } else { 3 };
    let (Some(wanted), Some(shape)) = (expected.get(FIRST), shapes.get(FIRST)) else { return Ok(()) };
    if shape.len() == 4 && wanted.len() == 4 && shape[channels] != wanted[channels] {
        bail!(
            "{FIRST} has shape {shape:?}, the backbone expects {wanted:?}: it is for images of {} channels; backbone.adapt_weights = true \
             adapts weights of 3 channels",
            shape[channels]
        )
    }
    Ok(())
}

/// A first layer for three channels, as one for `channels`.
fn adapted(first: &Tensor, layout: Layout, channels: usize) -> Result<Tensor> {
    let dim = if layout == Layout::Oihw { 1 } else { 3 };
    if first.rank() != 4 || first.dims()[dim] != 3 || channels == 3 {
        return Ok(first.clone());
    }
    if channels == 1 {
        return Ok(first.sum_keepdim(dim)?);
    }
    let turns: Vec<u32> = (0..channels as u32).map(|c| c % 3).collect();
    let filters = first.index_select(&Tensor::new(turns, first.device())?, dim)?;
    Ok((filters * (3.0 / channels as f64))?)
}

/// A backbone's tensors as torchvision's `state_dict` has them: convolutions `[O, I, kh, kw]`, running statistics and
/// `num_batches_tracked` (i64) included, `fc` not. `batches` gives the count of batches of a norm by its name, such as `bn1`.
///
/// # Errors
/// If the device cannot copy.
pub fn export_arrays(store: &ParamStore, batches: impl Fn(&str) -> i64) -> Result<BTreeMap<String, Array>> {
    let mut arrays = BTreeMap::new();
    for (name, tensor) in store.tensors(Layout::Oihw)? {
        if let Some(norm) = name.strip_suffix(".running_mean") {
            arrays.insert(format!("{norm}.num_batches_tracked"), Array::from_count(batches(norm)));
        }
        arrays.insert(name, Array::from_tensor(&tensor)?);
    }
    Ok(arrays)
}

/// [`export_arrays`] in Candle, with the same count of batches for every norm.
///
/// # Errors
/// If the device cannot copy.
pub fn export_tensors(store: &ParamStore, batches: u64) -> Result<BTreeMap<String, Tensor>> {
    let count = i64::try_from(batches)?;
    let arrays = export_arrays(store, |_| count)?.into_iter();
    arrays
        .map(|(name, array)| match array.count() {
            Some(count) => Ok((name, Tensor::new(count, &candle_core::Device::Cpu)?)),
            None => Ok((name, array.tensor()?)),
        })
        .collect()
}

/// What an exported file says about itself; `pytorch` holds the lines that build the module.
pub fn export_metadata(config: &BackboneConfig, architecture: &Architecture) -> HashMap<String, String> {
    [
        ("format", "pt".to_string()),
        ("layout", "oihw".to_string()),
        ("backbone", config.name.clone()),
        ("width", config.width.to_string()),
        ("base", architecture.base.to_string()),
        ("channels", architecture.channels.to_string()),
        ("stem", architecture.stem.name().to_string()),
        ("pytorch", architecture.pytorch()),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into()
}

/// An exported file's bytes: [`export_arrays`] with `metadata`, and the same count of batches for every norm.
///
/// # Errors
/// If the device cannot copy.
pub fn export(store: &ParamStore, batches: u64, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let count = i64::try_from(batches)?;
    serialize(&export_arrays(store, |_| count)?, metadata)
}

/// A safetensors file's bytes.
///
/// # Errors
/// If an array's bytes are not those that its shape needs.
pub fn serialize(arrays: &BTreeMap<String, Array>, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    Ok(safetensors::serialize(arrays, Some(metadata))?)
}
