//! A run from beginning to end, and what it leaves behind.

use diptych_tests::{Folder, metrics, tensors};

use crate::{STEPS, tiny, whole, with};

#[test]
fn a_run_leaves_everything_in_its_folder() {
    let run = whole();
    for file in ["recipe.toml", "metrics.jsonl", "backbone.safetensors", "report.html"] {
        assert!(run.join(file).metadata().is_ok_and(|file| file.len() > 0), "{file} is missing or empty");
    }
    let last = format!("step-{STEPS:08}.safetensors");
    assert!(run.join("checkpoints").join(&last).is_file(), "no {last}");
    let events = std::fs::read_dir(run.join("events")).unwrap().count();
    assert_eq!(events, 1, "one TensorBoard file");
}

#[test]
fn metrics_have_a_row_for_each_step_and_each_evaluation() {
    let rows = metrics(&whole().join("metrics.jsonl"));
    let steps: Vec<u64> =
        rows.iter().filter(|row| row["loss"].is_number()).map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>());
    let losses: Vec<f64> = rows.iter().filter_map(|row| row["loss"].as_f64()).collect();
    // The ceiling of NT-Xent over 2N = 16 views is log 15 when all embeddings are one, plus what opposite ones can add.
    assert!(losses.iter().all(|loss| *loss > 0.0 && *loss < 15f64.ln() + 10.0), "{losses:?}");
    for key in ["lr", "images_per_second", "views_per_second", "data_wait_share", "embedding_std"] {
        assert!(rows.iter().any(|row| row[key].is_number()), "no row has {key}");
    }
    let knn: Vec<f64> = rows.iter().filter_map(|row| row["knn_top1"].as_f64()).collect();
    assert!(knn.len() >= 2 && knn.iter().all(|share| (0.0..=1.0).contains(share)), "{knn:?}");
}

#[test]
fn the_merged_recipe_makes_the_same_run_again() {
    let folder = Folder::new();
    let recipe = whole().join("recipe.toml");
    let recipe = recipe.to_str().unwrap();
    folder.run(["train", recipe, "--out", "again", "--quiet"]).ended_with(0);
    assert_eq!(tensors(&folder.path("again/backbone.safetensors")), tensors(&whole().join("backbone.safetensors")));
}

#[test]
fn another_seed_makes_another_run() {
    let folder = Folder::new();
    folder.run(with(tiny("run"), "--seed 8")).ended_with(0);
    assert_ne!(tensors(&folder.path("run/backbone.safetensors")), tensors(&whole().join("backbone.safetensors")));
}

#[test]
fn the_report_is_one_file_without_a_network() {
    let report = std::fs::read_to_string(whole().join("report.html")).unwrap();
    assert!(report.len() < 5_000_000, "{} bytes", report.len());
    assert!(report.contains("<svg") && report.contains("simclr"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import", "stylesheet\"", "<script src"] {
        assert!(!report.contains(outside), "the report asks for {outside}");
    }
}

#[test]
fn pictures_stay_out_of_the_report_on_request() {
    let folder = Folder::new();
    folder.run(with(tiny("run"), "--epochs 1 --set report.images=false")).ended_with(0);
    let pictures = |report: String| report.matches("data:image").count();
    assert_eq!(pictures(std::fs::read_to_string(folder.path("run/report.html")).unwrap()), 0);
    assert!(pictures(std::fs::read_to_string(whole().join("report.html")).unwrap()) > 0);
}

#[test]
fn quiet_says_nothing() {
    let folder = Folder::new();
    let ran = folder.run(with(tiny("run"), "--epochs 1 --quiet")).ended_with(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let folder = Folder::new();
    let ran = folder.run(with(tiny("run"), "--dry-run")).ended_with(0);
    for part in ["[optim]", "temperature", "64", "run"] {
        assert!(ran.stdout.contains(part), "the plan lacks {part}:\n{}", ran.stdout);
    }
    assert!(!folder.path("run").exists(), "a dry run made the folder");
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 0);
}

#[test]
fn barlow_twins_trains_too() {
    let folder = Folder::new();
    let args: Vec<String> = tiny("run").into_iter().map(|arg| arg.replace("simclr", "barlow_twins")).collect();
    folder.run(with(args, "--epochs 1")).ended_with(0);
    let rows = metrics(&folder.path("run/metrics.jsonl"));
    assert!(rows.iter().any(|row| row["loss_redundancy"].is_number()), "{:?}", rows.last());
}

#[test]
fn the_default_folder_is_the_next_free_one() {
    let folder = Folder::new();
    let mut args = with(tiny(""), "--epochs 1 --quiet");
    let out = args.iter().position(|arg| arg == "--out").unwrap();
    args.drain(out..out + 2);
    for k in 1..=2 {
        folder.run(&args).ended_with(0);
        assert!(folder.path(format!("runs/simclr-quickstart-{k}/recipe.toml")).is_file());
    }
}

#[test]
fn weights_of_another_run_are_where_this_one_starts() {
    let folder = Folder::new();
    let weights = whole().join("backbone.safetensors");
    let start = format!("--set backbone.weights={} --epochs 1 --set optim.lr=1e-30", weights.display());
    folder.run(with(tiny("run"), &start)).ended_with(0);
    let trained = |path| -> Vec<_> {
        let running = |name: &str| name.contains("running_") || name.contains("num_batches");
        tensors(path).into_iter().filter(|(name, ..)| !running(name)).collect()
    };
    // With next to no learning rate, what it ends with is what it began with, but for running statistics.
    assert_eq!(trained(&folder.path("run/backbone.safetensors")), trained(&weights));
}
