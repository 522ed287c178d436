//! What is done with a finished run: evaluation, features, export, and pictures.

use diptych_tests::{Folder, tensors, words};
use serde_json::Value;

use crate::whole;

fn json(folder: &Folder, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path(file)).unwrap()).unwrap()
}

/// `line` with the shared run as `--weights`.
fn on_the_run(line: &str) -> Vec<String> {
    let mut args = words(line);
    args.extend(["--weights".into(), whole().to_str().unwrap().into()]);
    args
}

#[test]
fn every_protocol_writes_its_result() {
    let folder = Folder::new();
    for protocol in ["knn", "linear", "logistic"] {
        let file = format!("{protocol}.json");
        folder.run(on_the_run(&format!("eval {protocol} --json {file}"))).ended_with(0);
        let result = json(&folder, &file);
        assert!(result["protocol"].as_str().is_some_and(|name| name.contains(protocol)), "{result}");
        assert!((0.0..=1.0).contains(&result["top1"].as_f64().unwrap()), "{result}");
        assert_eq!(result["n"], 32, "{result}");
        for key in ["metric", "value", "split", "weights", "data"] {
            assert!(!result[key].is_null(), "no {key} in {result}");
        }
    }
}

/// The same numbers from the run's folder, from its weights file, and from an export.
#[test]
fn a_run_its_weights_and_its_export_are_one_backbone() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 20 --flat")).ended_with(0);
    folder.run(on_the_run("export --format torchvision --out exported.safetensors")).ended_with(0);
    let file = whole().join("backbone.safetensors");
    for (weights, out) in [(whole(), "a.npy"), (file, "b.npy"), (folder.path("exported.safetensors"), "c.npy")] {
        let line = format!("embed --no-cache --data images --out {out} --weights {}", weights.display());
        folder.run(words(&line)).ended_with(0);
    }
    let read = |name| std::fs::read(folder.path(name)).unwrap();
    assert!(read("a.npy") == read("b.npy") && read("a.npy") == read("c.npy"));
}

#[test]
fn embed_writes_features_and_paths_in_their_order() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 20 --test-size 10")).ended_with(0);
    folder.run(on_the_run("embed --data images --out features.safetensors")).ended_with(0);
    let paths = std::fs::read_to_string(folder.path("features.safetensors.paths.txt")).unwrap();
    let lines: Vec<&str> = paths.lines().collect();
    assert_eq!(lines.len(), 30);
    assert!(lines.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()), "{lines:?}");
    let all = tensors(&folder.path("features.safetensors"));
    let kinds: Vec<(&str, &str)> = all.iter().map(|(name, kind, _)| (name.as_str(), kind.as_str())).collect();
    assert!(kinds[0].0 == "features" && kinds[0].1.starts_with("F32 [30, "), "{kinds:?}");
    assert_eq!(kinds[1], ("labels", "I64 [30]"));
}

#[test]
fn the_export_has_torchvisions_names_and_layout() {
    let folder = Folder::new();
    let ran = folder.run(on_the_run("export --format torchvision --out exported.safetensors")).ended_with(0);
    assert!(ran.stdout.contains("import torch") || ran.stdout.contains("torchvision"), "{}", ran.stdout);
    let all = tensors(&folder.path("exported.safetensors"));
    let kind = |name: &str| all.iter().find(|(other, ..)| other == name).map(|(_, kind, _)| kind.clone());
    // The CIFAR stem: 3x3, [O, I, kh, kw].
    assert!(kind("conv1.weight").is_some_and(|kind| kind.ends_with(", 3, 3, 3]")), "{:?}", kind("conv1.weight"));
    for name in ["bn1.running_mean", "bn1.running_var", "layer1.0.conv1.weight", "layer1.0.bn1.bias"] {
        assert!(kind(name).is_some(), "no {name}");
    }
    assert!(all.iter().all(|(name, ..)| !name.contains("projector") && !name.starts_with("backbone.")));
}

#[test]
fn drawn_images_are_read_back_as_classes() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 40 --test-size 20 --format jpeg")).ended_with(0);
    let classes = std::fs::read_dir(folder.path("images/train")).unwrap().count();
    assert_eq!(classes, 10);
    folder.run(on_the_run("eval knn --data images --json knn.json")).ended_with(0);
    assert_eq!(json(&folder, "knn.json")["n"], 20);
    let sentence = folder.run(on_the_run("eval knn --data images/train/none")).refusal();
    assert!(sentence.contains("none"), "{sentence}");
}

#[test]
fn preview_is_a_picture() {
    let folder = Folder::new();
    folder.run(words("preview --images 3 --draws 2 --out views.png")).ended_with(0);
    let picture = image::open(folder.path("views.png")).unwrap();
    // Three rows of the image and 2 draws of 2 views, 32 pixels each.
    assert!(picture.width() >= 5 * 32 && picture.height() >= 3 * 32, "{} x {}", picture.width(), picture.height());
    folder.run(words("preview --ops --out ops.png")).ended_with(0);
    let sheet = image::open(folder.path("ops.png")).unwrap();
    // Eight rows of up to nine strengths, enlarged to 96 pixels each.
    assert!(sheet.width() >= 9 * 96 && sheet.height() >= 8 * 96, "{} x {}", sheet.width(), sheet.height());
}
