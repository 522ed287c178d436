//! Weights of other projects in, weights for other projects out.
//!
//! Files are safetensors with torchvision's names. Convolutions lie `[O, I, kh, kw]` unless the metadata says
//! `layout=ohwi`; the metadata decides, never a shape, since [64, 3, 3, 3] is both.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use diptych_hub::Policy;
use diptych_nn::{Layout, ParamStore};
use safetensors::SafeTensors;

use crate::{Architecture, BackboneConfig};

/// What wrappers put before the names of a backbone's parameters.
const PREFIXES: [&str; 2] = ["module.", "backbone."];

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
/// `module.` and `backbone.` before the names are dropped; if any name has `backbone.`, only those are taken. `fc.` and
/// `num_batches_tracked` are not needed. Nothing is copied unless every tensor fits.
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
    let (tensors, layout) = read(&path)?;
    let (mut weights, ignored) = select(tensors);
    if let (Adapt::Channels, Some(first), Some(param)) = (adapt, weights.get_mut(FIRST), store.get(FIRST)) {
        *first = adapted(first, layout, param.var.dims().last().copied().unwrap_or(3))?;
    }
    let fits = check(store, &weights, layout);
    fits.with_context(|| format!("{}: these weights do not fit the backbone", path.display()))?;
    for (name, value) in &weights {
        store.load_tensor(name, value, layout)?;
    }
    Ok(Loaded { path, tensors: weights.len(), ignored })
}

/// The metadata of a weights file; empty where it has none.
///
/// # Errors
/// If it can't be read, or is not a safetensors file.
pub fn metadata(path: &Path) -> Result<HashMap<String, String>> {
    Ok(open(path)?.1)
}

/// A safetensors file's bytes and metadata.
fn open(path: &Path) -> Result<(Vec<u8>, HashMap<String, String>)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.starts_with(b"PK") || bytes.starts_with(b"\x80") {
        bail!("{} is a PyTorch pickle; save its state dict with safetensors.torch.save_file first", path.display())
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .with_context(|| format!("{} is not a whole safetensors file", path.display()))?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    Ok((bytes, metadata))
}

/// A file's tensors, and how its convolutions lie.
fn read(path: &Path) -> Result<(HashMap<String, Tensor>, Layout)> {
    let (bytes, metadata) = open(path)?;
    let layout = match metadata.get("layout").map(String::as_str) {
        None | Some("oihw") => Layout::Oihw,
        Some("ohwi") => Layout::Ohwi,
        Some(other) => bail!("{}: layout={other} in the metadata is not known; oihw and ohwi are", path.display()),
    };
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .with_context(|| format!("{} is not a whole safetensors file", path.display()))?;
    Ok((tensors, layout))
}

/// The backbone's tensors under torchvision's names, and the names of the others.
fn select(tensors: HashMap<String, Tensor>) -> (BTreeMap<String, Tensor>, Vec<String>) {
    let wrapped = |name: &str| name.trim_start_matches("module.").starts_with("backbone.");
    let only_wrapped = tensors.keys().any(|name| wrapped(name));
    let (mut kept, mut ignored) = (BTreeMap::new(), Vec::new());
    for (name, value) in tensors {
        let mut bare = name.as_str();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
            bare = rest;
        }
        if bare.starts_with("fc.") || bare.ends_with(".num_batches_tracked") || (only_wrapped && !wrapped(&name)) {
            ignored.push(name);
        } else {
            kept.insert(bare.to_string(), value);
        }
    }
    ignored.retain(|name| !name.ends_with(".num_batches_tracked"));
    ignored.sort();
    (kept, ignored)
}

