//! SIGINT and SIGTERM save and end; the run goes on from there.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use diptych_tests::{Folder, Ran, tensors};

use crate::{tiny, whole, with};

/// Waits until the run has written `steps` rows of losses.
pub(crate) fn wait_for_steps(child: &mut Child, run: &Path, steps: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let rows = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        if rows.lines().filter(|line| line.contains("\"loss\"")).count() >= steps {
            return;
        }
        assert!(Instant::now() < deadline, "the run has not begun after two minutes");
        assert_eq!(child.try_wait().unwrap(), None, "the run ended by itself before the signal");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "kill {signal} failed");
}

#[test]
fn a_signal_saves_and_the_run_goes_on_from_there() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = Folder::new();
        let run = folder.path("run");
        // No checkpoint of its own before the end: what is there after the signal, the signal made.
        let args = with(tiny("run"), "--set trainer.checkpoint_every=1000000");
        let mut child = folder.start(&args);
        wait_for_steps(&mut child, &run, 2);
        send(&child, signal);
        let ran = Ran::of(child.wait_with_output().unwrap()).ended_with(code);
        assert!(ran.stdout.contains("--resume"), "it should say how to go on: {}", ran.stdout);
        assert_eq!(std::fs::read_dir(run.join("checkpoints")).unwrap().count(), 1);

        folder.run(["train", "--resume", "--out", "run", "--quiet"]).ended_with(0);
        let backbone = "backbone.safetensors";
        assert_eq!(tensors(&run.join(backbone)), tensors(&whole().join(backbone)), "{signal}");
    }
}

/// The second signal does not wait for anything: the process is gone, with the same code.
#[test]
fn a_second_signal_ends_at_once() {
    let folder = Folder::new();
    let mut child = folder.start(with(tiny("run"), "--set trainer.checkpoint_every=1000000"));
    wait_for_steps(&mut child, &folder.path("run"), 1);
    send(&child, "-INT");
    // It may be gone already.
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let start = Instant::now();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130));
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}
