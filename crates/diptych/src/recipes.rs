//! The recipes that come with the binary.

use std::fs;
use std::path::Path;

use anyhow::Context;
use toml::Table;

use crate::augment::PixelFormat;
use crate::data::{Channels, OpenOptions, open};
use crate::trainer::{BadInput, OrBadInput, Recipe};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every recipe in the binary.
        pub const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../recipes/", $name, ".toml")))),*];
    };
}

embedded! {
    "simclr/quickstart",
    "simclr/images",
    "simclr/channels",
    "simclr/cifar10_resnet18",
    "simclr/imagenet_resnet50",
    "simclr/imagenet_resnet50_v2",
    "moco/quickstart",
    "moco/cifar10_resnet18",
    "moco/imagenet_resnet50",
    "moco/imagenet_resnet50_v1",
    "byol/quickstart",
    "byol/imagenet_resnet50",
    "simsiam/quickstart",
    "simsiam/cifar10_resnet18",
    "simsiam/imagenet_resnet50",
    "barlow_twins/quickstart",
    "barlow_twins/cifar10_resnet18",
    "barlow_twins/imagenet_resnet50",
    "swav/quickstart",
    "swav/imagenet_resnet50",
    "deepcluster/quickstart",
    "deepcluster/imagenet_resnet50",
    "adco/quickstart",
    "adco/imagenet_resnet50",
    "contrastive_clustering/quickstart",
    "contrastive_clustering/cifar10_resnet34",
    "contrastive_clustering/imagenet10_resnet34",
}

/// The recipe of this name, or in the file of this path.
///
/// # Errors
/// [`BadInput`] if there is neither, or the file is not TOML.
pub fn find(name: &str) -> anyhow::Result<Table> {
    if let Some((_, text)) = ALL.iter().find(|(known, _)| *known == name) {
        return toml::from_str(text).with_context(|| format!("recipe {name}"));
    }
    let path = Path::new(name);
    if !path.is_file() {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        let message = format!("there is no recipe {name}: neither a file nor one of {}", names.join(", "));
        return Err(BadInput(message).into());
    }
    let text = fs::read_to_string(path).with_context(|| format!("recipe {name} can't be read")).or_bad_input()?;
    toml::from_str(&text).map_err(|error| BadInput(format!("recipe {name} is not TOML: {error}")).into())
}

/// The recipe for a user's data where none is named: that for photographs, or that for pictures of other channels. `images` is the former with the user's
/// keys over it.
///
/// # Errors
/// [`BadInput`] if the data cannot be opened to see what they are.
pub fn for_data(images: &Recipe) -> anyhow::Result<&'static str> {
    let (path, channels) = (Path::new(&images.data.path), images.data.channels);
    let image_files = path.is_dir() && !path.join("train.npy").is_file();
    if matches!(channels, Channels::Auto | Channels::Rgb) && (image_files || images.data.path == "synthetic") {
        return Ok("simclr/images");
    }
    let found = open(path, &OpenOptions { channels, ..OpenOptions::default() }).or_bad_input()?;
    Ok(if found.train.format() == PixelFormat::RGB { "simclr/images" } else { "simclr/channels" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_resolves_and_reads_back_as_itself() -> anyhow::Result<()> {
        for (name, _) in ALL {
            let recipe = Recipe::resolve(name, find(name)?)?;
            let again = Recipe::resolve(name, toml::from_str(&recipe.to_toml()?)?)?;
            assert_eq!(recipe.to_toml()?, again.to_toml()?, "{name}");
            assert!(name.starts_with(recipe.method_name()), "{name}");
        }
        Ok(())
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = find("simclr/nope").unwrap_err().to_string();
        assert!(message.contains("simclr/quickstart"), "{message}");
    }
}
