//! One backbone on several data sets: class folders, a PASCAL VOC folder, and sets that fail.

use std::path::Path;

use diptych_tests::{Folder, words};
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::whole;

fn on_the_run(line: &str) -> Vec<String> {
    let mut args = words(line);
    args.extend(["--weights".into(), whole().to_str().unwrap().into()]);
    args
}

fn json(folder: &Folder, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path(file)).unwrap()).unwrap()
}

/// A VOC folder of 24 images each: red ones are cars, dark ones are cats, some are both, and of every fifth it is hard to say.
fn voc(root: &Path) {
    let lists = root.join("ImageSets/Main");
    std::fs::create_dir_all(&lists).unwrap();
    std::fs::create_dir_all(root.join("JPEGImages")).unwrap();
    for (split, from) in [("trainval", 0), ("test", 24)] {
        let (mut cars, mut cats) = (String::new(), String::new());
        for i in from..from + 24 {
            let (car, cat) = (i % 2 == 0, i % 3 == 0);
            let level = if cat { 60 } else { 240 };
            let color = Rgb([level, if car { 10 } else { level }, (i * 3) as u8]);
            RgbImage::from_pixel(20, 16, color).save(root.join(format!("JPEGImages/{i:06}.jpg"))).unwrap();
            let word = |shown: bool| {
                if i % 5 == 4 {
                    " 0"
                } else if shown {
                    " 1"
                } else {
                    "-1"
                }
            };
            cars += &format!("{i:06} {}\n", word(car));
            cats += &format!("{i:06} {}\n", word(cat));
        }
        std::fs::write(lists.join(format!("car_{split}.txt")), cars).unwrap();
        std::fs::write(lists.join(format!("cat_{split}.txt")), cats).unwrap();
    }
}

/// Each set gets its published metric; the one that is not there is named, the others go on, and the exit code is 2.
#[test]
fn sets_have_their_metrics_and_one_may_fail() {
    let folder = Folder::new();
    folder.run(words("draw --out flowers --train-size 60 --test-size 30")).ended_with(0);
    voc(&folder.path("VOC2007"));
    let line = "eval transfer simclr --data flowers --data VOC2007 --data nowhere --json all.json \
                --set transfer.logistic.penalties=[0.01,1.0]";
    let ran = folder.run(on_the_run(line)).ended_with(2);
    assert!(ran.stderr.contains("1 of 3 data sets failed: nowhere"), "{}", ran.stderr);
    assert!(ran.stderr.lines().count() == 1 && ran.stdout.contains("2 of 3 sets"), "{}\n{}", ran.stdout, ran.stderr);
    let all = json(&folder, "all.json");
    let of = |i: usize, key: &str| all[i][key].clone();
    assert_eq!((of(0, "data"), of(0, "metric"), of(0, "n")), ("flowers".into(), "mean_per_class".into(), 30.into()));
    assert_eq!((of(1, "data"), of(1, "metric"), of(1, "n")), ("VOC2007".into(), "voc07_map".into(), 24.into()));
    // Two colors are told apart even by a network that has hardly been trained.
    assert!(of(1, "value").as_f64().unwrap() > 0.7, "{all}");
    assert!(of(2, "error").as_str().unwrap().contains("does not exist"), "{all}");
    assert!((0.0..=1.0).contains(&of(0, "value").as_f64().unwrap()));
}

/// A list in a file: names, a test set apart, a metric and a protocol of one's own; several seeds.
#[test]
fn a_list_of_sets_with_protocols_of_their_own() {
    let folder = Folder::new();
    folder.run(words("draw --out a --train-size 60 --test-size 30")).ended_with(0);
    let list = r#"
        [transfer]
        protocol = "knn"
        k = 5

        [[transfer.sets]]
        name = "drawn"
        data = "a/train"
        test = "a/test"

        [[transfer.sets]]
        data = "a"
        metric = "mean_per_class"
        protocol = "finetune"

        [transfer.finetune]
        epochs = 1
        batch_size = 16
    "#;
    std::fs::write(folder.path("sets.toml"), list).unwrap();
    let ran = folder.run(on_the_run("eval transfer sets.toml --seeds 2 --json all.json")).ended_with(0);
    let all = json(&folder, "all.json");
    assert_eq!(
        (&all[0]["protocol"], &all[0]["metric"], &all[0]["data"]),
        (&"knn".into(), &"top1".into(), &"drawn".into())
    );
    assert_eq!((&all[1]["protocol"], &all[1]["metric"]), (&"finetune".into(), &"mean_per_class".into()));
    assert_eq!((&all[1]["seeds"], &all[0]["std"]), (&2.into(), &0.0.into()));
    let mean = (all[0]["value"].as_f64().unwrap() + all[1]["value"].as_f64().unwrap()) / 2.0;
    assert!(ran.stdout.contains(&format!("{:.2} %", 100.0 * mean)), "{mean}: {}", ran.stdout);
    // The same number as the protocol by itself.
    folder
        .run(on_the_run("eval transfer --protocol logistic --data a --test-size 20 --train-size 40 --json b.json"))
        .ended_with(0);
    folder.run(on_the_run("eval logistic --data a --test-size 20 --train-size 40 --json c.json")).ended_with(0);
    assert_eq!(json(&folder, "b.json")[0]["value"], json(&folder, "c.json")["value"]);
}

#[test]
fn what_cannot_be_judged_is_said() {
    let folder = Folder::new();
    voc(&folder.path("VOC2007"));
    folder.run(words("draw --out flat --train-size 10 --flat")).ended_with(0);
    std::fs::write(folder.path("odd.toml"), "[[transfer.sets]]\nname = \"x\"\n").unwrap();
    std::fs::write(folder.path("map.toml"), "[[transfer.sets]]\ndata = \"VOC2007\"\nmetric = \"top1\"\n").unwrap();
    for (more, said) in [
        ("", "no data set is named"),
        ("--data VOC2007 --protocol magic", "not one of logistic, linear, knn, finetune"),
        ("--data VOC2007 --protocol knn", "not by knn"),
        ("--data VOC2007 --protocol finetune", "not by finetune"),
        ("--data flat", "no labels"),
        ("odd.toml", "x has no data"),
        ("map.toml", "top1 is for images of one label"),
        ("--data VOC2007 --set transfer.metric=1", "unknown field"),
    ] {
        let sentence = folder.run(on_the_run(&format!("eval transfer {more}"))).refusal();
        assert!(sentence.contains(said), "{more}: {sentence}");
    }
    let sentence = folder.run(on_the_run("eval knn --data VOC2007")).refusal();
    assert!(sentence.contains("eval transfer --data VOC2007"), "{sentence}");
    // What has several labels is trained on as any folder is.
    let train = "train simclr/quickstart --data VOC2007 --epochs 1 --batch-size 8 --set augment.size=16 \
                 --set method.projector=[16,8] --set data.workers=1 --out run";
    folder.run(words(train)).ended_with(0);
}
