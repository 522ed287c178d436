//! Handing a user's command to its release binary: `bench` to one of its own, all others to `diptych`.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cuda::Toolkit;
use crate::process;

/// Builds the binary where needed and becomes it. `args` are passed on untouched, the exit code is the binary's.
///
/// `--threads N` also sets `RAYON_NUM_THREADS`, which the tensor library reads when it starts.
pub(crate) fn hand_over(args: &[OsString]) -> Result<ExitCode> {
    let bench = args.first().is_some_and(|first| first == "bench");
    let toolkit = if wants_cuda(args) { Some(Toolkit::set_up()?) } else { None };
    let program = build(if bench { "diptych-bench" } else { "diptych" }, toolkit.as_ref())?;
    let mut command = Command::new(&program);
    if bench {
        command.args(bench_arguments(args, &program));
    } else {
        command.args(args);
    }
    if let Some(threads) = threads(args) {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    become_it(command)
}

/// What the bench binary gets: no command, since it has only one, and the workspace's place for the peer's environment unless
/// another is given.
fn bench_arguments(args: &[OsString], program: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = args.get(1..).unwrap_or_default().to_vec();
    let told = words.iter().any(|word| word.to_str().is_some_and(|w| w == "--venv" || w.starts_with("--venv=")));
    if let Some(target) = program.ancestors().nth(2).filter(|_| !told && !words.is_empty()) {
        words.extend(["--venv".into(), target.join("peer-venv").into()]);
    }
    words
}

#[cfg(unix)]
fn become_it(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", PathBuf::from(command.get_program()).display()))
}

#[cfg(not(unix))]
fn become_it(mut command: Command) -> Result<ExitCode> {
    let status = command.status().context("cannot start the binary")?;
    std::process::exit(status.code().unwrap_or(1))
}

/// The last well-formed `--threads N` or `--threads=N` before a `--`; the binary itself refuses a malformed one.
fn threads(args: &[OsString]) -> Option<usize> {
    values(args, "--threads").into_iter().filter_map(|value| value.parse().ok()).rfind(|&n| n > 0)
}

/// Whether a GPU is asked for: then the binary needs the feature `cuda`, and its build a toolkit.
fn wants_cuda(args: &[OsString]) -> bool {
    values(args, "--device").last().is_some_and(|device| device.starts_with("cuda"))
}

/// What stands behind an option, in both spellings, before a `--`.
fn values<'a>(args: &'a [OsString], option: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut words = args.iter().take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some(word) if word == option => found.extend(words.peek().and_then(|next| next.to_str())),
            Some(word) => found.extend(word.strip_prefix(option).and_then(|rest| rest.strip_prefix('='))),
            None => {}
        }
    }
    found
}

/// Builds the release binary, saying so only when it takes a while, and returns its path as cargo reports it
/// (so `CARGO_TARGET_DIR` and cargo's configuration hold).
pub(crate) fn build(name: &str, toolkit: Option<&Toolkit>) -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--quiet", "--release", "--package", name, "--bin", name]);
    if let Some(toolkit) = toolkit {
        toolkit.apply(command.args(["--features", "cuda"]));
    }
    command.arg("--message-format=json-render-diagnostics");
    command.arg("--manifest-path").arg(process::root().join("Cargo.toml"));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let (sender, messages) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let executable = follow(&messages, name);
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("{name} did not build; cargo's messages are above");
    }
    executable.with_context(|| format!("cargo built {name} but named no executable"))
}

/// Reads cargo's messages until it ends; returns the executable they name.
fn follow(messages: &Receiver<String>, name: &str) -> Option<PathBuf> {
    let terminal = std::io::stderr().is_terminal();
    let mut executable = None;
    let mut compiled = 0;
    let mut said = false;
    loop {
        match messages.recv_timeout(Duration::from_millis(1500)) {
            Ok(line) => {
                let message = serde_json::from_str(&line).unwrap_or(Value::Null);
                compiled += usize::from(message["fresh"] == Value::Bool(false));
                if said && terminal {
                    eprint!("\rbuilding {name} ... {compiled} crates ");
                }
                executable = executable_of(&message, name).or(executable);
            }
            Err(RecvTimeoutError::Timeout) if !said => {
                eprint!("building {name} in release mode (the first time takes a few minutes) ...");
                if !terminal {
                    eprintln!();
                }
                said = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if said && terminal {
        eprintln!();
    }
    executable
}

fn executable_of(message: &Value, name: &str) -> Option<PathBuf> {
    let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
    let path = message["executable"].as_str().filter(|_| ours)?;
    Some(PathBuf::from(OsStr::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn threads_are_read_in_both_spellings() {
        assert_eq!(threads(&words("train --threads 3 --epochs 2")), Some(3));
        assert_eq!(threads(&words("train --threads=4")), Some(4));
        assert_eq!(threads(&words("train --threads 3 --threads 1")), Some(1));
    }

    #[test]
    fn threads_that_are_malformed_or_behind_two_dashes_are_left_to_the_binary() {
        for line in ["train", "train --threads", "train --threads zero", "train --threads 0", "train -- --threads 3"] {
            assert_eq!(threads(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn cuda_is_built_where_it_is_asked_for() {
        for line in ["train --device cuda", "bench ops --device=cuda:1 --peer torch"] {
            assert!(wants_cuda(&words(line)), "{line}");
        }
        for line in ["train", "train --device cpu", "train --device cuda --device cpu", "train -- --device cuda"] {
            assert!(!wants_cuda(&words(line)), "{line}");
        }
    }

    #[test]
    fn the_executable_is_the_one_cargo_names() {
        let message = |reason: &str, name: &str| serde_json::json!({ "reason": reason, "target": { "name": name }, "executable": "elsewhere/diptych" });
        let found = |reason: &str, name: &str| executable_of(&message(reason, name), "diptych");
        assert_eq!(found("compiler-artifact", "diptych"), Some("elsewhere/diptych".into()));
        assert_eq!(found("compiler-artifact", "build-script"), None);
        assert_eq!(found("build-finished", "diptych"), None);
    }

    #[test]
    fn the_bench_gets_no_command_and_a_place_for_its_environment() {
        let program = Path::new("target/release/diptych-bench");
        let joined = |line: &str| {
            let words = bench_arguments(&words(line), program);
            words.iter().map(|word| word.to_string_lossy().replace('\\', "/")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(joined("bench ops --threads 2"), "ops --threads 2 --venv target/peer-venv");
        assert_eq!(joined("bench ops --venv here"), "ops --venv here");
        assert_eq!(joined("bench"), "");
    }
}
