//! Calling cargo, and knowing where the workspace is.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The root of the workspace: the folder above this package.
pub(crate) fn root() -> PathBuf {
    // `cargo run` sets the variable; the compile-time value serves a binary that was started by hand.
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// A cargo command as a user would have typed it.
///
/// What `cargo run` told *us* about our own package is taken out of the environment: some build scripts look at it,
/// and would run again each time.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(about_our_package) {
            command.env_remove(key);
        }
    }
    command
}

/// What `cargo metadata` says of the workspace; `more` are further arguments, such as `--no-deps`.
pub(crate) fn metadata(more: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1"]).args(more).arg("--manifest-path").arg(root().join("Cargo.toml"));
    let output = command.output().context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed something that is not JSON")
}

fn about_our_package(key: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
    prefixes.iter().any(|prefix| key.starts_with(prefix)) || key == "CARGO_PRIMARY_PACKAGE" || key == "OUT_DIR"
}

/// Shows a command, runs it in the workspace's root, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let program = PathBuf::from(command.get_program());
    let line = format!("{} {}", program.file_name().unwrap_or_default().to_string_lossy(), words.join(" "));
    eprintln!("$ {line}");
    let status = command.current_dir(root()).status().with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.toml").is_file());
        assert!(root().join("xtask/src/process.rs").is_file());
    }

    #[test]
    fn only_what_concerns_this_package_is_hidden_from_cargo() {
        assert!(about_our_package("CARGO_PKG_NAME") && about_our_package("CARGO_MANIFEST_DIR"));
        assert!(
            !about_our_package("CARGO_TARGET_DIR") && !about_our_package("CARGO_HOME") && !about_our_package("CARGO")
        );
    }
}
