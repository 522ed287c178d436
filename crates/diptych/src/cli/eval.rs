//! `eval`: how good a backbone's features are, by the papers' protocols.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use diptych::data::{OpenOptions, Splits, open};
use diptych::eval::{
    EvalResult, Features, estimate_statistics, features, knn_result, linear_probe, logistic_regression, pixels,
};
use diptych::trainer::{BadInput, OrBadInput};
use diptych::weights;

use super::{WeightsArgs, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// 20 nearest neighbors by cosine similarity, weighted by exp(s / 0.07).
    Knn(Common),
    /// A linear classifier on frozen features; the learning rate is chosen on a tenth of the training images.
    Linear(Common),
    /// Logistic regression by L-BFGS on frozen features; one of 45 L2 penalties is chosen on a fifth of the training images (SimCLR's and BYOL's transfer
    /// protocol).
    Logistic(Common),
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    weights: WeightsArgs,
    /// Labeled images; the training split is the bank. [default: the run's data]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Test images given apart.
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// Repetitions: of the probe, or of the random baseline.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// Instead of the weights: `random` weights in the same backbone (statistics estimated on the training images), or raw
    /// `pixels`.
    #[arg(long, value_name = "B")]
    baseline: Option<String>,
    /// Use this many training images.
    #[arg(long, value_name = "N")]
    train_size: Option<usize>,
    /// Use this many test images.
    #[arg(long, value_name = "N")]
    test_size: Option<usize>,
    /// Write the result here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Fits a classifier on the first features and judges it on the second: their number of classes, and a seed.
type Classifier = fn(&Features, &Features, usize, u64) -> Result<EvalResult>;

pub(crate) fn run(args: Args) -> Result<()> {
    let (classifier, common): (Option<Classifier>, Common) = match args.protocol {
        Protocol::Knn(common) => (None, common),
        Protocol::Linear(common) => (Some(linear_probe), common),
        Protocol::Logistic(common) => (Some(logistic_regression), common),
    };
    if common.seeds == 0 {
        return Err(BadInput("--seeds must be at least 1".into()).into());
    }
    let weights = match common.baseline {
        None => common.weights.open()?,
        Some(_) => weights::build(&common.weights.source(), 0)?,
    };
    let (path, splits) = data(&common, &weights)?;
    let Some(test) = &splits.test else {
        return Err(BadInput(format!("{path} has no test images; give them with --test")).into());
    };
    if !splits.labeled() {
        return Err(BadInput(format!("{path} has no labels: an evaluation needs class folders, one per class")).into());
    }
    splits.notes.iter().for_each(say);
    let transform = &weights.transform;
    let mut results = Vec::new();
    let sets: Vec<(Features, Features)> = match common.baseline.as_deref() {
        None => {
            let backbone = weights.backbone.as_ref();
            vec![(features(backbone, splits.bank(), transform)?, features(backbone, test, transform)?)]
        }
        Some("pixels") => vec![(pixels(splits.bank(), transform)?, pixels(test, transform)?)],
        Some("random") => {
            let mut sets = Vec::new();
            for seed in 0..common.seeds {
                let random = weights::build(&common.weights.source(), seed)?;
                let backbone = random.backbone.as_ref();
                estimate_statistics(backbone, splits.bank(), transform)?;
                sets.push((features(backbone, splits.bank(), transform)?, features(backbone, test, transform)?));
            }
            sets
        }
        Some(other) => return Err(BadInput(format!("--baseline {other} is not one of random, pixels")).into()),
    };
    let classes = splits.bank().classes().len();
    for (train, test) in &sets {
        match classifier {
            None => results.push(knn_result(train, test, 20, 0.07)?),
            Some(fit) if common.baseline.as_deref() == Some("random") => results.push(fit(train, test, classes, 0)?),
            Some(fit) => {
                for seed in 0..common.seeds {
                    results.push(fit(train, test, classes, seed)?);
                }
            }
        }
    }
    let name = match common.baseline.as_deref() {
        Some(baseline) => baseline.to_string(),
        None => common.weights.weights.clone(),
    };
    let result = EvalResult::over_seeds(results, &name, &path)?;
    say(&result);
    if let Some(file) = &common.json {
        let text = serde_json::to_string_pretty(&result)? + "\n";
        std::fs::write(file, text).with_context(|| format!("{} can't be written", file.display())).or_bad_input()?;
    }
    Ok(())
}

/// The images to evaluate on: as told, or those of the run.
fn data(common: &Common, weights: &weights::Weights) -> Result<(String, Splits)> {
    let kept = weights.data.as_ref();
    let Some(path) = common.data.clone().or_else(|| kept.map(|data| data.path.clone().into())) else {
        return Err(BadInput("--data is needed: a folder with one folder per class, or a known format".into()).into());
    };
    let same = kept.filter(|data| common.data.as_ref().is_none_or(|given| given.as_os_str() == data.path.as_str()));
    let size = |n: usize| (n > 0).then_some(n);
    let options = OpenOptions {
        test: common.test.clone().or_else(|| same.filter(|d| !d.test.is_empty()).map(|d| d.test.clone().into())),
        train_size: common.train_size.or_else(|| same.and_then(|d| size(d.train_size))),
        test_size: common.test_size.or_else(|| same.and_then(|d| size(d.test_size))),
        image_size: same.map_or(weights.transform.size, |data| data.image_size),
        channels: weights.channels(),
        ..OpenOptions::default()
    };
    Ok((path.display().to_string(), open(&path, &options).or_bad_input()?))
}
