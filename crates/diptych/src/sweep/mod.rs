//! Many runs that differ in a few keys of their recipe, and one table and one picture of how they ended.
//!
//! [`find`] reads a sweep from a file or from those in the binary, [`Sweep::plan`] lists its runs, [`Outcome`] is what one of them
//! left in its folder, and [`Summary`] is the table.

mod file;
mod outcome;
mod plan;
mod summary;
mod write;

pub use file::{Plot, Sweep, Variant};
pub use outcome::{End, Outcome};
pub use plan::{Overrides, Planned};
pub use summary::{Row, Summary};

use std::path::Path;

use anyhow::Context;

use crate::trainer::{BadInput, OrBadInput};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every sweep in the binary.
        pub const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../sweeps/", $name, ".toml")))),*];
    };
}

embedded! {
    "simsiam_ablations",
    "byol_target_decay",
    "byol_predictor",
    "byol_vs_simclr_batch_size",
    "byol_vs_simclr_augmentations",
    "barlow_twins_lambda",
    "barlow_twins_projector_width",
    "barlow_twins_batch_size",
    "simclr_temperature",
    "simclr_head",
    "moco_queue",
    "moco_momentum",
}

/// The sweep of this name, or in the file of this path; with it a short name for its folder.
///
/// # Errors
/// [`BadInput`] if there is neither, or the file is not a sweep; the sentence names the key.
pub fn find(name: &str) -> anyhow::Result<(String, Sweep)> {
    if let Some((_, text)) = ALL.iter().find(|(known, _)| *known == name) {
        return Ok((name.to_string(), Sweep::read(name, text)?));
    }
    let path = Path::new(name);
    if !path.is_file() {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        let message = format!("there is no sweep {name}: neither a file nor one of {}", names.join(", "));
        return Err(BadInput(message).into());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("sweep {name} can't be read")).or_bad_input()?;
    let short = path.file_stem().map_or("sweep".into(), |stem| stem.to_string_lossy().into_owned());
    Ok((short, Sweep::read(name, &text)?))
}

#[cfg(test)]
mod tests;
