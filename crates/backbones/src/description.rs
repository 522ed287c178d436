//! What a weights file says of its backbone and of the images it was trained on, so that it can be used by itself.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow};

use crate::config::StemChoice;
use crate::pretrained::export_metadata;
use crate::{Architecture, BackboneConfig};

/// How images must be prepared for a backbone.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Side of the square, in pixels.
    pub size: usize,
    /// Subtracted from the channels, one number each; integers were scaled to [0, 1] before.
    pub mean: Vec<f32>,
    /// What the channels are divided by after that.
    pub std: Vec<f32>,
}

/// The metadata of a weights file: [`export_metadata`], and the input.
pub fn describe(config: &BackboneConfig, architecture: &Architecture, input: &Input) -> HashMap<String, String> {
    let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let mut metadata = export_metadata(config, architecture);
    metadata.insert("image_size".into(), input.size.to_string());
    metadata.insert("mean".into(), list(&input.mean));
    metadata.insert("std".into(), list(&input.std));
    metadata
}

/// What metadata made by [`describe`] say; `None` for what other metadata leave out.
///
/// # Errors
/// If a value can't be read; the message names its key.
pub fn described(metadata: &HashMap<String, String>) -> Result<(Option<BackboneConfig>, Option<Input>)> {
    let get = |key: &str| metadata.get(key).map(String::as_str);
    let number = |key: &str| -> Result<Option<usize>> {
        get(key)
            .map(|text| text.parse().with_context(|| format!("metadata {key} = {text} is not a number")))
            .transpose()
    };
    let numbers = |key: &str| -> Result<Option<Vec<f32>>> {
        let Some(text) = get(key) else { return Ok(None) };
        let read: Result<Vec<f32>, _> = text.split(',').map(|value| value.trim().parse()).collect();
        Ok(Some(read.map_err(|_| anyhow!("metadata {key} = {text} are not numbers, one per channel"))?))
    };
    let stem = match get("stem") {
        None => StemChoice::Auto,
        Some("imagenet") => StemChoice::Imagenet,
        Some("cifar") => StemChoice::Cifar,
        Some("strided") => StemChoice::Strided,
        Some(other) => return Err(anyhow!("metadata stem = {other} is not one of imagenet, cifar, strided")),
    };
    let width = number("width")?.unwrap_or(1).max(1);
    let channels = number("channels")?.filter(|channels| *channels != 3);
    let base = number("base")?.map(|base| base / width);
    let config = get("backbone").map(|name| BackboneConfig {
        name: name.to_string(),
        width,
        base,
        stem,
        channels,
        ..BackboneConfig::default()
    });
    let input = match (number("image_size")?, numbers("mean")?, numbers("std")?) {
        (Some(size), Some(mean), Some(std)) => Some(Input { size, mean, std }),
        _ => None,
    };
    Ok((config, input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() -> Result<()> {
        let config = BackboneConfig { name: "resnet_tiny".into(), width: 2, base: Some(16), ..Default::default() };
        let input = Input { size: 32, mean: vec![0.1, 0.2, 0.3], std: vec![0.5, 0.25, 0.125] };
        let architecture = config.architecture(input.size)?;
        let (read, from) = described(&describe(&config, &architecture, &input))?;
        assert_eq!(from, Some(input.clone()));
        assert_eq!(read.context("a backbone")?.architecture(input.size)?, architecture);
        assert_eq!(described(&HashMap::new())?, (None, None));
        let wrong = HashMap::from([("width".to_string(), "x".to_string())]);
        assert_eq!(described(&wrong).unwrap_err().to_string(), "metadata width = x is not a number");
        Ok(())
    }
}
