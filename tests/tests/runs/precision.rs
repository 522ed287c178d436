//! Runs in each precision, on each number of threads.

use diptych_tests::{Folder, metrics, tensors};

use crate::{tiny, with};

/// A short training: 8 steps, wide enough for a kernel to share out its work, with a shape that has every kind of convolution.
const SHORT: &str = "--epochs 1 --batch-size 8 --set data.train_size=64 --set augment.size=32 \
                     --set backbone.name=resnet18 --set backbone.base=16 --set method.projector=[64,32]";

#[test]
fn the_number_of_threads_changes_no_weight() {
    for precision in ["f32", "bf16"] {
        let run = |threads: &str| {
            let folder = Folder::new();
            folder
                .run(with(tiny("run"), &format!("{SHORT} --precision {precision} --threads {threads}")))
                .ended_with(0);
            let losses: Vec<f64> =
                metrics(&folder.path("run/metrics.jsonl")).iter().filter_map(|row| row["loss"].as_f64()).collect();
            assert_eq!(losses.len(), 8);
            (losses, tensors(&folder.path("run/checkpoints/step-00000008.safetensors")))
        };
        assert_eq!(run("1"), run("2"), "{precision}");
    }
}

/// The master weights stay f32, and so does everything a run leaves behind; the numbers are near those of f32 and not the same.
#[test]
fn a_bf16_run_is_near_an_f32_run() {
    let run = |precision: &str| {
        let folder = Folder::new();
        folder.run(with(tiny("run"), &format!("{SHORT} --precision {precision}"))).ended_with(0);
        let rows = metrics(&folder.path("run/metrics.jsonl"));
        let losses: Vec<f64> = rows.iter().filter_map(|row| row["loss"].as_f64()).collect();
        let tensors = tensors(&folder.path("run/backbone.safetensors"));
        assert!(tensors.iter().all(|(_, kind, _)| !kind.contains("BF16")), "{precision}");
        losses
    };
    let (f32, bf16) = (run("f32"), run("bf16"));
    assert_ne!(f32, bf16);
    assert!((f32[0] - bf16[0]).abs() < 0.02 * f32[0].abs(), "{} {}", f32[0], bf16[0]);
}
