//! Many runs from one file.

use std::path::Path;

use diptych_tests::{Folder, tensors, words};

/// Two settings and two seeds, of runs that take a second.
const FILE: &str = r#"
title = "Temperature"
recipe = "simclr/quickstart"
seeds = [0, 1]

[set]
data.train_size = 64
data.test_size = 32
data.workers = 1
augment.size = 16
method.projector = [16, 8]
trainer.epochs = 1
trainer.batch_size = 8
trainer.log_every = 1
trainer.checkpoint_every = 2

[grid]
method.temperature = [0.1, 0.5]

[plot]
x = "method.temperature"
log = true
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::write(folder.path("small.toml"), FILE).unwrap();
    folder
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_sweep_ends_with_a_table_and_a_picture_and_repeats_nothing() {
    let folder = folder();
    let listed = folder.run(words("sweep small.toml --dry-run")).ended_with(0).stdout;
    assert!(listed.contains("4 of 4 runs to make") && listed.contains("temperature=0.5_seed-1"), "{listed}");
    assert!(!folder.path("runs").exists(), "a dry run writes nothing");
    let said = folder.run(words("sweep small.toml")).ended_with(0).stdout;
    assert!(said.contains("| temperature | seed 0 | seed 1 | mean | deviation |"), "{said}");
    let out = folder.path("runs/sweep-small");
    let json: serde_json::Value = serde_json::from_slice(&bytes(&out.join("sweep.json"))).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let values: Vec<f64> =
            row["runs"].as_array().unwrap().iter().map(|run| run["outcome"]["value"].as_f64().unwrap()).collect();
        assert_eq!(values.len(), 2);
        assert!((row["mean"].as_f64().unwrap() - (values[0] + values[1]) / 2.0).abs() < 1e-12);
        assert!(row["runs"][0]["outcome"]["spread"].as_f64().unwrap() > 0.1);
    }
    for (file, begins) in [("sweep.md", "# Temperature"), ("sweep.html", "<!doctype html>"), ("plot.svg", "<svg")] {
        assert!(bytes(&out.join(file)).starts_with(begins.as_bytes()), "{file}");
    }
    // One of them is begun and not ended, as after a kill: only that one goes on.
    let cut = out.join("temperature=0.1_seed-1");
    let whole = tensors(&cut.join("backbone.safetensors"));
    let untouched = out.join("temperature=0.5_seed-0/metrics.jsonl");
    let before = std::fs::metadata(&untouched).unwrap().modified().unwrap();
    for file in ["outcome.json", "backbone.safetensors", "checkpoints/step-00000008.safetensors"] {
        std::fs::remove_file(cut.join(file)).unwrap();
    }
    let ran = folder.run(words("sweep small.toml")).ended_with(0);
    let said = ran.stdout + &ran.stderr;
    assert!(said.contains("resumed at step 6") && said.matches("run 3 of 4").count() == 1, "{said}");
    assert_eq!(said.matches(" of 4: ").count(), 1, "{said}");
    assert!(tensors(&cut.join("backbone.safetensors")) == whole, "resumed weights differ");
    assert_eq!(std::fs::metadata(&untouched).unwrap().modified().unwrap(), before);
    // Runs of another recipe in the same folder are not mixed up with these.
    let refused = folder.run(words("sweep small.toml --epochs 2")).refusal();
    assert!(refused.contains("trainer.epochs (the run has 1, now 2); choose another --out"), "{refused}");
}

/// A run that a monitor or a number stops is an outcome, and the sweep goes on.
#[test]
fn a_stopped_run_is_an_outcome() {
    let folder = Folder::new();
    let text = FILE.replace("seeds = [0, 1]", "").replace("method.temperature = [0.1, 0.5]", "optim.lr = [1e30, 0.1]");
    std::fs::write(folder.path("small.toml"), text.split("[plot]").next().unwrap()).unwrap();
    let said = folder.run(words("sweep small.toml --out here")).ended_with(0).stdout;
    assert!(said.contains("stopped at step"), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&bytes(&folder.path("here/sweep.json"))).unwrap();
    assert_eq!(json["rows"][0]["remark"], "stopped");
    assert!(json["rows"][1]["mean"].is_number());
    // It is not tried again.
    let listed = folder.run(words("sweep small.toml --out here --dry-run")).ended_with(0).stdout;
    assert!(listed.contains("0 of 2 runs to make"), "{listed}");
}

#[test]
fn bad_sweeps_are_refused_with_a_sentence() {
    let folder = folder();
    assert!(folder.run(["sweep", "none.toml"]).refusal().contains("neither a file nor one of simsiam_ablations"));
    std::fs::write(folder.path("bad.toml"), FILE.replace("temperature", "temperatur")).unwrap();
    let refused = folder.run(["sweep", "bad.toml"]).refusal();
    assert!(refused.contains("temperatur"), "{refused}");
    assert!(folder.run(words("sweep small.toml --seeds 1,1")).refusal().contains("--seeds has 1 twice"));
}
