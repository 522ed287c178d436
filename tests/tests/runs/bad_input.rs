//! What a user can get wrong: one clear sentence and exit code 2, before any time is spent and before anything is written.

use diptych_tests::{Folder, words};

use crate::{tiny, with};

/// Runs a tiny training with `more` and expects a refusal that holds all of `parts`; nothing may be left behind.
fn refused(more: &str, parts: &[&str]) {
    let folder = Folder::new();
    let sentence = folder.run(with(tiny("run"), more)).refusal();
    for part in parts {
        assert!(sentence.contains(part), "{more}: expected {part:?} in: {sentence}");
    }
    assert!(!folder.path("run").exists(), "{more}: a refused run left a folder");
}

#[test]
fn a_missing_folder() {
    refused("--data no/such/folder", &["no/such/folder"]);
}

#[test]
fn a_folder_without_images() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("images")).unwrap();
    std::fs::write(folder.path("images/notes.txt"), "no image").unwrap();
    let sentence = folder.run(with(tiny("run"), "--data images")).refusal();
    assert!(sentence.contains("images") && sentence.contains("no image"), "{sentence}");
}

#[test]
fn an_unknown_key_with_the_one_that_was_meant() {
    refused("--set optim.learning_rate=0.1", &["optim.learning_rate", "did you mean optim.lr"]);
    refused("--set optim.momentm=0.9", &["did you mean optim.momentum"]);
    refused("--set optm.lr=0.1", &["[optm]", "[optim]"]);
    refused("--set method.temprature=0.1", &["temprature", "temperature"]);
    refused("--set lr=0.1", &["section.key"]);
}

#[test]
fn an_unknown_key_in_a_recipe_file_names_the_file() {
    let folder = Folder::new();
    std::fs::write(folder.path("mine.toml"), "[method]\nname = \"simclr\"\n[trainer]\nepoch = 3\n").unwrap();
    let sentence = folder.run(words("train mine.toml --data synthetic --out run")).refusal();
    assert!(sentence.contains("mine.toml") && sentence.contains("did you mean trainer.epochs"), "{sentence}");
}

#[test]
fn a_recipe_that_is_not_toml_or_not_there() {
    let folder = Folder::new();
    std::fs::write(folder.path("broken.toml"), "[method\nname").unwrap();
    let sentence = folder.run(words("train broken.toml --out run")).ended_with(2).stderr;
    assert!(sentence.contains("broken.toml"), "{sentence}");
    let sentence = folder.run(words("train simclr/none --out run")).refusal();
    assert!(sentence.contains("simclr/none") && sentence.contains("simclr/quickstart"), "{sentence}");
}

#[test]
fn a_wrong_type_or_an_impossible_value() {
    refused("--set optim.lr=fast", &["optim.lr", "expected a number"]);
    refused("--set trainer.log_every=1.5", &["trainer.log_every", "whole number"]);
    refused("--set optim.name=adamw9", &["optim.name"]);
    refused("--set method.name=simclear", &["simclear", "barlow_twins"]);
    refused("--set backbone.name=resnet19", &["resnet19", "resnet18"]);
    refused("--set method.temperature=0", &["temperature", "positive"]);
    refused("--epochs 0", &["trainer.epochs"]);
    refused("--set augment.crop_scale=[0.9,0.1]", &["crop_scale"]);
}

#[test]
fn a_batch_larger_than_the_data() {
    refused("--batch-size 65", &["65", "64 training images"]);
    refused("--batch-size 1", &["trainer.batch_size"]);
}

#[test]
fn widths_that_the_projector_cannot_take() {
    refused("--set method.projector=[]", &["projector"]);
    refused("--set method.projector=[16,0]", &["projector", "width 0"]);
    refused("--set method.projector=wide", &["projector"]);
}

#[test]
fn accumulation_with_a_loss_that_compares_the_batch() {
    refused("--set trainer.accumulate=2", &["trainer.accumulate", "simclr"]);
}

#[test]
fn what_this_build_cannot_do() {
    refused("--device cuda", &["CUDA"]);
    refused("--device tpu", &["tpu"]);
    refused("--precision tf32", &["CUDA", "bf16"]);
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let folder = Folder::new();
    std::fs::write(folder.path("file"), "in the way").unwrap();
    let sentence = folder.run(tiny("file")).refusal();
    assert!(sentence.contains("file"), "{sentence}");
    let sentence = folder.run(tiny("file/run")).refusal();
    assert!(sentence.contains("file/run") && sentence.contains("can't be written"), "{sentence}");
    assert_eq!(std::fs::read_to_string(folder.path("file")).unwrap(), "in the way");
}

#[test]
fn unknown_flags_and_commands_end_with_2_too() {
    let folder = Folder::new();
    for line in ["train --epoch 3", "trian", "eval knn", "export --format torchvision", "train --epochs many"] {
        let ran = folder.run(words(line)).ended_with(2);
        assert!(ran.stderr.contains("error"), "{line}: {}", ran.stderr);
    }
    folder.run(["--help"]).ended_with(0);
}

#[test]
fn weights_that_are_not_there_or_not_weights() {
    let folder = Folder::new();
    std::fs::write(folder.path("broken.safetensors"), "not a tensor").unwrap();
    for weights in ["none.safetensors", "broken.safetensors"] {
        for line in
            ["eval knn --data synthetic", "embed --data synthetic --out f.npy", "export --format torchvision --out f"]
        {
            let sentence = folder.run(words(&format!("{line} --weights {weights}"))).refusal();
            assert!(sentence.contains(weights), "{line}: {sentence}");
        }
        refused(&format!("--set backbone.weights={weights}"), &[weights]);
    }
}

/// A learning rate beyond all numbers: the run stops with code 3, names the step, and keeps the last good checkpoint.
#[test]
fn a_non_finite_value_stops_the_run() {
    let folder = Folder::new();
    let more =
        "--set optim.lr=1e38 --set optim.lr_scaling=none --set optim.warmup_epochs=1 --set trainer.checkpoint_every=1";
    let ran = folder.run(with(tiny("run"), more)).ended_with(3);
    assert!(ran.stderr.contains("step"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("not finite") || ran.stderr.contains("non-finite") || ran.stderr.contains("NaN"),
        "{}",
        ran.stderr
    );
    let checkpoints: Vec<_> = std::fs::read_dir(folder.path("run/checkpoints")).unwrap().collect();
    assert!(!checkpoints.is_empty(), "no checkpoint is kept");
}
