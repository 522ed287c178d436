//! Everything that a run needs to go on, in one file that is whole or absent.
//!
//! A checkpoint is a safetensors file: `params/NAME`, `optim/NAME` and `extra/STORE/NAME`, with the run's position in
//! the metadata. Convolution weights lie as in memory, which the metadata says by `layout=ohwi`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Device, Tensor};
use diptych_methods::Method;
use diptych_nn::{Layout, ParamStore};
use diptych_optim::Optimizer;
use safetensors::SafeTensors;

use crate::log::replace_file;

/// The version of the format; a newer one is refused.
const VERSION: u32 = 1;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// The fingerprint of the training images' list.
    pub data: u64,
    /// The best evaluation so far: its step and value.
    pub best: Option<(u64, f64)>,
}

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Those in `dir`, of which the last `keep` and the best stay.
    pub fn new(dir: &Path, keep: usize) -> Self {
        Self { dir: dir.to_path_buf(), keep: keep.max(1) }
    }

    /// Writes the state after `position.step` steps, then removes what is too old.
    ///
    /// The file is written beside its place, synced, and renamed into it; so is the folder's entry. A kill at any moment
    /// leaves the earlier checkpoints as they were.
    ///
    /// # Errors
    /// If it can't be written, a full disk for instance; the earlier checkpoints are still there.
    pub fn save(&self, method: &dyn Method, optimizer: &dyn Optimizer, position: &Position) -> Result<PathBuf> {
        let path = self.dir.join(format!("step-{:08}.safetensors", position.step));
        let write = || -> Result<()> {
            let mut tensors: Vec<(String, Tensor)> = Vec::new();
            let mut add = |prefix: &str, store: &ParamStore| -> Result<()> {
                for (name, value) in store.tensors(Layout::Ohwi)? {
                    tensors.push((format!("{prefix}/{name}"), value));
                }
                Ok(())
            };
            add("params", method.params())?;
            add("optim", optimizer.state())?;
            for (name, store) in method.extra_state() {
                add(&format!("extra/{name}"), store)?;
            }
            let bytes = safetensors::serialize(tensors.iter().map(|(name, t)| (name, t)), Some(describe(position)))?;
            replace_file(&path, &bytes)?;
            sync_dir(&self.dir)
        };
        write().with_context(|| {
            format!("checkpoint {} can't be written (earlier checkpoints are untouched)", path.display())
        })?;
        self.remove_old()?;
        Ok(path)
    }

    /// Makes the checkpoint at `path` the best one, under a name of its own.
    ///
    /// # Errors
    /// If the link or copy is refused.
    pub fn mark_best(&self, path: &Path) -> Result<()> {
        let (best, beside) = (self.dir.join("best.safetensors"), self.dir.join(".best.new"));
        let link = || -> std::io::Result<()> {
            let _ = fs::remove_file(&beside);
            if fs::hard_link(path, &beside).is_err() {
                fs::copy(path, &beside)?;
                fs::File::open(&beside)?.sync_all()?;
            }
            fs::rename(&beside, &best)
        };
        link().with_context(|| format!("{} can't be written", best.display()))
    }

    /// The paths of all numbered checkpoints, oldest first.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(|| format!("{} can't be read", self.dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".safetensors"));
            if let Some(step) = step.and_then(|step| step.parse::<u64>().ok()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// Restores the newest readable checkpoint and says where the run stands; `None` if there is none.
    ///
    /// # Errors
    /// If checkpoints exist and none fits this run; the message is the newest one's.
    pub fn restore(
        &self,
        method: &dyn Method,
        optimizer: &mut dyn Optimizer,
        data: u64,
    ) -> Result<Option<(Position, Vec<String>)>> {
        self.clean()?;
        let mut problems = Vec::new();
        for path in self.list()?.into_iter().rev() {
            match restore(&path, method, optimizer, data) {
                Ok(position) => return Ok(Some((position, problems))),
                Err(error) => problems.push(format!("checkpoint {}: {error:#}", path.display())),
            }
        }
        match problems.is_empty() {
            true => Ok(None),
            false => Err(anyhow!(problems.swap_remove(0))),
        }
    }

    fn remove_old(&self) -> Result<()> {
        let all = self.list()?;
        for path in all.iter().take(all.len().saturating_sub(self.keep)) {
            fs::remove_file(path).with_context(|| format!("{} can't be removed", path.display()))?;
        }
        Ok(())
    }

    /// Removes what a kill during a write left behind.
    fn clean(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).with_context(|| format!("{} can't be read", self.dir.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".diptych-") || name.as_encoded_bytes().starts_with(b".best") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn describe(position: &Position) -> HashMap<String, String> {
    let mut metadata = HashMap::from([
        ("format".to_string(), "diptych-checkpoint".to_string()),
        ("version".into(), VERSION.to_string()),
        ("layout".into(), "ohwi".into()),
        ("step".into(), position.step.to_string()),
        ("data".into(), format!("{:016x}", position.data)),
    ]);
    if let Some((step, value)) = position.best {
        metadata.insert("best_step".into(), step.to_string());
        metadata.insert("best_value".into(), value.to_string());
    }
    metadata
}

fn restore(path: &Path, method: &dyn Method, optimizer: &mut dyn Optimizer, data: u64) -> Result<Position> {
    let bytes = fs::read(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).context("it is not a whole safetensors file")?;
    let position = position(header.metadata().as_ref())?;
    if position.data != data {
        bail!(
            "it was made from another list of images (fingerprint {:016x}, the data now have {data:016x}); \
             --resume needs the same files",
            position.data
        );
    }
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
    let below = |prefix: &str| -> HashMap<String, Tensor> {
        let prefix = format!("{prefix}/");
        tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_string(), t.clone()))).collect()
    };
    method.params().load(&below("params"), Layout::Ohwi)?;
    for (name, store) in method.extra_state() {
        store.load(&below(&format!("extra/{name}")), Layout::Ohwi)?;
    }
    optimizer.restore(&below("optim"))?;
    Ok(position)
}

fn position(metadata: Option<&HashMap<String, String>>) -> Result<Position> {
    let Some(metadata) = metadata else { bail!("it has no metadata, so it is not a checkpoint") };
    let get =
        |key: &str| metadata.get(key).with_context(|| format!("its metadata lack {key}, so it is not a checkpoint"));
    let version: u32 = get("version")?.parse().context("its version is not a number")?;
    if version > VERSION {
        bail!("it has format version {version}, this build reads up to {VERSION}");
    }
    let best = match (metadata.get("best_step"), metadata.get("best_value")) {
        (Some(step), Some(value)) => Some((step.parse()?, value.parse()?)),
        _ => None,
    };
    Ok(Position { step: get("step")?.parse()?, data: u64::from_str_radix(get("data")?, 16)?, best })
}

/// Makes a rename survive a power cut.
fn sync_dir(dir: &Path) -> Result<()> {
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}
