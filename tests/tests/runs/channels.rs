//! Images that are not 8-bit RGB, from the file to the export.

use std::path::Path;

use diptych_random::Stream;
use diptych_tests::{Folder, tensors, words};

use crate::with;

/// 48 pictures of 20x20 in five channels of 16 bits, as NumPy saves them, with two labels.
fn array(folder: &Folder) {
    let header = |kind: &str, shape: &str| {
        let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.into_bytes());
        bytes
    };
    let mut stream = Stream::keyed(1, &[]);
    let mut images = header("<u2", "(48, 20, 20, 5)");
    for i in 0..48 * 20 * 20 * 5 {
        let bright = if i / (20 * 20 * 5) % 2 == 0 { 3000.0 } else { 9000.0 };
        images.extend(((bright + 2000.0 * stream.uniform()) as u16).to_le_bytes());
    }
    std::fs::write(folder.path("bands.npy"), images).unwrap();
    let mut labels = header("|u1", "(48,)");
    labels.extend((0..48).map(|i| i as u8 % 2));
    std::fs::write(folder.path("bands.labels.npy"), labels).unwrap();
}

fn run(out: &str) -> Vec<String> {
    let mut args = words(
        "train --data bands.npy --epochs 2 --batch-size 8 --set data.image_size=16 --set backbone.name=resnet_tiny \
             --set method.projector=[16,8] --set data.workers=1 --set trainer.checkpoint_every=2 --out",
    );
    args.push(out.into());
    args
}

fn weights(folder: &Folder, run: &str) -> Vec<(String, String, Vec<u8>)> {
    tensors(&folder.path(Path::new(run).join("backbone.safetensors")))
}

#[test]
fn five_channels_train_evaluate_and_leave() {
    let folder = Folder::new();
    array(&folder);
    folder.run(run("run")).ended_with(0);
    let recipe = std::fs::read_to_string(folder.path("run/recipe.toml")).unwrap();
    let table: toml::Table = toml::from_str(&recipe).unwrap();
    assert_eq!(table["augment"]["mean"].as_array().map(Vec::len), Some(5), "{recipe}");
    assert_eq!(table["backbone"]["channels"].as_integer(), Some(5), "{recipe}");
    let first = weights(&folder, "run").into_iter().find(|(name, ..)| name == "conv1.weight").unwrap();
    assert!(first.1.ends_with(", 5, 3, 3]"), "{}", first.1);

    let evaluated = folder.run(words("eval knn --weights run --data bands.npy")).ended_with(0);
    assert!(evaluated.stdout.contains("knn top1"), "{}", evaluated.stdout);
    let exported = folder.run(words("export --weights run --format torchvision --out out.safetensors")).ended_with(0);
    assert!(exported.stdout.contains("torch.nn.Conv2d(5, 16, 3"), "{}", exported.stdout);
    folder.run(words("embed --weights out.safetensors --data bands.npy --out features.npy")).ended_with(0);
    let report = std::fs::read_to_string(folder.path("run/report.html")).unwrap();
    assert!(report.contains("data:image/"), "the report shows pictures of five channels");
    // Weights for five channels, data of three.
    folder.run(words("draw --out rgb --train-size 20 --flat")).ended_with(0);
    let error = folder.run(words("eval knn --weights out.safetensors --data rgb")).refusal();
    assert!(error.contains("data.channels = 5, but image"), "{error}");
}

/// What was measured is in the run's recipe: the continuation does not measure again, and ends with the same weights.
#[test]
fn a_resumed_run_of_five_channels_equals_an_unbroken_one() {
    let folder = Folder::new();
    array(&folder);
    folder.run(run("whole")).ended_with(0);
    // 38 images in batches of 8, twice: 8 steps, of which the last two are made again, in the middle of an epoch.
    std::fs::create_dir_all(folder.path("parts/checkpoints")).unwrap();
    for file in ["recipe.toml", "metrics.jsonl", "checkpoints/step-00000006.safetensors"] {
        std::fs::copy(folder.path("whole").join(file), folder.path("parts").join(file)).unwrap();
    }
    let ran = folder.run(words("train --resume --out parts --set data.workers=3")).ended_with(0);
    assert!(ran.stdout.contains("resumed at step 6") || ran.stderr.contains("resumed at step 6"), "{ran:?}");
    assert_eq!(weights(&folder, "whole"), weights(&folder, "parts"));
}

#[test]
fn recipes_for_color_are_refused_for_other_channels() {
    let folder = Folder::new();
    array(&folder);
    let line = |more: &str| format!("train simclr/images --data bands.npy --out run --dry-run {more}");
    let error = folder.run(words(&line(""))).refusal();
    assert!(error.contains("augment.mean has 3 numbers, the images have 5 channels of 16 bits"), "{error}");
    let error = folder.run(words(&line("--set augment.mean=[] --set augment.std=[]"))).refusal();
    assert!(error.contains("augment.saturation is for 8-bit RGB"), "{error}");
    let error = folder.run(words(&line("--set data.channels=four"))).refusal();
    assert!(error.contains("expected \"auto\", \"rgb\" or a number of channels, 1 to 16"), "{error}");
    let error = folder.run(words("stats --data bands.npy --channels 4")).refusal();
    assert_eq!(error, "error: data.channels = 4, but the images have 5 channels of 16 bits");
    let ran = folder.run(words("stats --data bands.npy --json stats.json")).ended_with(0);
    assert!(ran.stdout.contains("5 channels of 16 bits, 20 x 20 pixels"), "{}", ran.stdout);
    let stats: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path("stats.json")).unwrap()).unwrap();
    let mean = stats["mean"][0].as_f64().unwrap();
    assert!((mean - 7000.0 / 65535.0).abs() < 0.01, "{stats}");
}

/// Weights of three channels go into a backbone of five only when that is asked for.
#[test]
fn weights_for_three_channels_are_adapted_on_request() {
    let folder = Folder::new();
    array(&folder);
    let three = crate::whole().join("backbone.safetensors");
    let start = format!("--set backbone.name=resnet_tiny --set backbone.weights={}", three.display());
    let error = folder.run(with(run("run"), &start)).refusal();
    assert!(error.contains("it is for images of 3 channels; backbone.adapt_weights = true"), "{error}");
    folder.run(with(run("run"), &format!("{start} --set backbone.adapt_weights=true --dry-run"))).ended_with(0);
}

#[test]
fn classes_are_balanced_and_subsets_named() {
    let folder = Folder::new();
    array(&folder);
    folder.run(with(run("run"), "--set data.sampling=balanced --dry-run")).ended_with(0);
    std::fs::write(folder.path("list.txt"), (0..20).map(|i| format!("bands.npy[{i}]\n")).collect::<String>()).unwrap();
    let listed = folder.run(with(run("run"), "--set data.subset=list.txt --dry-run")).ended_with(0);
    assert!(listed.stdout.contains("20 of 48 training images are used, named by list.txt"), "{}", listed.stdout);
    folder.run(words("draw --out flat --train-size 20 --flat")).ended_with(0);
    let error = folder.run(words("train --data flat --set data.sampling=balanced --batch-size 8 --out run --dry-run"));
    let error = error.refusal();
    assert!(error.contains("data.sampling = \"balanced\" needs a label for every training image"), "{error}");
}
