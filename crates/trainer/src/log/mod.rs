//! What a run writes down: metrics as JSON lines, TensorBoard event files, and progress for the person watching.
//!
//! All three are plain data in: no tensor, and a time that is stored is an argument.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

pub mod metrics;
pub mod progress;
pub mod tensorboard;

pub use metrics::{MetricsLog, Row};
pub use progress::{Progress, Tick};
pub use tensorboard::EventWriter;

/// Puts `bytes` in place of the file at `path`: a temporary file beside it, synced, then renamed over it.
///
/// # Errors
/// If the folder can't be written to; the file at `path` is then as it was.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // tempfile's own mode is 0600; what stands in a run directory is as readable as any file the user makes.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".diptych-").tempfile_in(dir).with_context(|| format!("in {}", dir.display()))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
