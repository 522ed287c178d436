//! The programs that run on a GPU, or on the emulator: users' binaries and test programs, built with the feature `cuda`.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::cuda::Toolkit;
use crate::process::{cargo, root};

/// The packages of the programs, always named together: another set would build the dependencies again, with other features.
const PACKAGES: [&str; 4] = ["diptych", "diptych-bench", "diptych-kernels", "diptych-tests"];

/// Programs: what they are called here, the kind of cargo's target, its name, whether it is a test program.
const PROGRAMS: [(&str, &str, &str, bool); 4] = [
    ("diptych", "bin", "diptych", false),
    ("diptych-bench", "bin", "diptych-bench", false),
    ("test-kernels", "lib", "diptych_kernels", true),
    ("test-golden", "test", "golden", true),
];

/// Builds the programs; their names here, and where they are.
pub(crate) fn programs(toolkit: &Toolkit, release: bool) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut text = String::new();
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    for words in [&["build", "--bins"][..], &["test", "--no-run", "--lib", "--test", "golden"]] {
        let mut command = cargo();
        command.args(words).args(packages.clone()).args(["--features", "cuda"]).args(release.then_some("--release"));
        command.args(["--message-format=json-render-diagnostics", "--manifest-path"]).arg(root().join("Cargo.toml"));
        eprintln!("$ cargo {} --features cuda", words.join(" "));
        let output = toolkit.apply(&mut command).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("the programs with the feature `cuda` did not build; cargo's messages are above");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_their_tests() {
        let line = |test: bool| {
            let target = serde_json::json!({ "kind": ["bin"], "name": "diptych" });
            serde_json::json!({ "target": target, "profile": { "test": test }, "executable": "a/diptych" }).to_string()
        };
        assert_eq!(program(&line(false), "bin", "diptych", false), Some("a/diptych".into()));
        assert_eq!(program(&line(true), "bin", "diptych", false), None);
    }
}
