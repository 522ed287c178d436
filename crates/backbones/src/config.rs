//! What a recipe says about the backbone.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{Architecture, BlockKind, Stem};

/// The backbones that can be asked for by name.
pub const NAMES: [&str; 6] = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet_tiny"];

/// The stem, or that it shall follow from the images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StemChoice {
    /// [`Stem::Cifar`] for views of up to 64 pixels, else [`Stem::Imagenet`].
    #[default]
    Auto,
    /// [`Stem::Imagenet`].
    Imagenet,
    /// [`Stem::Cifar`].
    Cifar,
    /// [`Stem::Strided`].
    Strided,
}

impl StemChoice {
    /// The stem for views of `image_size` pixels.
    pub fn stem(self, image_size: usize) -> Stem {
        match self {
            Self::Auto if image_size <= 64 => Stem::Cifar,
            Self::Auto | Self::Imagenet => Stem::Imagenet,
            Self::Cifar => Stem::Cifar,
            Self::Strided => Stem::Strided,
        }
    }
}

/// The recipe's table `[backbone]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneConfig {
    /// One of [`NAMES`].
    pub name: String,
    /// Every channel times 1, 2 or 4, the stem's included, as SimCLR's ResNet-50 (2x) and (4x).
    pub width: usize,
    /// Channels of the first layer before `width`; 64 when left out, 16 for `resnet_tiny`.
    pub base: Option<usize>,
    /// What comes before the first block.
    pub stem: StemChoice,
    /// Whether each residual block starts as the identity.
    pub zero_init_residual: bool,
    /// Channels of the images, 1 to 16; those of the data when left out.
    pub channels: Option<usize>,
    /// Weights to start from: a safetensors file, or `hf://owner/name[@revision][/file]`.
    pub weights: Option<String>,
    /// Whether weights for images of three channels are adapted to another number: the filters of red, green and blue in turn, times 3 / channels (for
    /// one channel their sum), so that the first layer's responses keep their size.
    pub adapt_weights: bool,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self {
            name: "resnet18".into(),
            width: 1,
            base: None,
            stem: StemChoice::Auto,
            zero_init_residual: false,
            channels: None,
            weights: None,
            adapt_weights: false,
        }
    }
}

impl BackboneConfig {
    /// The network that this describes, for views of `image_size` pixels.
    ///
    /// # Errors
    /// If the name is not one of [`NAMES`], or a width is not offered; the message names the key.
    pub fn architecture(&self, image_size: usize) -> Result<Architecture> {
        let (block, depths, base) = match self.name.as_str() {
            "resnet18" => (BlockKind::Basic, [2, 2, 2, 2], 64),
            "resnet34" => (BlockKind::Basic, [3, 4, 6, 3], 64),
            "resnet50" => (BlockKind::Bottleneck, [3, 4, 6, 3], 64),
            "resnet101" => (BlockKind::Bottleneck, [3, 4, 23, 3], 64),
            "resnet152" => (BlockKind::Bottleneck, [3, 8, 36, 3], 64),
            "resnet_tiny" => (BlockKind::Basic, [1, 1, 1, 0], 16),
            other => bail!("backbone.name: {other} is not known; {}", suggestion(other)),
        };
        if ![1, 2, 4].contains(&self.width) {
            bail!("backbone.width: {} is not offered; use 1, 2 or 4", self.width)
        }
        let base = self.base.unwrap_or(base);
        if !(1..=1024).contains(&base) {
            bail!("backbone.base: {base} channels; use 1 to 1024")
        }
        let channels = self.channels.unwrap_or(3);
        if !(1..=16).contains(&channels) {
            bail!("backbone.channels: {channels}; images have 1 to 16 channels")
        }
        let stem = self.stem.stem(image_size);
        let zero_init_residual = self.zero_init_residual;
        Ok(Architecture { block, depths, base: base * self.width, channels, stem, zero_init_residual })
    }
}

fn suggestion(name: &str) -> String {
    let near = NAMES.iter().map(|known| (distance(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 3 => format!("did you mean {known}?"),
        _ => format!("known are {}", NAMES.join(", ")),
    }
}

/// The number of single-character edits from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: BackboneConfig) -> String {
        config.architecture(32).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_named_with_what_may_have_been_meant() {
        let named = |name: &str| BackboneConfig { name: name.into(), ..Default::default() };
        let name = error(named("resnet19"));
        assert_eq!(name, "backbone.name: resnet19 is not known; did you mean resnet18?");
        assert!(error(named("vit_base")).contains("known are resnet18, resnet34"));
        assert!(error(named("resnet_tiney")).ends_with("did you mean resnet_tiny?"));
        let width = error(BackboneConfig { width: 3, ..Default::default() });
        assert_eq!(width, "backbone.width: 3 is not offered; use 1, 2 or 4");
        assert!(error(BackboneConfig { base: Some(0), ..Default::default() }).starts_with("backbone.base: 0 channels"));
    }

    #[test]
    fn width_widens_everything() {
        let architecture = BackboneConfig { name: "resnet50".into(), width: 4, ..Default::default() }.architecture(224);
        let architecture = architecture.unwrap();
        assert_eq!((architecture.base, architecture.out_dim()), (256, 8192));
    }

    #[test]
    fn the_stem_follows_the_images_unless_it_is_said() {
        assert_eq!(StemChoice::Auto.stem(64), Stem::Cifar);
        assert_eq!(StemChoice::Auto.stem(65), Stem::Imagenet);
        assert_eq!(StemChoice::Strided.stem(224), Stem::Strided);
    }
}
