//! The habits: test, validate, fixtures, docs.

use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, root, run};
use crate::tidy;

/// The steps of [`validate`], in order.
pub(crate) const STEPS: [&str; 6] = ["test", "fmt", "clippy", "doc", "tidy", "package"];

/// Builds the binary that the whole-run tests start, then runs every test of the workspace.
pub(crate) fn test(args: &[OsString]) -> Result<()> {
    // One build for binary and tests, with the features `cargo test` selects: `--package diptych` alone would
    // select others and build half of the tree twice.
    run(cargo().args(["build", "--workspace", "--bins", "--tests", "--examples"]))?;
    run(cargo().args(["test", "--workspace"]).args(args))
}

/// Runs every step but those skipped, also after a failure, and names the failures at the end.
pub(crate) fn validate(skip: &[String]) -> Result<()> {
    let mut failures = Vec::new();
    let mut summary = Vec::new();
    for name in STEPS.into_iter().filter(|name| !skip.iter().any(|skipped| skipped == name)) {
        eprintln!("== {name}");
        let start = Instant::now();
        let outcome = step(name);
        let seconds = start.elapsed().as_secs_f64();
        summary.push(format!("  {name:<8} {} {seconds:7.1} s", if outcome.is_ok() { "ok    " } else { "FAILED" }));
        if let Err(error) = outcome {
            eprintln!("{error:#}");
            failures.push(name);
        }
    }
    eprintln!("== validate\n{}", summary.join("\n"));
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

fn step(name: &str) -> Result<()> {
    match name {
        "test" => test(&[]),
        "fmt" => run(cargo().args(["fmt", "--all", "--check"])),
        "clippy" => run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        "doc" => run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")),
        "tidy" => tidy::run(),
        // The verification build of `cargo package` compiles every crate again, alone; that is done before a release.
        "package" => run(cargo().args(["package", "--workspace", "--no-verify", "--allow-dirty", "--quiet"])),
        _ => bail!("no step is called {name}"),
    }
}

/// Builds the documentation of the workspace's own crates.
pub(crate) fn docs(args: &[OsString]) -> Result<()> {
    run(cargo().args(["doc", "--workspace", "--no-deps"]).args(args))
}

/// Runs the scripts that make the fixtures, `tests/fixtures/make_*.py`.
pub(crate) fn fixtures(python: Option<OsString>, filter: Option<&str>) -> Result<()> {
    let folder = root().join("tests/fixtures");
    let own = root().join(".venv/bin/python");
    let python = python.unwrap_or_else(|| if own.exists() { own.into() } else { "python3".into() });
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("make_") && name.ends_with(".py") && filter.is_none_or(|filter| name.contains(filter)) {
            scripts.push(name);
        }
    }
    scripts.sort();
    if scripts.is_empty() {
        bail!("no script in tests/fixtures matches {}", filter.unwrap_or("make_*.py"));
    }
    for script in scripts {
        run(Command::new(&python).arg(folder.join(script)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_step_is_refused() {
        assert!(step("no-such-step").is_err());
    }

    #[test]
    fn a_filter_that_matches_no_script_is_refused() {
        let error = fixtures(None, Some("no-such-fixture")).unwrap_err();
        assert!(error.to_string().contains("no-such-fixture"), "{error}");
    }
}
