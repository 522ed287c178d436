//! Fine-tuning of a finished run's backbone: labels, projector, what is written, and what is refused.

use diptych_tests::{Folder, tensors, words};
use serde_json::Value;

use crate::whole;

fn on_the_run(line: &str) -> Vec<String> {
    let mut args = words(line);
    args.extend(["--weights".into(), whole().to_str().unwrap().into()]);
    args
}

/// Two seeds, a share of the labels, both epochs told; the same command gives the same numbers.
#[test]
fn a_share_of_the_labels_is_learned_from() {
    let folder = Folder::new();
    let line = "eval finetune --seeds 2 --set finetune.labels=0.5 --set finetune.epochs=2 --set finetune.batch_size=16";
    let read = |file: &str| -> Value {
        let ran = folder.run(on_the_run(&format!("{line} --json {file}"))).ended_with(0);
        assert!(ran.stderr.contains("epoch 2/2") && ran.stderr.contains("test top-1"), "{}", ran.stderr);
        serde_json::from_str(&std::fs::read_to_string(folder.path(file)).unwrap()).unwrap()
    };
    let result = read("a.json");
    assert_eq!((&result["protocol"], &result["n"], &result["seeds"]), (&"finetune".into(), &32.into(), &2.into()));
    let text = result["words"].as_str().unwrap();
    assert!(text.contains("labeled images of 64") && text.contains("last epoch"), "{text}");
    assert!(result["best_epoch"]["value"].as_f64() >= result["value"].as_f64(), "{result}");
    assert!(result["top5"].as_f64() >= result["top1"].as_f64(), "{result}");
    assert_eq!(result, read("b.json"));
}

/// A published recipe from the projector's first layer, on images that a list names; the file holds trunk, projector and classifier.
#[test]
fn a_recipe_a_list_and_a_projector_layer() {
    let folder = Folder::new();
    let list: String = (0..40).map(|i| format!("train/{i:06}\n")).collect();
    std::fs::write(folder.path("list.txt"), list).unwrap();
    let line = "eval finetune simclr_1pct --set finetune.epochs=1 --labels list.txt --save tuned.safetensors";
    let ran = folder.run(on_the_run(line)).ended_with(0);
    assert!(ran.stdout.contains("projector's layer 1 on 40 labeled images of 40"), "{}", ran.stdout);
    let all = tensors(&folder.path("tuned.safetensors"));
    let kind = |name: &str| all.iter().find(|(other, ..)| other == name).map(|(_, kind, _)| kind.clone());
    assert!(kind("layer1.0.conv1.weight").is_some() && kind("fc.1.running_mean").is_some());
    assert_eq!(kind("fc.3.weight").as_deref(), Some("F32 [10, 16]"));
    assert!(all.iter().all(|(name, ..)| !name.contains("projector")));
    // What was written is a backbone that every command opens.
    let line = format!(
        "eval knn --data synthetic --train-size 64 --test-size 16 --weights {} --image-size 32",
        "tuned.safetensors"
    );
    folder.run(words(&line)).ended_with(0);
}

#[test]
fn what_cannot_be_fine_tuned_is_said() {
    let folder = Folder::new();
    std::fs::write(folder.path("other.txt"), "nobody/1.jpg\n").unwrap();
    std::fs::write(folder.path("few.txt"), "train/000000\ntrain/000001\n").unwrap();
    for (more, said) in [
        ("--set finetune.labels=0", "finetune.labels is the share"),
        ("--set finetune.labels=2.0", "above 0 and at most 1"),
        ("--set finetune.labels=nan", "finetune.labels"),
        ("--set finetune.from=\"projector.9\"", "the projector has 2 layers, not 9"),
        ("--set finetune.from=\"head\"", "projector.1"),
        ("--set finetune.trunk_lr=-1", "finetune.trunk_lr must be positive"),
        ("--set finetune.batch_size=1", "finetune.batch_size must be at least 2"),
        ("--set finetune.schedule=\"step\"", "finetune.milestones"),
        ("--labels other.txt", "no training image"),
        ("--labels few.txt", "have none, such as"),
        ("--labels nowhere.txt", "nowhere.txt"),
        ("--baseline pixels", "--baseline random"),
    ] {
        let ran = folder.run(on_the_run(&format!("eval finetune {more}"))).ended_with(2);
        let errors: Vec<&str> = ran.stderr.lines().collect();
        assert!(
            errors.len() == 1 && errors[0].starts_with("error: ") && errors[0].contains(said),
            "{more}: {errors:?}"
        );
    }
    let file = whole().join("backbone.safetensors");
    let line = format!("eval finetune simclr_1pct --data synthetic --image-size 32 --weights {}", file.display());
    let sentence = folder.run(words(&line)).refusal();
    assert!(sentence.contains("holds a backbone and no projector"), "{sentence}");
}
