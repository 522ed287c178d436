//! A disk that takes no more: the run ends with a sentence, keeps what it had, and goes on once there is room.

use std::process::Command;

use diptych_tests::{Folder, Ran, binary, tensors};

use crate::{tiny, whole};

/// Runs `args` where no file may grow beyond `blocks` of 512 or 1024 bytes (shells differ): larger writes fail as on a full disk.
fn with_little_room(folder: &Folder, blocks: u32, args: &[String]) -> Ran {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(binary()).args(args).current_dir(folder.path("")).env("RAYON_NUM_THREADS", "1");
    Ran::of(shell.output().unwrap())
}

#[test]
fn a_full_disk_is_told_and_the_run_goes_on_later() {
    let folder = Folder::new();
    let ran = with_little_room(&folder, 1000, &tiny("run")).ended_with(1);
    let told = ran.stderr.lines().find(|line| line.starts_with("error: ")).expect("a sentence");
    assert!(told.contains("checkpoint") && told.contains("can't be written"), "{told}");
    let left = std::fs::read_dir(folder.path("run/checkpoints")).unwrap().count();
    assert_eq!(left, 0, "a part of a checkpoint is left");

    folder.run(["train", "--resume", "--out", "run", "--quiet"]).ended_with(0);
    let backbone = "backbone.safetensors";
    assert_eq!(tensors(&folder.path("run").join(backbone)), tensors(&whole().join(backbone)));
}
