//! The commands: each flag stands in one place, with its help.

mod doctor;
mod draw;
mod embed;
mod eval;
mod export;
mod gallery;
mod import;
mod kept;
mod pack;
mod preview;
mod stats;
mod sweep;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use diptych::data::DataError;
use diptych::trainer::BadInput;

/// Pretrains a vision backbone on a folder of unlabeled images.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pretrain a backbone; without arguments, on the embedded data set.
    Train(train::Args),
    /// Make many runs that differ in a few keys, one table and one picture.
    Sweep(sweep::Args),
    /// Measure how good a backbone's features are.
    Eval(eval::Args),
    /// Write the features of images into a file.
    Embed(embed::Args),
    /// Write a backbone for another program.
    Export(export::Args),
    /// Read a backbone out of another project's checkpoint.
    Import(import::Args),
    /// Make a picture of the views that a recipe makes, or of each operation at its strengths.
    Preview(preview::Args),
    /// Say what a data set's images are, and measure mean and deviation of each channel.
    Stats(stats::Args),
    /// Put the images of a data set into one file that is fast to train from.
    Pack(pack::Args),
    /// Say what this machine and this build can do, and why not more.
    Doctor(doctor::Args),
    /// Write images of the embedded data set as files.
    Draw(draw::Args),
}

/// Runs the command and turns its end into an exit code: 0 done, 2 bad input, 3 stopped by a monitor, 130 and 143 saved
/// after a signal, 1 anything else.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let end = match cli.command {
        Command::Train(args) => train::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Eval(args) => eval::run(args).map(|()| 0),
        Command::Embed(args) => embed::run(args).map(|()| 0),
        Command::Export(args) => export::run(args).map(|()| 0),
        Command::Import(args) => import::run(args).map(|()| 0),
        Command::Preview(args) => preview::run(args).map(|()| 0),
        Command::Stats(args) => stats::run(args).map(|()| 0),
        Command::Pack(args) => pack::run(args).map(|()| 0),
        Command::Doctor(args) => doctor::run(&args).map(|()| 0),
        Command::Draw(args) => draw::run(args).map(|()| 0),
    };
    match end {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(if error.chain().any(is_bad_input) { 2 } else { 1 })
        }
    }
}

/// Whether the user can mend it: what is said to be bad input, and data that can't be read.
fn is_bad_input(cause: &(dyn std::error::Error + 'static)) -> bool {
    let data = cause.downcast_ref::<DataError>();
    cause.is::<BadInput>() || data.is_some_and(|error| !matches!(error, DataError::Worker(_)))
}

/// Prints a line; a closed pipe is no reason to fail.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Where a backbone comes from.
#[derive(Debug, clap::Args)]
struct WeightsArgs {
    /// A run directory, a safetensors file, a checkpoint of another project (.pth, .ckpt, ...), or hf://owner/name.
    #[arg(long, value_name = "RUN_DIR|FILE")]
    weights: String,
    /// The backbone's name, where the file does not say.
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Side of the images, where the file does not say.
    #[arg(long, value_name = "N")]
    image_size: Option<usize>,
}

impl WeightsArgs {
    fn source(&self) -> diptych::weights::Source {
        diptych::weights::Source {
            path: self.weights.clone(),
            backbone: self.backbone.clone(),
            image_size: self.image_size,
        }
    }

    fn open(&self) -> anyhow::Result<diptych::weights::Weights> {
        diptych::weights::open(&self.source())
    }
}

/// Gives the compute pool this many threads; the same number in the environment serves Candle.
fn threads(wanted: Option<usize>) -> anyhow::Result<()> {
    match wanted {
        None => Ok(()),
        Some(0) => Err(BadInput("--threads must be at least 1".into()).into()),
        Some(n) => {
            rayon::ThreadPoolBuilder::new().num_threads(n).build_global()?;
            Ok(())
        }
    }
}
