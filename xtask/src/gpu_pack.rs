//! `cargo xtask gpu-pack`: one folder with everything that is to be seen on a GPU, for a machine that has no Rust and no network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cuda::Toolkit;
use crate::process::{cargo, root, run};

/// What is packed must stay below this, so that it can be carried.
const LIMIT: u64 = 60_000_000;

/// The packages whose programs are packed, always named together: other sets would build the dependencies again with other features.
const PACKAGES: [&str; 4] = ["diptych", "diptych-bench", "diptych-kernels", "diptych-tests"];

/// Programs: the name in the pack, the kind of cargo's target, its name, whether it is a test program.
const PROGRAMS: [(&str, &str, &str, bool); 4] = [
    ("diptych", "bin", "diptych", false),
    ("diptych-bench", "bin", "diptych-bench", false),
    ("test-kernels", "lib", "diptych_kernels", true),
    ("test-golden", "test", "golden", true),
];

/// Builds the pack in `out`, which is made anew.
pub(crate) fn pack(out: &Path) -> Result<()> {
    refuse_other_things(out)?;
    let toolkit = Toolkit::set_up()?;
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    fs::create_dir_all(out.join("fixtures")).with_context(|| format!("cannot make {}", out.display()))?;
    for (name, program) in programs(&toolkit)? {
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
    copy_into(&root().join("xtask/src/gpu_pack/run.sh"), out)?;
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

/// The built programs under their names in the pack.
fn programs(toolkit: &Toolkit) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut text = String::new();
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    for words in [&["build", "--bins"][..], &["test", "--no-run", "--lib", "--test", "golden"]] {
        let mut command = cargo();
        command.args(words).args(packages.clone()).args(["--release", "--features", "cuda"]);
        command.args(["--message-format=json-render-diagnostics", "--manifest-path"]).arg(root().join("Cargo.toml"));
        eprintln!("$ cargo {} --release --features cuda", words.join(" "));
        let output = toolkit
            .apply(&mut command)
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("the programs of the pack did not build; cargo's messages are above");
        }
        text += &String::from_utf8_lossy(&output.stdout);
    }
    let found = |(_, kind, name, test): &(&str, &str, &str, bool)| {
        text.lines().filter_map(|line| program(line, kind, name, *test)).next_back()
    };
    PROGRAMS
        .iter()
        .map(|wanted| Ok((wanted.0, found(wanted).with_context(|| format!("cargo named no program {}", wanted.2))?)))
        .collect()
}

/// The program that a line of cargo's messages names, if it is this one.
fn program(line: &str, kind: &str, name: &str, test: bool) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let kinds = message["target"]["kind"].as_array()?;
    let ours =
        kinds.iter().any(|of| of == kind) && message["target"]["name"] == name && message["profile"]["test"] == test;
    message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
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
    fn programs_are_told_from_their_tests() {
        let line = |test: bool| {
            let target = serde_json::json!({ "kind": ["bin"], "name": "diptych" });
            serde_json::json!({ "target": target, "profile": { "test": test }, "executable": "a/diptych" }).to_string()
        };
        assert_eq!(program(&line(false), "bin", "diptych", false), Some("a/diptych".into()));
        assert_eq!(program(&line(true), "bin", "diptych", false), None);
    }

    #[test]
    fn the_script_is_one_that_a_shell_reads() {
        let script = root().join("xtask/src/gpu_pack/run.sh");
        assert!(Command::new("sh").arg("-n").arg(script).status().unwrap().success());
    }
}
