//! Kill -9 at any moment: the run resumes, loses no more than the checkpoint interval, and ends with the same weights.
//!
//! A few kills by default; `DIPTYCH_KILLS=20` asks for more. Every third comes while a checkpoint is being written.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use diptych_tests::{Folder, metrics, tensors, words};

use crate::{tiny, whole, with};

/// Steps between checkpoints.
const INTERVAL: u64 = 2;

/// When a kill comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After this share of an unbroken run's time.
    Share(f64),
    /// While the n-th checkpoint is a temporary file.
    Write(usize),
}

fn arguments() -> Vec<String> {
    with(tiny("run"), &format!("--set trainer.checkpoint_every={INTERVAL}"))
}

/// The steps of the whole checkpoints, in order.
fn checkpoints(run: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let step = |name: String| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok();
    let mut steps: Vec<u64> =
        entries.filter_map(|entry| step(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    steps.sort_unstable();
    steps
}

/// Whether a checkpoint's temporary file is there: a hidden one.
fn writing(run: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(run.join("checkpoints")) else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b".")))
}

/// Kills the run at `moment`; false when it has ended by itself.
fn kill_at(child: &mut Child, run: &Path, moment: Moment, whole: Duration) -> bool {
    match moment {
        Moment::Share(share) => std::thread::sleep(whole.mul_f64(share)),
        Moment::Write(nth) => {
            let (mut seen, mut before) = (0, false);
            while seen < nth && child.try_wait().unwrap().is_none() {
                let now = writing(run);
                seen += usize::from(now && !before);
                before = now;
            }
        }
    }
    let alive = child.try_wait().unwrap().is_none();
    if alive {
        child.kill().unwrap();
    }
    child.wait().unwrap();
    alive
}

#[test]
fn killed_runs_end_like_unbroken_ones() {
    let kills: u64 = std::env::var("DIPTYCH_KILLS").map_or(3, |text| text.parse().expect("DIPTYCH_KILLS is a number"));
    let unbroken = Folder::new();
    let start = Instant::now();
    unbroken.run(arguments()).ended_with(0);
    let time = start.elapsed();
    let expected = tensors(&unbroken.path("run/backbone.safetensors"));
    assert_eq!(expected, tensors(&whole().join("backbone.safetensors")), "checkpoints should change nothing");

    let (mut killed, mut during_write) = (0, 0);
    for k in 0..kills {
        let mut moment = match k % 3 {
            2 => Moment::Write(1 + (k as usize * 5) % 9),
            _ => Moment::Share((k as f64 + 0.5) / kills as f64),
        };
        let mut attempts = 0..8;
        // A run that was faster this time is started again and killed earlier.
        let (folder, left_half_written) = loop {
            assert!(attempts.next().is_some(), "kill {k}: the run was never met at {moment:?}");
            let folder = Folder::new();
            let run = folder.path("run");
            let mut child = folder.command(arguments()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            if kill_at(&mut child, &run, moment, time) {
                let half = writing(&run);
                break (folder, half);
            }
            moment = match moment {
                Moment::Share(share) => Moment::Share(share * 0.8),
                Moment::Write(nth) => Moment::Write((nth - 1).max(1)),
            };
        };
        killed += 1;
        during_write += u64::from(left_half_written);
        check(&folder, k, &expected);
    }
    eprintln!("{killed} kills, {during_write} of them during a checkpoint write");
    assert_eq!(killed, kills);
    assert!(kills < 3 || during_write > 0, "no kill met a checkpoint write");
}

/// Resumes a killed run with other worker and thread counts and compares its end.
fn check(folder: &Folder, k: u64, expected: &[(String, String, Vec<u8>)]) {
    let run = folder.path("run");
    if !run.join("recipe.toml").is_file() {
        // Killed before the run began: there is nothing to resume, and nothing in the way of starting again.
        folder.run(with(arguments(), "--quiet")).ended_with(0);
    } else {
        let reached = match run.join("metrics.jsonl").is_file() {
            true => last_whole_step(&run),
            false => 0,
        };
        let saved = checkpoints(&run).last().copied().unwrap_or(0);
        assert!(reached <= saved + INTERVAL, "kill {k}: step {reached} was reached, the last checkpoint is {saved}");
        let args = format!("train --resume --out run --threads {} --set data.workers={}", 1 + k % 2, 1 + k % 3);
        let ran = folder.run(words(&args)).ended_with(0);
        let said = ran.stdout + &ran.stderr;
        let resumed = if saved > 0 { format!("resumed at step {saved}") } else { "starting from step 0".into() };
        assert!(said.contains(&resumed), "kill {k}: expected \"{resumed}\" in\n{said}");
    }
    assert!(tensors(&run.join("backbone.safetensors")) == expected, "kill {k}: other weights than the unbroken run");
    let steps: Vec<u64> = metrics(&run.join("metrics.jsonl"))
        .iter()
        .filter(|row| row["loss"].is_number())
        .filter_map(|row| row["step"].as_u64())
        .collect();
    assert_eq!(steps, (1..=crate::STEPS).collect::<Vec<_>>(), "kill {k}: each step once in the metrics");
    assert!(!writing(&run), "kill {k}: a temporary file is left");
}

/// The last step whose row is whole; the kill may have cut the last line.
fn last_whole_step(run: &Path) -> u64 {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    rows.filter_map(|row| row["step"].as_u64()).max().unwrap_or(0)
}
