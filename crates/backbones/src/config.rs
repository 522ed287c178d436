//! Which backbone, as plain data: the `[backbone]` table of a recipe.

use std::fmt;
use std::str::FromStr;

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

/// The first layers of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 7x7 convolution with stride 2, then 3x3 max-pool with stride 2 (He et al. 2016).
    Imagenet,
    /// 3x3 convolution with stride 1 and padding 1, no max-pool (SimCLR, appendix B.9).
    Cifar,
    /// `cifar` for images up to 64 pixels, else `imagenet`.
    Auto,
}

impl Stem {
    /// The stem for images of side `size`.
    pub fn resolve(self, size: usize) -> Self {
        match self {
            Self::Auto if size <= 64 => Self::Cifar,
            Self::Auto => Self::Imagenet,
            told => told,
        }
    }
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imagenet => "imagenet",
            Self::Cifar => "cifar",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for Stem {
    type Err = candle_core::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "imagenet" => Ok(Self::Imagenet),
            "cifar" => Ok(Self::Cifar),
            "auto" => Ok(Self::Auto),
            _ => bail!("stem \"{text}\" is not one of imagenet, cifar, auto"),
        }
    }
}

/// `[backbone]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneConfig {
    /// One of [`names`].
    pub name: String,
    /// Factor on every channel count, the stem's included (SimCLR's 1x, 2x, 4x).
    pub width: usize,
    /// The first layers.
    pub stem: Stem,
    /// Whether the last norm of each residual block starts at scale 0 (Goyal et al. 2017, section 5.1).
    pub zero_init_residual: bool,
    /// Weights to start from: a safetensors file with torchvision's names, or `hf://owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self { name: "resnet18".into(), width: 1, stem: Stem::Auto, zero_init_residual: false, weights: None }
    }
}

/// A kind of residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3, 1x1 with four times the channels at the end.
    Bottleneck,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Architecture {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) blocks: [usize; 4],
    /// Channels of the stem at width 1.
    pub(crate) base: usize,
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "resnet18", kind: Kind::Basic, blocks: [2, 2, 2, 2], base: 64 },
    Architecture { name: "resnet34", kind: Kind::Basic, blocks: [3, 4, 6, 3], base: 64 },
    Architecture { name: "resnet50", kind: Kind::Bottleneck, blocks: [3, 4, 6, 3], base: 64 },
    Architecture { name: "resnet101", kind: Kind::Bottleneck, blocks: [3, 4, 23, 3], base: 64 },
    Architecture { name: "resnet152", kind: Kind::Bottleneck, blocks: [3, 8, 36, 3], base: 64 },
    Architecture { name: "resnet_tiny", kind: Kind::Basic, blocks: [1, 1, 1, 1], base: 16 },
];

/// The names of all backbones.
pub fn names() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|architecture| architecture.name).collect()
}

impl BackboneConfig {
    /// Checks name and width.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(&self) -> Result<()> {
        self.architecture()?;
        if ![1, 2, 4].contains(&self.width) {
            bail!("backbone.width must be 1, 2 or 4, it is {}", self.width)
        }
        Ok(())
    }

    pub(crate) fn architecture(&self) -> Result<&'static Architecture> {
        if let Some(found) = ARCHITECTURES.iter().find(|known| known.name == self.name) {
            return Ok(found);
        }
        let near = names()
            .into_iter()
            .map(|name| (strsim::jaro_winkler(name, &self.name), name))
            .filter(|(score, _)| *score > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match near {
            Some((_, near)) => bail!("backbone.name = \"{}\" is not known; did you mean {near}?", self.name),
            None => bail!("backbone.name = \"{}\" is not known; there are {}", self.name, names().join(", ")),
        }
    }
}

/// F, the number of features that this backbone gives.
///
/// # Errors
/// As [`BackboneConfig::check`].
pub fn out_dim(config: &BackboneConfig) -> Result<usize> {
    config.check()?;
    let architecture = config.architecture()?;
    let expansion = if architecture.kind == Kind::Basic { 1 } else { 4 };
    Ok(architecture.base * config.width * 8 * expansion)
}
