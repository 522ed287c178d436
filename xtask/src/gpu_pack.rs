//! `cargo xtask gpu-pack`: one folder with everything that is to be seen on a GPU, for a machine that has no Rust and no network.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::built;
use crate::cuda::Toolkit;
use crate::process::{root, run};

/// What is packed must stay below this, so that it can be carried.
const LIMIT: u64 = 60_000_000;

/// Builds the pack in `out`, which is made anew.
pub(crate) fn pack(out: &Path) -> Result<()> {
    refuse_other_things(out)?;
    let toolkit = Toolkit::set_up()?;
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    fs::create_dir_all(out.join("fixtures")).with_context(|| format!("cannot make {}", out.display()))?;
    // First, so that a pack that was not finished is known for one.
    copy_into(&root().join("xtask/src/gpu_pack/run.sh"), out)?;
    for (name, program) in built::programs(&toolkit, true)? {
        let target = out.join(name);
        fs::copy(&program, &target).with_context(|| format!("cannot copy {}", program.display()))?;
        run(Command::new("strip").arg(&target))?;
        run(Command::new("gzip").args(["-9", "-f"]).arg(&target))?;
    }
    for entry in fs::read_dir(root().join("tests/fixtures"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            copy_into(&path, &out.join("fixtures"))?;
        }
    }
    fs::write(out.join("COMMIT"), commit())?;
    let size = size_of(out)?;
    eprintln!("{}: {:.1} MB; on the machine with the GPU: sh run.sh", out.display(), size as f64 / 1e6);
    if size > LIMIT {
        bail!("the pack is larger than {} MB", LIMIT / 1_000_000);
    }
    Ok(())
}

/// An error where `out` is neither a pack, nor empty, nor missing: it is going to be removed.
fn refuse_other_things(out: &Path) -> Result<()> {
    let other = out.exists() && !out.join("run.sh").is_file() && fs::read_dir(out)?.next().is_some();
    if other {
        bail!("{} is there and holds something else than a pack; name another folder with --out", out.display());
    }
    Ok(())
}

fn copy_into(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
    fs::copy(file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

/// The commit that was built, and whether files differ from it.
fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).current_dir(root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let hash = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let changed = git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
    format!("{hash}{}\n", if changed { " with changes" } else { "" })
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_things_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        // The toolkit may have to be brought first; the refusal must not depend on that.
        let error = refuse_other_things(folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds something else"), "{error}");
        fs::write(folder.path().join("run.sh"), "").unwrap();
        refuse_other_things(folder.path()).unwrap();
    }

    #[test]
    fn the_script_is_one_that_a_shell_reads() {
        let script = root().join("xtask/src/gpu_pack/run.sh");
        assert!(Command::new("sh").arg("-n").arg(script).status().unwrap().success());
    }
}
