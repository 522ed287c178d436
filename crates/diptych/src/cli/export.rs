//! `export`: a backbone for another program.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::backbones::pretrained;
use diptych::trainer::{BadInput, OrBadInput};
use diptych::weights::describe;

use super::{WeightsArgs, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    weights: WeightsArgs,
    /// torchvision.
    #[arg(long, value_name = "F")]
    format: String,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.format != "torchvision" {
        let message = format!("--format {} is not written by this build; there is torchvision", args.format);
        return Err(BadInput(message).into());
    }
    let weights = args.weights.open()?;
    let metadata = describe(&weights.config, &weights.transform);
    pretrained::save(&args.out, &weights.params, &weights.config, weights.transform.size, metadata)
        .with_context(|| format!("{} can't be written", args.out.display()))
        .or_bad_input()?;
    say(format!("{} holds the backbone with torchvision's names. In Python:\n", args.out.display()));
    say(pretrained::python(&weights.config, weights.transform.size, &args.out.display().to_string())?);
    Ok(())
}
