//! Which ResNet a state dict's keys and shapes are, and whether all of it is there.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::import::{Hints, Located};
use crate::{BackboneConfig, BlockKind, NAMES, Stem, StemChoice};

/// A state dict's shapes by torchvision's names, convolutions `[O, I, kh, kw]`.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// Whether a name may be a part of a ResNet.
pub(crate) fn is_part(name: &str) -> bool {
    ["conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."].iter().any(|part| name.starts_with(part))
}

/// The kernel's side of the first layer.
pub(crate) fn kernel(shapes: &Shapes) -> Option<usize> {
    shapes.get("conv1.weight").and_then(|shape| shape.get(2)).copied()
}

/// Blocks of each layer: as many as are numbered from 0 without a gap.
fn depths(shapes: &Shapes) -> [usize; 4] {
    let has = |layer: usize, block: usize| {
        let prefix = format!("layer{layer}.{block}.");
        shapes.range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix))
    };
    [1, 2, 3, 4].map(|layer| (0..1000).take_while(|block| has(layer, *block)).count())
}

/// The backbone that the shapes are, held to what the file's metadata (`said`) and the user say.
///
/// # Errors
/// If they are no ResNet of ours, or another than was said.
pub(crate) fn config(shapes: &Shapes, said: Option<BackboneConfig>, hints: &Hints) -> Result<BackboneConfig> {
    let found = depths(shapes);
    let bottleneck = shapes.keys().any(|name| name.starts_with("layer1.0.conv3."));
    let block = if bottleneck { BlockKind::Bottleneck } else { BlockKind::Basic };
    refuse_variants(shapes)?;
    let described = said.is_some();
    let mut config = match (said, &hints.backbone) {
        (Some(said), _) => said,
        (None, Some(name)) => BackboneConfig { name: name.clone(), ..Default::default() },
        (None, None) => {
            let fits = |name: &&&str| {
                let named = BackboneConfig { name: (**name).to_string(), ..Default::default() }.architecture(224);
                named.is_ok_and(|known| known.block == block && known.depths == found)
            };
            let Some(name) = NAMES.iter().find(fits) else {
                let kind = if bottleneck { "bottleneck" } else { "basic" };
                bail!(
                    "its layers have {found:?} {kind} blocks, which is none of {}; where keys are missing, --backbone NAME says which",
                    NAMES.join(", ")
                )
            };
            BackboneConfig { name: (*name).into(), ..Default::default() }
        }
    };
    let known = config.architecture(224)?;
    // The inner convolutions of the first layer have as many channels as the stem: one of the two may be wrong, both hardly.
    let outputs = |name: &str| shapes.get(name).and_then(|shape| shape.first()).copied();
    let base = outputs("layer1.0.conv1.weight").or_else(|| outputs("conv1.weight")).unwrap_or(known.base);
    let unscaled = known.base / config.width;
    if let Some(width) = hints.width {
        config.width = width;
    } else if !described && base != known.base {
        match [1, 2, 4].into_iter().find(|width| unscaled * width == base) {
            Some(width) => config.width = width,
            None => (config.base, config.width) = (Some(base), 1),
        }
    }
    let channels = shapes.get("conv1.weight").filter(|shape| shape.len() == 4).map(|shape| shape[1]);
    config.channels = channels
        .filter(|channels| *channels != 3 && (1..=16).contains(channels))
        .or(config.channels.filter(|_| channels.is_none()));
    config.stem = stem(shapes, config.stem, hints)?;
    config.weights = None;
    Ok(config)
}

fn stem(shapes: &Shapes, said: StemChoice, hints: &Hints) -> Result<StemChoice> {
    let choice = |stem: Stem| match stem {
        Stem::Imagenet => StemChoice::Imagenet,
        Stem::Cifar => StemChoice::Cifar,
        Stem::Strided => StemChoice::Strided,
    };
    match (kernel(shapes), hints.stem) {
        (Some(side @ (3 | 7)), Some(stem)) if stem.convolution().0 != side => bail!(
            "conv1.weight has shape {:?}, --stem {} expects {} x {} kernels",
            shapes["conv1.weight"],
            stem.name(),
            stem.convolution().0,
            stem.convolution().0
        ),
        (_, Some(stem)) => Ok(choice(stem)),
        (_, None) if said != StemChoice::Auto => Ok(said),
        (Some(3), None) => Ok(StemChoice::Cifar),
        _ => Ok(StemChoice::Imagenet),
    }
}

/// ResNets that look like ours and are not.
fn refuse_variants(shapes: &Shapes) -> Result<()> {
    let has = |part: &str| shapes.keys().find(|name| name.contains(part));
    if let Some(name) = has("conv1.0.").filter(|name| name.starts_with("conv1.0.")) {
        bail!(
            "{name} belongs to a deep stem of several convolutions (ResNet-C, -D or -T), which is not read; choose weights with one 7x7 convolution"
        )
    }
    for (part, what) in [
        (".se.", "squeeze and excitation"),
        (".attn.", "attention"),
        (".downsample.2.", "a ResNet-D's pooling before the shortcut"),
    ] {
        if let Some(name) = has(part) {
            bail!("{name} belongs to {what}, which this library's ResNets do not have; choose plain ResNet weights")
        }
    }
    let Some(inner) = shapes.get("layer1.0.conv2.weight").filter(|shape| shape.len() == 4) else { return Ok(()) };
    let stem = shapes.get("bn1.weight").and_then(|shape| shape.first().copied());
    if has("layer1.0.conv3.").is_some() {
        if inner[1] < inner[0] {
            bail!(
                "layer1.0.conv2.weight has shape {inner:?}: convolutions in groups (ResNeXt), which are not read; choose plain ResNet weights"
            )
        }
        if stem.is_some_and(|stem| inner[0] != stem && inner[0] == inner[1])
            && shapes.get("layer1.0.conv1.weight").is_some_and(|shape| shape.first() == Some(&inner[0]))
        {
            bail!(
                "layer1.0.conv2.weight has shape {inner:?} behind a stem of {} channels: only inner convolutions are wide (torchvision's \
                 wide_resnet), which is not read; widths here multiply every channel",
                stem.unwrap_or_default()
            )
        }
    }
    Ok(())
}

/// Whether every tensor that is expected is there with its shape, and nothing else.
///
/// # Errors
/// If not; the message names the key, as it is in the file, and both shapes.
pub(crate) fn check(expected: &Shapes, shapes: &Shapes, backbone: &str, located: &Located) -> Result<()> {
    let said = |name: &str| {
        located.names.get(name).map_or_else(|| format!("{}{name}", located.prefix), |key| key.name.clone())
    };
    for (name, wanted) in expected {
        match shapes.get(name) {
            None => bail!("{} is missing; {backbone} needs it with shape {wanted:?}", said(name)),
            Some(shape) if shape != wanted => {
                bail!("{} has shape {shape:?}, {backbone} expects {wanted:?}", said(name))
            }
            Some(_) => {}
        }
    }
    let extra = shapes.iter().find(|(name, _)| !expected.contains_key(*name) && !name.ends_with("num_batches_tracked"));
    match extra {
        Some((name, shape)) => {
            bail!("{} with shape {shape:?} is no parameter of {backbone}; is it of another depth?", said(name))
        }
        None => Ok(()),
    }
}
