//! Packing as a user does it, and a run that is fed from the file.

use std::path::Path;

use diptych_tests::{Folder, tensors, words};

use crate::with;

/// A short run on `data`.
fn run(data: &str, out: &str) -> Vec<String> {
    let args = "train --epochs 2 --batch-size 8 --set data.image_size=16 --set backbone.name=resnet_tiny \
         --set method.projector=[16,8] --set data.workers=1 --set trainer.checkpoint_every=2";
    with(words(args), &format!("--data {data} --out {out}"))
}

fn weights(folder: &Folder, run: &str) -> Vec<(String, String, Vec<u8>)> {
    tensors(&folder.path(Path::new(run).join("backbone.safetensors")))
}

#[test]
fn a_run_on_a_pack_equals_one_on_its_source_and_resumes() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 40 --test-size 12")).ended_with(0);
    let packed = folder.run(words("pack --data images --out images.pack --format raw --short-side 0")).ended_with(0);
    assert!(
        packed.stdout.contains("images.pack: 52 images (0 shrunk, 0 JPEG files as they were), "),
        "{}",
        packed.stdout
    );
    folder.run(run("images", "source")).ended_with(0);
    folder.run(run("images.pack", "whole")).ended_with(0);
    assert_eq!(weights(&folder, "source"), weights(&folder, "whole"));

    // 5 steps an epoch: the run is taken up in the middle of the second.
    let cut = |out: &str| {
        std::fs::create_dir_all(folder.path(out).join("checkpoints")).unwrap();
        for file in ["recipe.toml", "metrics.jsonl", "checkpoints/step-00000008.safetensors"] {
            std::fs::copy(folder.path("whole").join(file), folder.path(out).join(file)).unwrap();
        }
    };
    cut("parts");
    folder.run(words("train --resume --out parts --set data.workers=2")).ended_with(0);
    assert_eq!(weights(&folder, "whole"), weights(&folder, "parts"));
    // Other pixels under the same name are other data.
    folder.run(words("pack --data images --out images.pack --short-side 20 --force")).ended_with(0);
    cut("other");
    let error = folder.run(words("train --resume --out other")).refusal();
    assert!(error.contains("another list of images"), "{error}");
}

#[test]
fn what_is_wrong_with_a_pack_is_said_in_one_line() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 20 --test-size 8")).ended_with(0);
    folder.run(words("pack --data images --out images.pack")).ended_with(0);
    let error = folder.run(words("pack --data images --out images.pack")).refusal();
    assert!(error.contains("images.pack is there already: give another name, or --force to replace it"), "{error}");
    let error = folder.run(words("pack --data nowhere --out other.pack")).refusal();
    assert!(error.contains("data nowhere does not exist"), "{error}");
    let bytes = std::fs::read(folder.path("images.pack")).unwrap();
    std::fs::write(folder.path("images.pack"), &bytes[..bytes.len() / 2]).unwrap();
    let error = folder.run(run("images.pack", "run")).refusal();
    assert!(error.contains("it was cut off or is not whole yet; copy it again, or pack the images again"), "{error}");
}