/// Whether every parameter of `store` is there with its shape, and nothing else.
fn check(store: &ParamStore, weights: &BTreeMap<String, Tensor>, layout: Layout) -> Result<()> {
    for (name, param) in store.iter() {
        let Some(value) = weights.get(name) else {
            bail!("{name} is missing; is the backbone of another depth or stem?")
        };
        let expected = match param.var.dims() {
            &[o, kh, kw, i] if layout == Layout::Oihw => vec![o, i, kh, kw],
            dims => dims.to_vec(),
        };
        let channels = if layout == Layout::Oihw { 1 } else { 3 };
        if name == FIRST && value.rank() == 4 && value.dims()[channels] != expected[channels] {
            bail!(
                "{name} has shape {:?}, the backbone expects {expected:?}: it is for images of {} channels; backbone.adapt_weights = true \
                 adapts weights of 3 channels",
                value.dims(),
                value.dims()[channels]
            )
        }
        if value.dims() != expected {
            bail!("{name} has shape {:?}, the backbone expects {expected:?}", value.dims())
        }
    }
    match weights.keys().find(|name| store.get(name).is_none()) {
        Some(name) => bail!("{name} is no parameter of this backbone; is it of another depth?"),
        None => Ok(()),
    }
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
/// `num_batches_tracked` (i64, `batches`) included, `fc` not.
///
/// # Errors
/// If the device cannot copy.
pub fn export_tensors(store: &ParamStore, batches: u64) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = store.tensors(Layout::Oihw)?;
    let norms: Vec<String> = tensors.keys().filter_map(|n| Some(n.strip_suffix("running_mean")?.to_string())).collect();
    for norm in norms {
        let count = Tensor::new(i64::try_from(batches)?, &Device::Cpu)?;
        tensors.insert(format!("{norm}num_batches_tracked"), count);
    }
    Ok(tensors)
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

/// An exported file's bytes: [`export_tensors`] with `metadata`.
///
/// # Errors
/// If the device cannot copy.
pub fn export(store: &ParamStore, batches: u64, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    Ok(safetensors::serialize(export_tensors(store, batches)?, Some(metadata))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ResNet, StemChoice};
    use diptych_nn::Group;

    fn tiny(seed: u64, base: usize) -> (ParamStore, BackboneConfig, Architecture) {
        let config = BackboneConfig { name: "resnet_tiny".into(), base: Some(base), ..Default::default() };
        let architecture = config.architecture(32).unwrap();
        let mut store = ParamStore::new(seed, &Device::Cpu);
        ResNet::new(&mut store.scope(Group::Trunk), &architecture).unwrap();
        (store, config, architecture)
    }

    fn values(store: &ParamStore) -> Vec<Vec<f32>> {
        store.iter().map(|(_, p)| p.var.flatten_all().unwrap().to_vec1().unwrap()).collect()
    }

    fn write(dir: &tempfile::TempDir, tensors: &BTreeMap<String, Tensor>, layout: Option<&str>) -> String {
        let path = dir.path().join("weights.safetensors");
        let metadata = layout.map(|layout| HashMap::from([("layout".to_string(), layout.to_string())]));
        std::fs::write(&path, safetensors::serialize(tensors, metadata).unwrap()).unwrap();
        path.to_str().unwrap().to_string()
    }

    fn error(result: Result<Loaded>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn an_export_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (store, config, architecture) = tiny(1, 4);
        let path = dir.path().join("out.safetensors");
        let bytes = export(&store, 7, export_metadata(&config, &architecture)).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let (other, ..) = tiny(2, 4);
        let loaded = load(&other, path.to_str().unwrap()).unwrap();
        assert_eq!((loaded.tensors, loaded.ignored.len()), (store.len(), 0));
        assert_eq!(values(&store), values(&other));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("conv1.weight").unwrap().shape(), [4, 3, 3, 3]);
        assert_eq!(file.tensor("bn1.num_batches_tracked").unwrap().dtype(), safetensors::Dtype::I64);
        assert_eq!(file.tensor("bn1.num_batches_tracked").unwrap().data(), 7i64.to_le_bytes());
    }

    /// A base of 3 makes conv1 [3, 3, 3, 3], whose shape says nothing.
    #[test]
    fn metadata_decides_the_layout() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ..) = tiny(1, 3);
        let path = write(&dir, &store.tensors(Layout::Ohwi).unwrap(), Some("ohwi"));
        let (other, ..) = tiny(2, 3);
        load(&other, &path).unwrap();
        assert_eq!(values(&store), values(&other));
        let path = write(&dir, &store.tensors(Layout::Ohwi).unwrap(), Some("nchw"));
        assert!(error(load(&other, &path)).contains("layout=nchw in the metadata is not known"));
    }

    #[test]
    fn wrappers_are_taken_off_and_other_parts_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ..) = tiny(1, 4);
        let tensors = export_tensors(&store, 0).unwrap();
        let extra = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        for prefix in ["", "module.", "module.backbone.", "backbone."] {
            let mut wrapped: BTreeMap<_, _> =
                tensors.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect();
            wrapped.insert(format!("{prefix}fc.bias"), extra.clone());
            let mut expected = vec![format!("{prefix}fc.bias")];
            if prefix.contains("backbone") {
                wrapped.insert("projector.0.weight".into(), extra.clone());
                expected.push("projector.0.weight".into());
                expected.sort();
            }
            let (other, ..) = tiny(2, 4);
            assert_eq!(load(&other, &write(&dir, &wrapped, None)).unwrap().ignored, expected);
            assert_eq!(values(&store), values(&other), "{prefix}");
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_told_by_key_and_shapes_and_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ..) = tiny(1, 4);
        let before = values(&store);
        let (wide, ..) = tiny(2, 8);
        let text = error(load(&store, &write(&dir, &export_tensors(&wide, 0).unwrap(), None)));
        assert!(text.contains("bn1.bias has shape [8], the backbone expects [4]"), "{text}");
        let mut tensors = export_tensors(&tiny(2, 4).0, 0).unwrap();
        tensors.insert("layer1.1.conv1.weight".into(), tensors["layer1.0.conv1.weight"].clone());
        let text = error(load(&store, &write(&dir, &tensors, None)));
        assert!(text.contains("layer1.1.conv1.weight is no parameter of this backbone"), "{text}");
        tensors.remove("layer3.0.conv2.weight");
        let text = error(load(&store, &write(&dir, &tensors, None)));
        assert!(text.contains("layer3.0.conv2.weight is missing"), "{text}");
        assert_eq!(values(&store), before);
    }

    #[test]
    fn files_that_are_no_weights_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let (store, ..) = tiny(1, 4);
        for (bytes, expected) in
            [(&b"PK\x03\x04"[..], "PyTorch pickle"), (b"", "not a whole"), (b"12345678{}", "not a whole")]
        {
            std::fs::write(&path, bytes).unwrap();
            let text = error(load(&store, path.to_str().unwrap()));
            assert!(text.contains(expected), "{text}");
        }
        assert!(error(load(&store, "no/such/file")).contains("there is no file no/such/file"));
    }

    #[test]
    fn hub_names_have_a_revision_and_a_file() {
        let parts = |text: &str| parse_hub(text).unwrap();
        assert_eq!(parts("a/b"), ("a/b".into(), "main".into(), "model.safetensors".into()));
        assert_eq!(parts("a/b@v1/x/y.safetensors"), ("a/b".into(), "v1".into(), "x/y.safetensors".into()));
        for text in ["a", "a/", "/b", "a/b@", "a/b/"] {
            assert!(parse_hub(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_metadata_says_how_to_build_the_module() {
        let (_, config, _) = tiny(1, 4);
        let config = BackboneConfig { stem: StemChoice::Imagenet, ..config };
        let metadata = export_metadata(&config, &config.architecture(32).unwrap());
        assert_eq!(metadata["stem"], "imagenet");
        assert!(metadata["pytorch"].contains("model = WideResNet(BasicBlock, [1, 1, 1, 1])"));
    }
}
