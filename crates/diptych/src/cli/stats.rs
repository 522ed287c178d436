//! `stats`: what a data set's images are, and the mean and deviation of each channel.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::data::{Channels, OpenOptions, Statistics, Subset, open, statistics};
use diptych::trainer::{BadInput, OrBadInput};
use serde_json::json;

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder of images, a file of a known format, or `synthetic`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// As what images are read: auto, rgb, or a number of channels as they are stored.
    #[arg(long, value_name = "C", default_value = "auto")]
    channels: Channels,
    /// Look at this many training images only, chosen by hash of the name.
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Threads that decode. [default: all cores]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Also write the numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let options = OpenOptions { channels: args.channels, train_size: args.images, ..OpenOptions::default() };
    let splits = open(&args.data, &options).or_bad_input()?;
    splits.notes.iter().for_each(say);
    let set = std::sync::Arc::new(Subset::by_key(splits.train.clone(), splits.train.len()));
    let workers = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let found = statistics(set, workers, diptych::data::MAX_ERROR_SHARE).or_bad_input()?;
    for skipped in &found.skipped {
        say(format!("left out {}: {}", skipped.name, skipped.reason));
    }
    table(&found);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&document(&found))?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("{} can't be written", path.display()))
            .map_err(|error| BadInput(format!("{error:#}")))?;
    }
    Ok(())
}

/// What people read, and the lines for a recipe.
fn table(found: &Statistics) {
    let sides = |[low, high]: [usize; 2]| if low == high { format!("{low}") } else { format!("{low} to {high}") };
    let (widths, heights) = (sides(found.widths), sides(found.heights));
    say(format!("\n{} images of {}, {widths} x {heights} pixels", found.images, found.format));
    say("channel      mean       std       min       max");
    for (c, channel) in found.channels.iter().enumerate() {
        let [mean, std, min, max] = [channel.mean, channel.std, channel.min, channel.max].map(number);
        say(format!("{c:>7} {mean:>9} {std:>9} {min:>9} {max:>9}"));
    }
    if found.not_finite > 0 {
        say(format!("{} numbers are infinite or not a number; they were left out", found.not_finite));
    }
    let (mean, std) = found.normalization();
    let list = |numbers: &[f32]| numbers.iter().map(|n| number(f64::from(*n))).collect::<Vec<_>>().join(", ");
    say(format!("\n[augment]\nmean = [{}]\nstd = [{}]", list(&mean), list(&std)));
}

/// Four decimals, or as many digits as a number far from 1 needs.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-2..1e4).contains(&value.abs()) { format!("{value:.3e}") } else { format!("{value:.4}") }
}

fn document(found: &Statistics) -> serde_json::Value {
    let list = |of: fn(&diptych::data::Channel) -> f64| found.channels.iter().map(of).collect::<Vec<f64>>();
    json!({
        "images": found.images, "channels": found.format.channels, "depth": found.format.depth.to_string(),
        "mean": list(|c| c.mean), "std": list(|c| c.std), "min": list(|c| c.min), "max": list(|c| c.max),
        "widths": found.widths, "heights": found.heights, "not_finite": found.not_finite, "skipped": found.skipped.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!([0.0, 0.4914, 255.0, -3.5].map(number), ["0.0000", "0.4914", "255.0000", "-3.5000"]);
        assert_eq!([1.23e-5, 65535.0 * 65535.0].map(number), ["1.230e-5", "4.295e9"]);
    }
}
