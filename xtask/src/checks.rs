//! The habits: test, validate, fixtures, docs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cuda::{self, Toolkit};
use crate::process::{cargo, root, run};
use crate::{emulate, guide, tidy};

/// The steps of [`validate`], in order.
pub(crate) const STEPS: [&str; 8] = ["test", "fmt", "clippy", "doc", "guide", "tidy", "package", "cuda"];

/// Builds the binary that the whole-run tests start, then runs every test of the workspace.
pub(crate) fn test(args: &[OsString]) -> Result<()> {
    // One build for binary and tests, with the features `cargo test` selects: `--package diptych` alone would
    // select others and build half of the tree twice.
    run(cargo().args(["build", "--workspace", "--bins", "--tests", "--examples"]))?;
    run(cargo().args(["test", "--workspace"]).args(args))?;
    // A selection of tests is somebody's who waits for it.
    if args.is_empty() { kernels_in_every_instruction_set() } else { Ok(()) }
}

/// Runs the kernels' own tests and the golden ones again in each instruction set that the machine has, asked for by name.
///
/// The best one is among them: by name it means bf16 pairs also where the kernels would not choose them.
fn kernels_in_every_instruction_set() -> Result<()> {
    let sets = instruction_sets();
    eprintln!("kernels were tested as this machine runs them; again with {}", sets.join(", "));
    let programs = test_programs()?;
    for set in sets {
        eprintln!("DIPTYCH_ISA={set}");
        for (program, folder) in &programs {
            run(Command::new(program).current_dir(folder).arg("--quiet").env("DIPTYCH_ISA", set))?;
        }
    }
    Ok(())
}

/// The instruction sets that `DIPTYCH_ISA` can name on this machine, lowest first (crates/kernels/src/isa.rs).
fn instruction_sets() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        let sets = [("portable", true), ("avx2", avx2), ("avx512", avx512), ("avx512_bf16", bf16)];
        sets.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec!["portable"]
}

/// The tests that depend on the kernels' instruction set: (kind of target, its name).
const KERNEL_TESTS: [(&str, &str); 2] = [("lib", "diptych_kernels"), ("test", "golden")];

/// The built programs of [`KERNEL_TESTS`], and the folders of their packages: the whole workspace is named, so that features are those of
/// the tests that just ran, and nothing is built again.
fn test_programs() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json", "--manifest-path"]);
    let output = command.arg(root().join("Cargo.toml")).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = |(kind, name)| text.lines().find_map(|line| test_program(line, kind, name));
    KERNEL_TESTS
        .into_iter()
        .map(|test| found(test).with_context(|| format!("cargo named no test program of {}", test.1)))
        .collect()
}

/// The test program of this target and its package's folder, where this line of cargo's messages names it.
fn test_program(line: &str, kind: &str, name: &str) -> Option<(PathBuf, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let same = message["target"]["kind"].as_array()?.iter().any(|of| of == kind);
    let ours = same && message["target"]["name"] == name && message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| ours)?;
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    Some((program.into(), folder))
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
        "guide" => guide::build(),
        "tidy" => tidy::run(),
        // The verification build of `cargo package` compiles every crate again, alone; that is done before a release.
        "package" => run(cargo().args(["package", "--workspace", "--no-verify", "--allow-dirty", "--quiet"])),
        "cuda" => cuda(),
        _ => bail!("no step is called {name}"),
    }
}

/// Compiles every CUDA kernel for every architecture, lints the code behind the feature, and runs its tests on the emulated GPU.
fn cuda() -> Result<()> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        eprintln!("the feature `cuda` is built on Linux on x86-64 only; nothing to check here");
        return Ok(());
    }
    let toolkit = Toolkit::set_up()?;
    cuda::report(true)?;
    let lint = ["clippy", "--workspace", "--all-targets", "--features", "cuda", "--", "-D", "warnings"];
    run(toolkit.apply(cargo().args(lint)))?;
    emulate::emulate(None)
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
    fn instruction_sets_begin_with_the_portable_one() {
        assert_eq!(instruction_sets().first(), Some(&"portable"));
    }

    #[test]
    fn a_test_program_is_that_of_its_target() {
        let line = |kind: &str, test: bool| {
            serde_json::json!({
                "target": { "kind": [kind], "name": "golden" }, "profile": { "test": test },
                "executable": "a/b", "manifest_path": "tests/Cargo.toml"
            })
            .to_string()
        };
        assert_eq!(test_program(&line("test", true), "test", "golden"), Some(("a/b".into(), "tests".into())));
        assert_eq!(test_program(&line("test", true), "test", "runs"), None);
        assert_eq!(test_program(&line("lib", false), "lib", "golden"), None);
        assert_eq!(test_program(&line("example", true), "lib", "golden"), None);
        assert_eq!(test_program("   Compiling", "lib", "golden"), None);
    }

    #[test]
    fn a_filter_that_matches_no_script_is_refused() {
        let error = fixtures(None, Some("no-such-fixture")).unwrap_err();
        assert!(error.to_string().contains("no-such-fixture"), "{error}");
    }
}
