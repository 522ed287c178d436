//! The example programs, run small: each says what its page says it does.

use std::path::PathBuf;
use std::process::Command;

use diptych_tests::{Folder, Ran, binary, tensors, words};

/// Runs an example in `folder`.
///
/// # Panics
/// If it has not been built.
fn example(folder: &Folder, name: &str, args: &str) -> Ran {
    let built: PathBuf = binary().with_file_name("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(built.is_file(), "{} is not there: run `cargo build -p diptych --examples` first", built.display());
    let mut command = Command::new(built);
    command.args(words(args)).current_dir(folder.path("")).env("RAYON_NUM_THREADS", "1");
    Ran::of(command.output().unwrap()).ended_with(0)
}

/// The percentage at the end of the line that begins so.
fn percent(ran: &Ran, begin: &str) -> f64 {
    let line = ran.stdout.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{}", ran.stdout));
    line.trim_end_matches(" %")
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_folder_is_embedded() {
    let folder = Folder::new();
    folder.run(words("draw --out images --train-size 20 --flat")).ended_with(0);
    let weights = crate::whole();
    let ran = example(&folder, "embed_folder", &format!("images {} out.safetensors", weights.display()));
    // Four fifths: the rest is held out.
    assert!(ran.stdout.starts_with("16 images, "), "{}", ran.stdout);
    let all = tensors(&folder.path("out.safetensors"));
    assert!(all.len() == 1 && all[0].1.starts_with("F32 [16, "), "{}", all[0].1);
    let plain = example(&folder, "embed_folder", "");
    assert!(plain.stdout.starts_with("1000 images, "), "{}", plain.stdout);
}

#[test]
fn neighbors_are_listed_with_their_classes() {
    let folder = Folder::new();
    let ran = example(&folder, "nearest_neighbors", "");
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("  ")).count(), 15, "{}", ran.stdout);
    let line = ran.stdout.lines().last().unwrap();
    let share: f64 = line.split(' ').next().unwrap().parse().unwrap();
    // Ten classes: chance is 10 %.
    assert!(share > 12.0 && line.ends_with("have the image's class"), "{line}");
    let trained = example(&folder, "nearest_neighbors", &format!("synthetic {}", crate::whole().display()));
    assert!(trained.stdout.contains("have the image's class"), "{}", trained.stdout);
}

#[test]
fn methods_and_data_sets_of_ones_own_work() {
    let folder = Folder::new();
    let ran = example(&folder, "custom_method", "3");
    for begin in ["20-NN accuracy before training:", "20-NN accuracy after 3 steps:"] {
        assert!((0.0..=100.0).contains(&percent(&ran, begin)), "{}", ran.stdout);
    }
    let loss = ran.stdout.lines().find_map(|line| line.strip_prefix("step 0: loss ")).unwrap();
    assert!((-4.0..4.0).contains(&loss.parse::<f64>().unwrap()), "{loss}");
    let ran = example(&folder, "custom_dataset", "200");
    assert!(ran.stdout.starts_with("2 views of shape [16, 32, 32, 3]"), "{}", ran.stdout);
    // Four directions: chance is 25 %. Colors and phases hide them from pixels, less so from filters.
    assert!(percent(&ran, "20-NN accuracy of a random network:") > 25.0, "{}", ran.stdout);
}

#[test]
fn a_probe_learns_more_than_chance() {
    let folder = Folder::new();
    let ran = example(&folder, "linear_probe", "200");
    // Ten classes: chance is 10 %.
    let top1 = |begin: &str| -> f64 {
        let line =
            ran.stdout.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_else(|| panic!("{}", ran.stdout));
        line.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    assert!((0.0..=100.0).contains(&top1("pixels: linear top1: ")), "{}", ran.stdout);
    assert!(top1("a random network: linear top1: ") > 15.0, "{}", ran.stdout);
}

/// Under both losses two views of an image become more alike than two images.
#[test]
fn the_losses_train_a_plain_model() {
    let ran = example(&Folder::new(), "losses_alone", "60");
    for name in ["NT-Xent", "Barlow Twins"] {
        let begin = format!("{name}: cosine of two views of one image ");
        let line =
            ran.stdout.lines().find_map(|line| line.strip_prefix(&begin)).unwrap_or_else(|| panic!("{}", ran.stdout));
        let (one, two) = line.split_once(", of two images ").unwrap();
        let [one, two] = [one, two].map(|number| number.parse::<f64>().unwrap());
        assert!(one > two + 0.1, "{line}");
    }
}
