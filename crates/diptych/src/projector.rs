//! The projector of a run, which weights files leave out: fine-tuning may begin behind its first layers.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use diptych_trainer::{BadInput, Checkpoints, OrBadInput, RunDir};
use safetensors::SafeTensors;

/// Where checkpoints keep a projector and the backbone before it.
const PLACES: [&str; 2] = ["params/projector.", "params/backbone."];

/// Projector and backbone of the newest checkpoint of the run at `path`, in the layout of memory: (`0.weight`, ...) and (`conv1.weight`, ...).
///
/// # Errors
/// [`BadInput`] if it is no run, or its method has no projector of that kind.
pub fn of_run(path: &str) -> Result<(HashMap<String, Tensor>, HashMap<String, Tensor>)> {
    let folder = Path::new(path);
    if !folder.is_dir() {
        let message = format!(
            "{path} holds a backbone and no projector: fine-tune from a run's folder, or from the backbone's features with \
             --set 'finetune.from=\"representation\"'"
        );
        return Err(BadInput(message).into());
    }
    let run = RunDir::open(folder)?;
    let newest = Checkpoints::new(&run.checkpoints(), 1).list().or_bad_input()?.pop();
    let Some(newest) = newest else {
        let message = format!("{path} has no checkpoint, which holds the projector, yet");
        return Err(BadInput(message).into());
    };
    let read = || -> Result<[HashMap<String, Tensor>; 2]> {
        let bytes = std::fs::read(&newest)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let mut found = [HashMap::new(), HashMap::new()];
        for (name, view) in file.tensors() {
            for (place, found) in PLACES.iter().zip(&mut found) {
                if let Some(rest) = name.strip_prefix(place) {
                    found.insert(rest.to_string(), view.load(&Device::Cpu)?);
                }
            }
        }
        Ok(found)
    };
    let [projector, backbone] =
        read().with_context(|| format!("checkpoint {} can't be read", newest.display())).or_bad_input()?;
    if projector.is_empty() {
        let message = format!(
            "{path} was made by a method without a projector; fine-tune from the backbone's features with \
             --set 'finetune.from=\"representation\"'"
        );
        return Err(BadInput(message).into());
    }
    Ok((projector, backbone))
}
