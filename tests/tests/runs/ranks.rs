//! Runs on several ranks: the same weights as on one, resumed and stopped like one.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use diptych_tests::{Folder, metrics, tensors, words};

#[cfg(unix)]
use crate::signals::{send, wait_for_steps};
use crate::{tiny, whole, with};

/// The arguments of a short run of a method, 8 steps of 8 images, small ones: what rounding makes different stays small, too.
fn short(method: &str, out: &str) -> Vec<String> {
    let more = match method {
        "simclr" => "",
        "moco" => "--set method.queue=27 --set trainer.bn_groups=4",
        _ => "--set method.predictor_hidden=16",
    };
    let mut args = words(&format!(
        "train {method}/quickstart --epochs 2 --batch-size 8 --seed 7 --quiet --set data.train_size=32 --set data.test_size=32 \
         --set data.image_size=32 --set augment.size=16 --set method.projector=[16,8] --set data.workers=2 \
         --set trainer.log_every=1 --set trainer.eval_every=2 \
         --set optim.lr=0.001 --set optim.warmup_epochs=0 {more} --out"
    ));
    args.push(out.into());
    args
}

/// `||a - b|| / ||b||` of every tensor of two files, the largest.
fn difference(a: &Path, b: &Path) -> f64 {
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        bytes.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect()
    };
    let mut worst: f64 = 0.0;
    for ((name, shape, a), (other, expected, b)) in tensors(a).iter().zip(&tensors(b)) {
        assert_eq!((name, shape), (other, expected));
        if !shape.starts_with("F32") {
            assert_eq!(a, b, "{name}");
            continue;
        }
        let (a, b) = (numbers(a), numbers(b));
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let off = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-3);
        worst = worst.max(off);
    }
    worst
}

/// The named numbers of every logged step.
fn series(run: &Path, key: &str) -> Vec<f64> {
    metrics(&run.join("metrics.jsonl")).iter().filter_map(|row| row[key].as_f64()).collect()
}

#[test]
fn two_ranks_learn_what_one_learns() {
    for method in ["simclr", "moco", "byol"] {
        let folder = Folder::new();
        for ranks in ["1", "2"] {
            folder.run(with(short(method, ranks), &format!("--ranks {ranks}"))).ended_with(0);
        }
        let (one, two) = (folder.path("1"), folder.path("2"));
        let off = difference(&two.join("backbone.safetensors"), &one.join("backbone.safetensors"));
        assert!(off < 1e-4, "{method}: the weights are off by {off:.1e}");
        for key in ["loss", "embedding_std"] {
            let (alone, shared) = (series(&one, key), series(&two, key));
            assert_eq!((alone.len(), shared.len()), (8, 8), "{method}: {key}");
            for (step, (a, b)) in alone.iter().zip(&shared).enumerate() {
                assert!(
                    (a - b).abs() < 1e-4 * a.abs().max(1.0),
                    "{method}: {key} of step {step} is {b} instead of {a}"
                );
            }
        }
    }
}

#[test]
fn a_killed_run_of_two_ranks_ends_like_an_unbroken_one() {
    let folder = Folder::new();
    let args = |out: &str| with(short("moco", out), "--ranks 2 --set trainer.checkpoint_every=1");
    folder.run(args("unbroken")).ended_with(0);
    // In the middle of an epoch: after its third checkpoint and before its end.
    let mut child = folder.command(args("run")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let third = folder.path("run/checkpoints/step-00000003.safetensors");
    let begun = Instant::now();
    while !third.is_file() && child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    folder.run(words("train --resume --out run --ranks 2 --quiet --threads 1")).ended_with(0);
    for file in ["backbone.safetensors", "checkpoints/step-00000008.safetensors"] {
        let (resumed, unbroken) = (folder.path("run").join(file), folder.path("unbroken").join(file));
        assert!(tensors(&resumed) == tensors(&unbroken), "{file}");
    }
    assert_eq!(series(&folder.path("run"), "loss"), series(&folder.path("unbroken"), "loss"));
}

#[test]
fn a_run_may_go_on_with_another_number_of_ranks() {
    let folder = Folder::new();
    let (from, to) = (whole(), folder.path("run"));
    std::fs::create_dir_all(to.join("checkpoints")).unwrap();
    for file in ["recipe.toml", "metrics.jsonl", "checkpoints/step-00000020.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let ran = folder.run(words("train --resume --out run --ranks 4")).ended_with(0);
    assert!((ran.stdout.clone() + &ran.stderr).contains("resumed at step 20"), "{ran:?}");
    let off = difference(&to.join("backbone.safetensors"), &from.join("backbone.safetensors"));
    assert!(off < 1e-4, "{off:.1e}");
}

#[test]
fn large_batches_go_in_chunks_and_micro_batches() {
    let folder = Folder::new();
    folder.run(with(short("simclr", "whole"), "--set trainer.bn_groups=2")).ended_with(0);
    for (out, more) in [("chunks", ""), ("ranks", " --ranks 2")] {
        let more = format!("--set trainer.grad_cache=2 --set trainer.bn_groups=2{more}");
        folder.run(with(short("simclr", out), &more)).ended_with(0);
    }
    // The second splits the rows of both ranks, so its groups are others; it runs, and logs as many steps.
    assert_eq!(series(&folder.path("ranks"), "loss").len(), 8);
    let (alone, cached) = (series(&folder.path("whole"), "loss"), series(&folder.path("chunks"), "loss"));
    assert_eq!(cached.len(), 8);
    for (a, b) in alone.iter().zip(&cached) {
        assert!((a - b).abs() < 1e-4 * a.abs(), "{alone:?}\n{cached:?}");
    }
    folder.run(with(short("byol", "byol"), "--set trainer.accumulate=2 --ranks 2")).ended_with(0);
    assert_eq!(series(&folder.path("byol"), "loss").len(), 8);
}

#[test]
fn what_cannot_be_divided_is_refused_by_name() {
    let folder = Folder::new();
    for (more, word) in [
        ("--ranks 0", "--ranks 0"),
        ("--ranks 3", "--ranks 3"),
        ("--set trainer.grad_cache=3", "trainer.grad_cache = 3"),
        ("--set trainer.accumulate=2", "use trainer.grad_cache = 2"),
        ("--set trainer.bn_groups=3 --batch-size 12 --ranks 2", "trainer.bn_groups = 3"),
    ] {
        let sentence = folder.run(with(tiny("run"), more)).refusal();
        assert!(sentence.contains(word), "{sentence}");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_all_ranks() {
    let folder = Folder::new();
    let more = "--ranks 2 --epochs 1000 --set trainer.eval_every=0 --set trainer.checkpoint_every=1000000";
    let mut child = folder.command(with(short("simclr", "run"), more)).stdout(Stdio::null()).spawn().unwrap();
    wait_for_steps(&mut child, &folder.path("run"), 5);
    send(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path("run/checkpoints")).unwrap().count(), 1);
}

#[test]
fn images_that_cannot_be_read_are_told_once_by_all_ranks() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 40 --test-size 20")).ended_with(0);
    let class = std::fs::read_dir(folder.path("images/train")).unwrap().next().unwrap().unwrap().path();
    let image = std::fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&image, b"no image").unwrap();
    let data = "--data images --set data.train_size=0 --set data.test_size=0 --ranks 2";
    folder.run(with(short("simclr", "run"), data)).ended_with(0);
    let log = std::fs::read_to_string(folder.path("run/skipped.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    let sentence =
        folder.run(with(short("simclr", "strict"), &format!("{data} --set data.max_error_share=0.0"))).refusal();
    assert!(sentence.contains("data.max_error_share"), "{sentence}");
}
