//! What the evaluations have in common: weights, labeled data, features of both, and how a result is told.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::data::{OpenOptions, Splits, open};
use diptych::eval::{EvalResult, Features, Frozen, estimate_statistics, pixels};
use diptych::protocols;
use diptych::trainer::{BadInput, OrBadInput};
use diptych::weights::{self, Weights};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::kept::CacheArgs;
use super::super::{WeightsArgs, say};

/// Weights, data, repetitions and where the result goes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) weights: WeightsArgs,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
    /// Labeled images; the training split is learned from. [default: the run's data]
    #[arg(long, value_name = "PATH")]
    pub(super) data: Option<PathBuf>,
    /// Test images given apart.
    #[arg(long, value_name = "PATH")]
    pub(super) test: Option<PathBuf>,
    /// Repetitions: of the classifier, or of the random baseline. Mean and standard deviation are told.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: u64,
    /// Instead of the weights: `random` weights in the same backbone (statistics estimated on the training images), or raw
    /// `pixels`.
    #[arg(long, value_name = "B")]
    pub(super) baseline: Option<String>,
    /// Use this many training images.
    #[arg(long, value_name = "N")]
    pub(super) train_size: Option<usize>,
    /// Use this many test images.
    #[arg(long, value_name = "N")]
    pub(super) test_size: Option<usize>,
    /// Write the result here, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

/// Which settings a protocol has.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// A published protocol by its name, or a TOML file. [default: the one that the help describes]
    #[arg(value_name = "RECIPE")]
    recipe: Option<String>,
    /// One setting, such as linear.epochs=50.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// The settings of `protocol`.
    pub(super) fn read<T: Serialize + DeserializeOwned + Default>(&self, protocol: &str) -> Result<T> {
        protocols::settings(protocol, self.recipe.as_deref(), &self.set)
    }
}

/// Weights, and the data to judge them on.
pub(super) struct Opened {
    pub(super) weights: Weights,
    /// The data as they were named.
    pub(super) path: String,
    pub(super) splits: Splits,
}

impl Opened {
    /// How many classes there are.
    pub(super) fn classes(&self) -> usize {
        self.splits.bank().classes().len()
    }
}

/// Features of training and test images.
pub(super) type Pair = (Features, Features);

impl Common {
    /// Opens weights and data: labeled, with a test split.
    pub(super) fn open(&self) -> Result<Opened> {
        self.open_among(None)
    }

    /// [`Self::open`], with the training images that the text file `list` names, if there is one.
    pub(super) fn open_among(&self, list: Option<PathBuf>) -> Result<Opened> {
        let opened = self.open_silently(list)?;
        let path = &opened.path;
        if opened.splits.test.is_none() {
            return Err(BadInput(format!("{path} has no test images; give them with --test")).into());
        }
        if opened.splits.multi_labeled() {
            let message =
                format!("{path} has images that show several things; eval transfer --data {path} judges them");
            return Err(BadInput(message).into());
        }
        if !opened.splits.labeled() {
            let message = format!("{path} has no labels: an evaluation needs class folders, one per class");
            return Err(BadInput(message).into());
        }
        opened.splits.notes.iter().for_each(say);
        Ok(opened)
    }

    /// Opens weights and data, with labels or without, with a test split or without.
    pub(super) fn open_any(&self) -> Result<Opened> {
        let opened = self.open_silently(None)?;
        opened.splits.notes.iter().for_each(say);
        Ok(opened)
    }

    fn open_silently(&self, list: Option<PathBuf>) -> Result<Opened> {
        let weights = match self.baseline {
            None => self.weights.open()?,
            Some(_) => weights::build(&self.weights.source(), 0)?,
        };
        let (path, splits) = self.splits_among(&weights, list)?;
        Ok(Opened { weights, path, splits })
    }

    /// The images to evaluate on: as told, or those of the run.
    fn splits_among(&self, weights: &Weights, list: Option<PathBuf>) -> Result<(String, Splits)> {
        let kept = weights.data.as_ref();
        let Some(path) = self.data.clone().or_else(|| kept.map(|data| data.path.clone().into())) else {
            let message = "--data is needed: a folder with one folder per class, or a known format";
            return Err(BadInput(message.into()).into());
        };
        let same = kept.filter(|data| self.data.as_ref().is_none_or(|given| given.as_os_str() == data.path.as_str()));
        let size = |n: usize| (n > 0).then_some(n);
        let options = OpenOptions {
            subset: list,
            test: self.test.clone().or_else(|| same.filter(|d| !d.test.is_empty()).map(|d| d.test.clone().into())),
            train_size: self.train_size.or_else(|| same.and_then(|d| size(d.train_size))),
            test_size: self.test_size.or_else(|| same.and_then(|d| size(d.test_size))),
            image_size: same.map_or(weights.transform.size, |data| data.image_size),
            channels: weights.channels(),
            ..OpenOptions::default()
        };
        Ok((path.display().to_string(), open(&path, &options).or_bad_input()?))
    }

    /// Whether features differ from seed to seed, since they are a random network's.
    pub(super) fn random(&self) -> bool {
        self.baseline.as_deref() == Some("random")
    }

    /// The features to judge: one pair, or one for each random network.
    pub(super) fn features(&self, opened: &Opened) -> Result<Vec<Pair>> {
        let (bank, transform) = (opened.splits.bank(), &opened.weights.transform);
        let Some(test) = &opened.splits.test else { return Ok(Vec::new()) };
        match self.baseline.as_deref() {
            None => {
                let frozen = Frozen::of(&opened.weights.params)?;
                let take = |part| self.cache.features(&opened.weights, part, transform);
                let pair = (take(bank)?, take(test)?);
                frozen.check(&opened.weights.params)?;
                Ok(vec![pair])
            }
            Some("pixels") => Ok(vec![(pixels(bank, transform)?, pixels(test, transform)?)]),
            Some("random") => (0..self.seeds)
                .map(|seed| {
                    let random = weights::build(&self.weights.source(), seed)?;
                    estimate_statistics(random.backbone.as_ref(), bank, transform)?;
                    let take = |part| self.cache.features(&random, part, transform);
                    Ok((take(bank)?, take(test)?))
                })
                .collect(),
            Some(other) => Err(BadInput(format!("--baseline {other} is not one of random, pixels")).into()),
        }
    }

    /// A result for each seed: `judge` sees the features and the seed.
    pub(super) fn over_seeds(
        &self,
        opened: &Opened,
        judge: impl Fn(&Features, &Features, u64) -> Result<EvalResult>,
    ) -> Result<Vec<EvalResult>> {
        let sets = self.features(opened)?;
        let mut results = Vec::new();
        for (train, test) in &sets {
            for seed in 0..if self.random() { 1 } else { self.seeds } {
                results.push(judge(train, test, seed)?);
            }
        }
        Ok(results)
    }

    /// Says the result over all seeds, and writes it where `--json` says.
    pub(super) fn tell(&self, opened: &Opened, results: Vec<EvalResult>) -> Result<()> {
        let name = self.baseline.clone().unwrap_or_else(|| self.weights.weights.clone());
        let result = EvalResult::over_seeds(results, &name, &opened.path)?;
        say(&result);
        self.write(&result)
    }

    /// Writes `result` where `--json` says.
    pub(super) fn write(&self, result: &impl Serialize) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(result)? + "\n";
        std::fs::write(file, text).with_context(|| format!("{} can't be written", file.display())).or_bad_input()
    }
}
