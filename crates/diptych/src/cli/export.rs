//! `export`: a backbone for another program.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::backbones::{Input, describe, pretrained};
use diptych::trainer::log::replace_file;
use diptych::trainer::{BadInput, OrBadInput};

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
    let transform = &weights.transform;
    let (mean, std) = (transform.mean.to_vec(), transform.std.to_vec());
    let input = Input { size: transform.size, mean, std };
    let metadata = describe(&weights.config, &weights.architecture, &input);
    let bytes = pretrained::export(&weights.params, 0, metadata)?;
    replace_file(&args.out, &bytes)
        .with_context(|| format!("{} can't be written", args.out.display()))
        .or_bad_input()?;
    say(format!("{} holds the backbone with torchvision's names. In Python:\n", args.out.display()));
    say(weights.architecture.pytorch());
    say("from safetensors.torch import load_file");
    say(format!(
        "print(model.load_state_dict(load_file({:?}), strict=False))  # only fc is missing",
        args.out.display().to_string()
    ));
    say("model.fc = torch.nn.Identity()  # features instead of classes");
    Ok(())
}
