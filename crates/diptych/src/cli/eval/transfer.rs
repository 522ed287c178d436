//! `eval transfer`: several data sets, each judged by its metric, and one table.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use diptych::data::{OpenOptions, open};
use diptych::eval::{EvalResult, Frozen, Transfer, TransferProtocol, TransferSet};
use diptych::trainer::{BadInput, OrBadInput};
use diptych::weights::Weights;
use serde::Serialize;

use super::super::kept::CacheArgs;
use super::super::{WeightsArgs, say};
use super::common::Settings;
use super::finetune::{Shown, network};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// A labeled data set; may be given again. Others stand in the recipe as [[transfer.sets]].
    #[arg(long, value_name = "PATH")]
    data: Vec<String>,
    /// How: logistic, linear, knn or finetune. [default: the recipe's, logistic]
    #[arg(long, value_name = "P")]
    protocol: Option<String>,
    /// Repetitions of each classifier. Mean and standard deviation are told.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Use this many training images of each set.
    #[arg(long, value_name = "N")]
    train_size: Option<usize>,
    /// Use this many test images of each set.
    #[arg(long, value_name = "N")]
    test_size: Option<usize>,
    /// Write the results here, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What came of one set.
#[derive(Serialize)]
#[serde(untagged)]
enum Told {
    Result(Box<EvalResult>),
    Failed { data: String, error: String },
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut transfer: Transfer = args.settings.read("transfer")?;
    if let Some(name) = &args.protocol {
        transfer.protocol = toml::Value::String(name.clone())
            .try_into()
            .map_err(|_| BadInput(format!("--protocol {name} is not one of logistic, linear, knn, finetune")))?;
    }
    transfer.finetune.check().or_bad_input()?;
    let given = args.data.iter().map(|data| TransferSet { data: data.clone(), ..TransferSet::default() });
    transfer.sets.extend(given);
    if let Some(set) = transfer.sets.iter().find(|set| set.data.is_empty()) {
        return Err(BadInput(format!("transfer.sets: {} has no data, the path of a data set", set.called())).into());
    }
    if transfer.sets.is_empty() {
        let message = "no data set is named: give --data, once for each, or a file with [[transfer.sets]]";
        return Err(BadInput(message.into()).into());
    }
    let weights = args.weights.open()?;
    let mut told = Vec::new();
    for set in &transfer.sets {
        match args.judge(&transfer, set, &weights) {
            Ok(result) => {
                say(&result);
                told.push(Told::Result(Box::new(result)));
            }
            Err(error) => {
                let error = format!("{error:#}").replace('\n', " ");
                say(format!("{} failed: {error}", set.called()));
                told.push(Told::Failed { data: set.called().into(), error });
            }
        }
    }
    table(&told);
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&told)? + "\n";
        std::fs::write(file, text).with_context(|| format!("{} can't be written", file.display())).or_bad_input()?;
    }
    let failed: Vec<String> = told
        .iter()
        .filter_map(|told| match told {
            Told::Failed { data, error } => Some(format!("{data} ({error})")),
            Told::Result(_) => None,
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(BadInput(format!("{} of {} data sets failed: {}", failed.len(), told.len(), failed.join("; "))).into())
}

impl Args {
    /// The result of one set, over all seeds.
    fn judge(&self, transfer: &Transfer, set: &TransferSet, weights: &Weights) -> Result<EvalResult> {
        let options = OpenOptions {
            test: (!set.test.is_empty()).then(|| PathBuf::from(&set.test)),
            train_size: self.train_size,
            test_size: self.test_size,
            image_size: weights.transform.size.max(32),
            channels: weights.channels(),
            ..OpenOptions::default()
        };
        let splits = open(Path::new(&set.data), &options)?;
        let Some(test) = &splits.test else { bail!("it has no test images; name them as `test` in the list of sets") };
        let data = (splits.bank(), test);
        let metric = transfer.metric(set, data)?;
        let protocol = set.protocol.unwrap_or(transfer.protocol);
        say(format!("{}: {} and {} images, {protocol}, {}", set.called(), data.0.len(), test.len(), metric.name()));
        let mut results = Vec::new();
        if protocol == TransferProtocol::Finetune {
            if splits.multi_labeled() {
                bail!("images that show several things are judged by logistic regressions, not by finetune")
            }
            let (mut network, about) = network(self.weights.open()?, &transfer.finetune, Some(&self.weights.weights))?;
            for seed in 0..self.seeds {
                let mut shown = Shown::new();
                let watch = &mut |told| shown.tell(told);
                let tuned = transfer.finetune.run(&mut network, data, &about.transform, seed, watch)?;
                results.push(transfer.tuned(metric, &tuned)?);
            }
        } else {
            // Taken once for all seeds.
            let frozen = Frozen::of(&weights.params)?;
            let of = |set| self.cache.features(weights, set, &weights.transform);
            let (learned, judged) = (of(data.0)?, of(data.1)?);
            frozen.check(&weights.params)?;
            for seed in 0..self.seeds {
                results.push(transfer.judge((protocol, metric), (&learned, &judged), data, seed)?);
            }
        }
        EvalResult::over_seeds(results, &self.weights.weights, set.called())
    }
}

/// A line for each set, and the mean of what was measured.
fn table(told: &[Told]) {
    let wide = told.iter().map(|told| told.name().len()).max().unwrap_or(0).max("data set".len());
    say(format!("\n{:wide$}  {:14}  {:>16}  {:>8}", "data set", "metric", "value", "images"));
    let mut values = Vec::new();
    for one in told {
        match one {
            Told::Result(result) => {
                let std = result.std.map_or(String::new(), |std| format!(" +- {:.2}", 100.0 * std));
                let value = format!("{:.2}{std} %", 100.0 * result.value);
                say(format!("{:wide$}  {:14}  {value:>16}  {:>8}", one.name(), result.metric, result.n));
                values.push(result.value);
            }
            Told::Failed { .. } => say(format!("{:wide$}  {:14}  {:>16}", one.name(), "-", "failed")),
        }
    }
    if !values.is_empty() {
        let mean = format!("{:.2} %", 100.0 * values.iter().sum::<f64>() / values.len() as f64);
        say(format!("{:wide$}  {:14}  {mean:>16}", "mean", format!("{} of {} sets", values.len(), told.len())));
    }
}

impl Told {
    fn name(&self) -> &str {
        match self {
            Self::Result(result) => &result.data,
            Self::Failed { data, .. } => data,
        }
    }
}
