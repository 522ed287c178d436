//! A run that was stopped and continued equals one that never stopped.

use diptych_tests::{Folder, metrics, tensors};

use crate::{STEPS, tiny, whole, with};

/// Copies the shared run up to its checkpoint of `step`, as if it had been killed some steps later.
fn cut_at(folder: &Folder, step: u64) {
    let (from, to) = (whole(), folder.path("run"));
    std::fs::create_dir_all(to.join("checkpoints")).unwrap();
    for file in ["recipe.toml", "metrics.jsonl"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let name = format!("checkpoints/step-{step:08}.safetensors");
    std::fs::copy(from.join(&name), to.join(&name)).unwrap();
}

/// The last checkpoint but one of the shared run: in the middle of the last epoch (steps 17 to 24).
const LAST_BUT_ONE: u64 = 20;

#[test]
fn a_resumed_run_equals_an_unbroken_one_with_other_threads_and_workers() {
    for (threads, workers) in [("1", "1"), ("2", "3")] {
        let folder = Folder::new();
        cut_at(&folder, LAST_BUT_ONE);
        let args = format!("train --resume --out run --threads {threads} --set data.workers={workers}");
        let ran = folder.run(diptych_tests::words(&args)).ended_with(0);
        assert!(ran.stdout.contains("resumed at step 20") || ran.stderr.contains("resumed at step 20"), "{ran:?}");
        for file in ["backbone.safetensors", &format!("checkpoints/step-{STEPS:08}.safetensors")] {
            assert_eq!(tensors(&folder.path("run").join(file)), tensors(&whole().join(file)), "{file}");
        }
    }
}

#[test]
fn metrics_are_cut_back_and_have_each_step_once() {
    let folder = Folder::new();
    cut_at(&folder, LAST_BUT_ONE);
    folder.run(["train", "--resume", "--out", "run", "--quiet"]).ended_with(0);
    let series = |path: &std::path::Path| -> Vec<(u64, f64)> {
        let rows = metrics(path);
        rows.iter().filter_map(|row| Some((row["step"].as_u64()?, row["loss"].as_f64()?))).collect()
    };
    let (resumed, unbroken) = (series(&folder.path("run/metrics.jsonl")), series(&whole().join("metrics.jsonl")));
    assert_eq!(resumed.len() as u64, STEPS);
    assert_eq!(resumed, unbroken);
}

/// A file that a kill left half written, or damaged later, is passed over for the one before.
#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let folder = Folder::new();
    cut_at(&folder, LAST_BUT_ONE);
    let newer = folder.path("run/checkpoints/step-00000023.safetensors");
    let bytes = std::fs::read(whole().join(format!("checkpoints/step-{STEPS:08}.safetensors"))).unwrap();
    std::fs::write(&newer, &bytes[..bytes.len() / 2]).unwrap();
    let ran = folder.run(["train", "--resume", "--out", "run"]).ended_with(0);
    let said = ran.stdout + &ran.stderr;
    assert!(said.contains("step-00000023") && said.contains("resumed at step 20"), "{said}");
    let backbone = "backbone.safetensors";
    assert_eq!(tensors(&folder.path("run").join(backbone)), tensors(&whole().join(backbone)));
}

#[test]
fn a_finished_run_is_finished() {
    let folder = Folder::new();
    cut_at(&folder, STEPS);
    folder.run(["train", "--resume", "--out", "run", "--quiet"]).ended_with(0);
    let backbone = "backbone.safetensors";
    assert_eq!(tensors(&folder.path("run").join(backbone)), tensors(&whole().join(backbone)));
}

#[test]
fn changed_keys_are_refused_by_name() {
    let folder = Folder::new();
    cut_at(&folder, LAST_BUT_ONE);
    let args = ["train", "--resume", "--out", "run", "--set", "method.temperature=0.5", "--batch-size", "16"];
    let sentence = folder.run(args).refusal();
    assert!(sentence.contains("method.temperature") && sentence.contains("trainer.batch_size"), "{sentence}");
    let sentence = folder.run(["train", "barlow_twins/quickstart", "--resume", "--out", "run"]).refusal();
    assert!(sentence.contains("method.name"), "{sentence}");
}

#[test]
fn other_data_are_refused() {
    let folder = Folder::new();
    folder.run(["draw", "--out", "images", "--train-size", "40", "--test-size", "20"]).ended_with(0);
    let data = "--data images --set data.train_size=0 --set data.test_size=0 --epochs 1";
    folder.run(with(tiny("run"), data)).ended_with(0);
    let class = std::fs::read_dir(folder.path("images/train")).unwrap().next().unwrap().unwrap().path();
    let image = std::fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&image, image.with_file_name("renamed.png")).unwrap();
    let sentence = folder.run(["train", "--resume", "--out", "run"]).refusal();
    assert!(sentence.contains("another list of images"), "{sentence}");
}

#[test]
fn resume_needs_a_run() {
    let folder = Folder::new();
    assert!(folder.run(["train", "--resume"]).refusal().contains("--out"));
    assert!(folder.run(["train", "--resume", "--out", "none"]).refusal().contains("none"));
    cut_at(&folder, LAST_BUT_ONE);
    let sentence = folder.run(tiny("run")).refusal();
    assert!(sentence.contains("--resume"), "{sentence}");
}
