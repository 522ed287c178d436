//! What a call asks of all cases of a suite, and where these put their files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};

use crate::case::Scale;

/// What a call asks for.
#[derive(Clone)]
pub(crate) struct Setting {
    /// How large cases are.
    pub(crate) scale: Scale,
    /// Threads of both.
    pub(crate) threads: usize,
    /// Bytes of the packed file of which an epoch's memory is measured.
    pub(crate) packed_bytes: u64,
    /// Where files go.
    pub(crate) scratch: Arc<Scratch>,
}

impl Setting {
    /// The numbers of cores with which a case of the data path is timed: one, and all.
    pub(crate) fn cores(&self) -> Vec<usize> {
        if self.threads > 1 { vec![1, self.threads] } else { vec![1] }
    }
}

/// The end of a name: `1core`, `2cores`.
pub(crate) fn cores_name(cores: usize) -> String {
    if cores == 1 { "1core".into() } else { format!("{cores}cores") }
}

/// A folder for the files that cases read: one that is given and stays, or one that is made when it is needed and removed at the end.
#[derive(Default)]
pub(crate) struct Scratch {
    given: Option<PathBuf>,
    made: OnceLock<tempfile::TempDir>,
}

impl Scratch {
    /// The folder that is given, or one to be made.
    pub(crate) fn new(given: Option<PathBuf>) -> Self {
        Self { given, made: OnceLock::new() }
    }

    /// The folder.
    ///
    /// # Errors
    /// If none can be made.
    pub(crate) fn folder(&self) -> Result<&Path> {
        if let Some(given) = &self.given {
            std::fs::create_dir_all(given).with_context(|| format!("cannot make the folder {}", given.display()))?;
            return Ok(given);
        }
        if self.made.get().is_none() {
            let folder = tempfile::tempdir().context("cannot make a temporary folder for the cases' files")?;
            let _ = self.made.set(folder);
        }
        Ok(self.made.get().context("the temporary folder was not kept")?.path())
    }

    /// The file or folder `name` in there, which `make` makes where it is not there yet; what is made in part is never taken for whole.
    ///
    /// # Errors
    /// Those of `make`, and if there is no room.
    pub(crate) fn once(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.folder()?.join(name);
        if !path.exists() {
            let partial = self.folder()?.join(format!("making-{name}"));
            if partial.is_dir() {
                std::fs::remove_dir_all(&partial)?;
            }
            make(&partial).with_context(|| format!("cannot make {}", path.display()))?;
            std::fs::rename(&partial, &path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_never_in_part() -> Result<()> {
        let scratch = Scratch::default();
        let write = |text: &'static str| move |path: &Path| Ok(std::fs::write(path, text)?);
        let failed = scratch.once("a", |path| {
            std::fs::write(path, "half")?;
            anyhow::bail!("no room")
        });
        assert!(format!("{:#}", failed.unwrap_err()).ends_with("no room"));
        let path = scratch.once("a", write("first"))?;
        assert_eq!(scratch.once("a", write("second"))?, path);
        assert_eq!(std::fs::read_to_string(&path)?, "first");
        drop(scratch);
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn a_folder_that_is_given_stays() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let given = folder.path().join("here");
        let scratch = Scratch::new(Some(given.clone()));
        scratch.once("a", |path| Ok(std::fs::write(path, "1")?))?;
        drop(scratch);
        assert!(given.join("a").is_file());
        Ok(())
    }

    #[test]
    fn one_core_and_all() {
        let cores = |threads| Setting { threads, ..test_setting() }.cores();
        assert_eq!((cores(1), cores(2), cores(8)), (vec![1], vec![1, 2], vec![1, 8]));
        assert_eq!((cores_name(1), cores_name(2)), ("1core".into(), "2cores".into()));
    }

    fn test_setting() -> Setting {
        Setting { scale: Scale::Cpu, threads: 2, packed_bytes: 0, scratch: Arc::default() }
    }
}
