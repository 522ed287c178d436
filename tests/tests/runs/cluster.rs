//! Neighbors over a grid, and clusters with and without labels, through the real binary.

use diptych_tests::{Folder, words};
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
fn a_grid_names_every_pair_and_what_was_chosen() {
    let folder = Folder::new();
    let line = "eval knn --set knn.k=[1,5,20] --set knn.temperature=[0.07,0.5] --json grid.json";
    let ran = folder.run(on_the_run(line)).ended_with(0);
    let grid = json(&folder, "grid.json");
    let pairs = grid["grid"].as_array().unwrap();
    assert_eq!(pairs.len(), 6, "{grid}");
    let chosen = |pair: &&Value| {
        pair["k"].as_f64() == grid["chosen"]["k"].as_f64() && pair["temperature"] == grid["chosen"]["temperature"]
    };
    assert_eq!(pairs.iter().find(chosen).unwrap()["value"], grid["value"], "{grid}");
    assert!(ran.stdout.contains("never by the test images"), "{}", ran.stdout);
    // One pair alone gives what the grid has.
    for pair in pairs.iter().take(2) {
        let line =
            format!("eval knn --set knn.k={} --set knn.temperature={} --json one.json", pair["k"], pair["temperature"]);
        folder.run(on_the_run(&line)).ended_with(0);
        let one = json(&folder, "one.json");
        assert_eq!(one["value"], pair["value"]);
        assert!(one["grid"].is_null() && one["chosen"].is_null(), "{one}");
    }
}

#[test]
fn the_default_is_the_published_pair_and_recipes_have_names() {
    let folder = Folder::new();
    folder.run(on_the_run("eval knn --json a.json")).ended_with(0);
    folder.run(on_the_run("eval knn dino --json b.json")).ended_with(0);
    assert_eq!(json(&folder, "a.json"), json(&folder, "b.json"));
    folder.run(on_the_run("eval knn --set knn.precision=bf16 --set knn.weights=uniform --json c.json")).ended_with(0);
    let rounded = json(&folder, "c.json");
    assert!(rounded["words"].as_str().unwrap().contains("rounded to bf16, votes of equal weight"), "{rounded}");
    // 64 training images.
    let sentence = folder.run(on_the_run("eval knn wu")).refusal();
    assert!(sentence.contains("knn.k = 200") && sentence.contains("64 training images"), "{sentence}");
    let sentence = folder.run(on_the_run("eval knn --set knn.temperature=0")).refusal();
    assert!(sentence.contains("knn.temperature"), "{sentence}");
}

#[test]
fn clusters_with_labels() {
    let folder = Folder::new();
    let ran = folder.run(on_the_run("eval cluster --seeds 2 --json cluster.json")).ended_with(0);
    let result = json(&folder, "cluster.json");
    assert_eq!((&result["protocol"], &result["metric"]), (&"cluster".into(), &"nmi".into()), "{result}");
    assert_eq!((&result["n"], &result["k"], &result["seeds"]), (&32.into(), &10.into(), &2.into()), "{result}");
    for key in ["nmi", "accuracy", "value"] {
        assert!((0.0..=1.0).contains(&result[key].as_f64().unwrap()), "{key}: {result}");
    }
    for key in ["ari", "inertia", "rankme", "alignment", "uniformity", "embedding_std", "norm_mean", "silhouette"] {
        assert!(result[key].as_f64().is_some_and(f64::is_finite), "{key}: {result}");
    }
    let sizes: u64 = result["sizes"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).sum();
    assert_eq!(sizes, 32);
    assert!(ran.stdout.contains("RankMe") && ran.stdout.contains("collapse"), "{}", ran.stdout);
    // The same seeds, the same numbers.
    folder.run(on_the_run("eval cluster --seeds 2 --json again.json")).ended_with(0);
    assert_eq!(result, json(&folder, "again.json"));
}

#[test]
fn clusters_without_labels_and_baselines() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 40 --flat")).ended_with(0);
    folder.run(on_the_run("eval cluster --data images --set cluster.k=4 --json flat.json")).ended_with(0);
    let result = json(&folder, "flat.json");
    assert_eq!(result["metric"], "rankme", "{result}");
    assert_eq!((&result["n"], &result["k"], &result["split"]), (&40.into(), &4.into(), &"all".into()), "{result}");
    assert_eq!(result["value"], result["rankme"]);
    assert!(result["nmi"].is_null() && result["alignment"].is_f64(), "{result}");
    for baseline in ["random", "pixels"] {
        let line = format!("eval cluster raw --data images --baseline {baseline} --json {baseline}.json");
        folder.run(on_the_run(&line)).ended_with(0);
        let result = json(&folder, &format!("{baseline}.json"));
        assert_eq!(result["weights"], baseline);
        assert!(result["words"].as_str().unwrap().contains("as they are"), "{result}");
    }
    assert!(json(&folder, "pixels.json")["alignment"].is_null());
    let sentence = folder.run(on_the_run("eval cluster --data images --set cluster.k=41")).refusal();
    assert!(sentence.contains("cluster.k = 41") && sentence.contains("40 images"), "{sentence}");
}
