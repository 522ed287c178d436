//! Whole runs through the real binary, as a user starts them.

mod bad_images;
mod bad_input;
mod channels;
mod cluster;
#[cfg(unix)]
mod disk;
mod evaluate;
mod examples;
mod features;
mod finetune;
#[cfg(unix)]
mod kill;
mod packed;
mod precision;
mod ranks;
mod resume;
#[cfg(unix)]
mod signals;
mod sweep;
mod train;
mod transfer;
mod weights;

use std::path::PathBuf;
use std::sync::OnceLock;

use diptych_tests::{Folder, words};

/// Steps of [`tiny`]: 64 images in batches of 8, three times.
const STEPS: u64 = 24;

/// The arguments of a run that takes a second or two: 24 steps on small views of 64 drawn images, a checkpoint each 5 steps.
fn tiny(out: &str) -> Vec<String> {
    let mut args = words(
        "train simclr/quickstart --epochs 3 --batch-size 8 --seed 7 --set data.train_size=64 --set data.test_size=32 \
         --set data.image_size=32 --set augment.size=16 --set method.projector=[16,8] --set data.workers=1 \
         --set trainer.checkpoint_every=5 --set trainer.log_every=1 --set trainer.eval_every=2 --out",
    );
    args.push(out.into());
    args
}

/// `args` and what the words of `more` say; a flag with a value takes the place of the same flag before.
fn with(mut args: Vec<String>, more: &str) -> Vec<String> {
    let mut more = words(more).into_iter().peekable();
    while let Some(word) = more.next() {
        let value = if word.starts_with("--") { more.next_if(|next| !next.starts_with("--")) } else { None };
        let before = args.iter().position(|arg| *arg == word && word != "--set");
        match (value, before) {
            (Some(value), Some(before)) => args[before + 1] = value,
            (value, _) => args.extend([word].into_iter().chain(value)),
        }
    }
    args
}

/// A finished [`tiny`] run that nothing has broken, shared by the tests that look at one.
fn whole() -> PathBuf {
    static RUN: OnceLock<Folder> = OnceLock::new();
    let folder = RUN.get_or_init(|| {
        let folder = Folder::new();
        folder.run(tiny("run")).ended_with(0);
        folder
    });
    folder.path("run")
}
