//! Weights in and out of files, under torchvision's names.
//!
//! A weights file is a safetensors file whose convolution weights lie `[O, I, kh, kw]`, as everywhere outside Diptych.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use diptych_nn::{Layout, ParamStore};
use safetensors::SafeTensors;

use crate::config::{BackboneConfig, Kind, Stem};

/// What other programs put before a backbone's names.
const PREFIXES: &[&str] = &["module.", "backbone.", "encoder.", "model."];

/// Fills `params` (a backbone's, without prefix) from `source`: a safetensors file, or `hf://owner/name[/file]`.
///
/// Prefixes of other programs are taken off; a classifier (`fc.`) and batch counters are passed over.
///
/// # Errors
/// If the file can't be read, a parameter is missing or has another shape, or a name is not known; the message names the
/// key and both shapes.
pub fn load(source: &str, params: &ParamStore) -> Result<()> {
    let path = locate(source)?;
    let bytes = fs::read(&path).with_context(|| format!("weights {source} can't be read"))?;
    fill(&bytes, params).with_context(|| format!("weights {source}"))
}

fn fill(bytes: &[u8], params: &ParamStore) -> Result<()> {
    let layout = match header(bytes)?.get("layout").map(String::as_str) {
        Some("ohwi") => Layout::Ohwi,
        _ => Layout::Oihw,
    };
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
        .map_err(|error| anyhow!("it is not a readable safetensors file: {error}"))?;
    let tensors: HashMap<String, Tensor> = tensors
        .into_iter()
        .map(|(name, value)| (plain_name(&name).to_string(), value))
        .filter(|(name, _)| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked"))
        .collect();
    params.load(&tensors, layout).context("they do not fit this backbone (is it another one, width or stem?)")
}

/// The metadata of the safetensors file at `path`; empty where it has none.
///
/// # Errors
/// If it can't be read, or is not a safetensors file.
pub fn metadata(path: &Path) -> Result<HashMap<String, String>> {
    let bytes = fs::read(path).with_context(|| format!("weights {} can't be read", path.display()))?;
    header(&bytes).with_context(|| format!("weights {}", path.display()))
}

fn header(bytes: &[u8]) -> Result<HashMap<String, String>> {
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| anyhow!("it is not a readable safetensors file: {error}"))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Writes `params` (a backbone's, without prefix) for torchvision: `load_state_dict(strict=False)` misses nothing but
/// `fc.weight` and `fc.bias`. `more` joins the metadata, which holds the Python lines that build the module.
///
/// The file is written beside its place and renamed into it.
///
/// # Errors
/// If it can't be written.
pub fn save(
    path: &Path,
    params: &ParamStore,
    config: &BackboneConfig,
    size: usize,
    more: BTreeMap<String, String>,
) -> Result<()> {
    let mut tensors = params.tensors(Layout::Oihw)?;
    let norms: Vec<String> =
        tensors.keys().filter_map(|name| Some(name.strip_suffix("running_mean")?.to_string())).collect();
    for norm in norms {
        // PyTorch counts batches and uses the count for nothing, but its state has the key.
        tensors.insert(format!("{norm}num_batches_tracked"), Tensor::zeros((), DType::I64, &Device::Cpu)?);
    }
    let mut metadata: HashMap<String, String> = more.into_iter().collect();
    let file = path.file_name().map_or_else(|| "backbone.safetensors".into(), |name| name.to_string_lossy());
    metadata.insert("python".into(), python(config, size, &file)?);
    metadata.insert("layout".into(), "oihw".into());
    let bytes = safetensors::serialize(tensors.iter().map(|(name, value)| (name, value)), Some(metadata))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = dir.join(format!(".{file}.new"));
    let write = || -> std::io::Result<()> {
        let mut out = fs::File::create(&beside)?;
        out.write_all(&bytes)?;
        out.sync_all()?;
        fs::rename(&beside, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(|| format!("{} can't be written", path.display()))
}

/// The Python lines that build the same module with torchvision and load `file` into it.
///
/// # Errors
/// If the backbone's name is not known.
pub fn python(config: &BackboneConfig, size: usize, file: &str) -> Result<String> {
    let architecture = config.architecture()?;
    let block = if architecture.kind == Kind::Basic { "BasicBlock" } else { "Bottleneck" };
    let base = architecture.base * config.width;
    let mut lines =
        vec!["import torch, torchvision".to_string(), "from safetensors.torch import load_file".to_string()];
    if base == 64 {
        let blocks = architecture.blocks;
        lines.push(format!(
            "model = torchvision.models.resnet.ResNet(torchvision.models.resnet.{block}, {blocks:?})  # {}",
            config.name
        ));
    } else {
        lines.extend(narrow_or_wide(block, &architecture.blocks, base));
    }
    if config.stem.resolve(size) == Stem::Cifar {
        lines.push(format!("model.conv1 = torch.nn.Conv2d(3, {base}, 3, 1, 1, bias=False)"));
        lines.push("model.maxpool = torch.nn.Identity()".into());
    }
    lines.push(format!("print(model.load_state_dict(load_file({file:?}), strict=False))  # only fc.* is missing"));
    lines.push("model.fc = torch.nn.Identity()  # features, not classes".into());
    Ok(lines.join("\n"))
}

/// torchvision has no ResNet whose every channel is scaled, stem included; its layers are rebuilt by its own method.
fn narrow_or_wide(block: &str, blocks: &[usize; 4], base: usize) -> Vec<String> {
    vec![
        format!("block = torchvision.models.resnet.{block}"),
        "class ResNet(torchvision.models.resnet.ResNet):  # every channel scaled, the stem's included".into(),
        "    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):".into(),
        format!("        if planes == 64: self.inplanes = {base}"),
        format!("        return super()._make_layer(block, planes * {base} // 64, blocks, stride, dilate)"),
        format!("model = ResNet(block, {blocks:?})"),
        format!("model.conv1 = torch.nn.Conv2d(3, {base}, 7, 2, 3, bias=False)"),
        format!("model.bn1 = torch.nn.BatchNorm2d({base})"),
    ]
}

fn plain_name(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// The file behind a name.
fn locate(source: &str) -> Result<PathBuf> {
    let Some(rest) = source.strip_prefix("hf://") else {
        let path = PathBuf::from(source);
        if !path.is_file() {
            bail!("weights {source}: there is no such file");
        }
        return Ok(path);
    };
    let parts: Vec<&str> = rest.splitn(3, '/').collect();
    let (repo, file) = match parts.as_slice() {
        [owner, name] => (format!("{owner}/{name}"), "model.safetensors"),
        [owner, name, file] => (format!("{owner}/{name}"), *file),
        _ => bail!("weights {source}: expected hf://owner/name or hf://owner/name/file.safetensors"),
    };
    Ok(diptych_hub::resolve(&repo, "main", file, diptych_hub::Policy::from_env())?)
}
