//! The folder that holds everything of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::OrBadInput;
use crate::error::bad_input;
use crate::log::replace_file;

/// A run's folder: `recipe.toml`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `backbone.safetensors`,
/// `report.html`, and `skipped.log` where images could not be decoded.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The folder for a new run: `wanted`, or the next free `runs/NAME-K`. Nothing is written yet.
    ///
    /// # Errors
    /// [`crate::BadInput`] if there is a run in it already, or it can't be written to.
    pub fn create(wanted: Option<&Path>, name: &str) -> Result<Self> {
        let root = match wanted {
            Some(root) => root.to_path_buf(),
            None => {
                let base = name.replace(['/', '\\', ' '], "-");
                let free = (1..).map(|k| Path::new("runs").join(format!("{base}-{k}"))).find(|path| !path.exists());
                free.unwrap_or_else(|| Path::new("runs").join(&base))
            }
        };
        let run = Self { root };
        if run.recipe().exists() {
            bad_input!(
                "{} holds a run already; continue it with --resume, or choose another --out",
                run.root.display()
            );
        }
        if run.root.exists() && !run.root.is_dir() {
            bad_input!("--out {} is a file; a run needs a folder", run.root.display());
        }
        Ok(run)
    }

    /// The folder of a run to continue.
    ///
    /// # Errors
    /// [`crate::BadInput`] if there is no run in it.
    pub fn open(root: &Path) -> Result<Self> {
        let run = Self { root: root.to_path_buf() };
        if !run.recipe().is_file() {
            bad_input!("{} is not a run: it has no recipe.toml", root.display());
        }
        Ok(run)
    }

    /// Makes the folders and tries a write, so that a run does not fail after its first epoch.
    ///
    /// # Errors
    /// [`crate::BadInput`] if that is refused.
    pub fn prepare(&self) -> Result<()> {
        let attempt = || -> std::io::Result<()> {
            fs::create_dir_all(self.checkpoints())?;
            for entry in fs::read_dir(&self.root)? {
                // What a kill left of a file that was being written.
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(b".diptych-") {
                    fs::remove_file(entry.path())?;
                }
            }
            fs::write(self.root.join(".write-test"), b"")?;
            fs::remove_file(self.root.join(".write-test"))
        };
        attempt().with_context(|| format!("--out {} can't be written to", self.root.display())).or_bad_input()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The merged recipe.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// One JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// Where TensorBoard looks.
    pub fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    /// The states to resume from.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The backbone's weights with torchvision's names and layout.
    pub fn backbone(&self) -> PathBuf {
        self.root.join("backbone.safetensors")
    }

    /// The page to look at.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The images that could not be decoded, one a line.
    pub fn skipped(&self) -> PathBuf {
        self.root.join("skipped.log")
    }

    /// Puts the merged recipe in place.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_recipe(&self, text: &str) -> Result<()> {
        replace_file(&self.recipe(), text.as_bytes())
            .with_context(|| format!("{} can't be written", self.recipe().display()))
    }
}
