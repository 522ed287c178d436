//! The peer: another program that runs the same cases, asked in lines of JSON.
//!
//! Each request is one line, `{"do": "hello" | "prepare" | "outputs" | "time" | "memory" | "forget", ...}`, and each reply is one:
//! `{"ok": true, ...}`, or `{"ok": false, "error": "..."}` with `"unsupported": true` where the peer cannot run a
//! variant at all. Tensors go through safetensors files in a temporary folder.

mod process;
mod python;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::case::{Case, Tensors};
pub(crate) use process::Process;
pub(crate) use python::{Choice, Python};

/// Makes commands that start a peer.
pub(crate) trait Launcher {
    /// The command, ready to be spawned with pipes; `threads` go into its environment.
    fn command(&self, threads: usize) -> Command;
}

/// A running peer.
pub(crate) struct Peer {
    process: Process,
    folder: tempfile::TempDir,
    /// Whether all runs of a turn are timed together, as on GPUs.
    pub(crate) together: bool,
    /// What it calls itself, such as `torch 2.15.0`.
    pub(crate) name: String,
}

/// What a peer says about its memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PeerMemory {
    /// The case's measure: see [`crate::case::Memory`].
    pub(crate) peak: Option<u64>,
    /// The whole process's resident peak.
    pub(crate) resident: Option<u64>,
}

/// The peer refuses a variant that it cannot run.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) String);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not supported by the peer: {}", self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Peer {
    /// Starts a peer that computes with `threads` threads on `device`.
    ///
    /// # Errors
    /// If it does not start, or does not say hello.
    pub(crate) fn start(launcher: &dyn Launcher, threads: usize, device: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder for exchanging tensors")?;
        let mut process = Process::start(launcher.command(threads))?;
        let hello = process.ask(&json!({ "do": "hello", "threads": threads, "device": device }))?;
        let name = text(&checked(hello)?, "name")?;
        Ok(Self { process, folder, together: device.starts_with("cuda"), name })
    }

    /// Hands over a case; what the peer held of the last one is dropped. `alone` is said to a peer that runs only one variant, and
    /// whose process is what is measured.
    pub(crate) fn prepare(&mut self, case: &dyn Case, inputs: &Tensors, alone: bool) -> Result<()> {
        let path = self.folder.path().join("inputs.safetensors");
        let map = inputs.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        candle_core::safetensors::save(&map, &path).context("cannot write the inputs for the peer")?;
        let precision = case.precision().name();
        let request = json!({
            "do": "prepare", "case": case.spec(), "precision": precision, "inputs": path, "resident": alone,
        });
        self.ask(request)?;
        let _ = std::fs::remove_file(path);
        Ok(())
    }

    /// Lets go of what a case holds, before one that may need the room.
    pub(crate) fn forget(&mut self) -> Result<()> {
        self.ask(json!({ "do": "forget" })).map(drop)
    }

    /// Runs a variant for comparison.
    pub(crate) fn outputs(&mut self, variant: &str) -> Result<Tensors> {
        let path = self.folder.path().join("outputs.safetensors");
        self.ask(json!({ "do": "outputs", "variant": variant, "path": path }))?;
        let read = read(&path);
        let _ = std::fs::remove_file(path);
        read
    }

    /// Seconds of each of `repeats` runs of a variant, after one that is not counted if `warm_up`; one number, their mean, where they are
    /// timed together.
    pub(crate) fn time(&mut self, variant: &str, repeats: usize, warm_up: bool) -> Result<Vec<f64>> {
        let together = self.together;
        let request = json!({
            "do": "time", "variant": variant, "repeats": repeats, "together": together, "warm_up": warm_up,
        });
        let reply = self.ask(request)?;
        let seconds: Vec<f64> =
            reply["seconds"].as_array().into_iter().flatten().filter_map(|value| value.as_f64()).collect();
        let expected = if together { 1 } else { repeats };
        if seconds.len() != expected || !seconds.iter().all(|s| s.is_finite() && *s > 0.0) {
            bail!("the peer was asked for {expected} times and answered {}", reply["seconds"])
        }
        Ok(seconds)
    }

    /// The peak memory of a variant.
    pub(crate) fn memory(&mut self, variant: &str) -> Result<PeerMemory> {
        let reply = self.ask(json!({ "do": "memory", "variant": variant }))?;
        Ok(PeerMemory { peak: reply["peak"].as_u64(), resident: reply["resident"].as_u64() })
    }

    fn ask(&mut self, request: Value) -> Result<Value> {
        checked(self.process.ask(&request)?)
    }
}

fn read(path: &Path) -> Result<Tensors> {
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu)
        .map_err(|error| anyhow!("the peer's outputs cannot be read: {error}"))?;
    Ok(tensors.into_iter().collect())
}

/// The reply, unless it says that something went wrong.
fn checked(reply: Value) -> Result<Value> {
    if reply["ok"] == Value::Bool(true) {
        return Ok(reply);
    }
    match (reply["error"].as_str(), reply["unsupported"] == Value::Bool(true)) {
        (Some(error), true) => Err(Unsupported(error.to_string()).into()),
        (Some(error), false) => bail!("the peer failed: {error}"),
        (None, _) => bail!("the peer answered without \"ok\": {reply}"),
    }
}

fn text(reply: &Value, key: &str) -> Result<String> {
    reply[key].as_str().map(String::from).with_context(|| format!("the peer's answer has no \"{key}\": {reply}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_say_no_become_errors() {
        assert!(checked(json!({ "ok": true, "name": "x" })).is_ok());
        let error = checked(json!({ "ok": false, "error": "no such op" })).unwrap_err();
        assert_eq!(error.to_string(), "the peer failed: no such op");
        let error = checked(json!({ "ok": false, "error": "no bf16", "unsupported": true })).unwrap_err();
        assert!(error.is::<Unsupported>(), "{error}");
        assert!(checked(json!({ "answer": 42 })).unwrap_err().to_string().contains("42"));
        assert!(text(&json!({ "ok": true }), "name").unwrap_err().to_string().contains("\"name\""));
    }
}
