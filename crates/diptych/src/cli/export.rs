//! `export`: a backbone for another program, and a card that describes it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use diptych::backbones::{Input, describe, onnx, pretrained};
use diptych::trainer::log::replace_file;
use diptych::trainer::{BadInput, OrBadInput};
use diptych::{card, usage};

use super::{WeightsArgs, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    weights: WeightsArgs,
    /// torchvision, timm (both safetensors), detectron2 (a .pth, as it reads no safetensors) or onnx (the network too).
    #[arg(long, value_name = "F")]
    format: String,
    /// The file to write; OUT.card.md beside it describes it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let format = args.format.as_str();
    let ending = match format {
        "torchvision" | "timm" => None,
        "detectron2" => Some(("pth", "Detectron2 reads no safetensors")),
        "onnx" => Some(("onnx", "runtimes go by it")),
        _ => {
            let message = format!("--format {format} is not one of torchvision, timm, detectron2, onnx");
            return Err(BadInput(message).into());
        }
    };
    if let Some((ending, reason)) = ending.filter(|(ending, _)| args.out.extension().is_none_or(|own| own != *ending)) {
        return Err(BadInput(format!("--out {} must end in .{ending}: {reason}", args.out.display())).into());
    }
    let weights = args.weights.open()?;
    let (config, architecture, transform) = (&weights.config, &weights.architecture, &weights.transform);
    let input = Input { size: transform.size, mean: transform.mean.to_vec(), std: transform.std.to_vec() };
    let file = args.out.display().to_string();
    let arrays = pretrained::export_arrays(&weights.params, |norm| weights.batches.get(norm).copied().unwrap_or(0))?;
    let mut metadata = describe(config, architecture, &input);
    let (bytes, lines) = match format {
        "detectron2" => {
            let lines = usage::detectron2(architecture, &input, &file).or_bad_input()?;
            (pretrained::export_detectron2(&arrays)?, lines)
        }
        "timm" => {
            let lines = usage::timm(config, architecture, &file).or_bad_input()?;
            metadata.insert("timm".into(), usage::timm_config(config, architecture, &input));
            (pretrained::serialize(&arrays, metadata)?, lines)
        }
        "onnx" => {
            let tensors = pretrained::export_tensors(&weights.params, 0)?;
            (onnx::export(architecture, &tensors, &metadata)?, usage::onnx(&input, &file))
        }
        _ => (pretrained::serialize(&arrays, metadata)?, usage::torchvision(architecture, &file)),
    };
    let write = |path: &Path, bytes: &[u8]| {
        replace_file(path, bytes).with_context(|| format!("{} can't be written", path.display())).or_bad_input()
    };
    write(&args.out, &bytes)?;
    let (where_to, language) = match format {
        "detectron2" => ("In Detectron2's configuration", "yaml"),
        _ => ("In Python", "python"),
    };
    let block = format!("{where_to}:\n\n```{language}\n{}\n```\n", lines.trim_end());
    let described = PathBuf::from(format!("{file}.card.md"));
    let text = card::card(&weights, &args.weights.weights, &args.out, format, &block)?;
    write(&described, text.as_bytes())?;
    say(format!(
        "{file} holds the backbone {}, {} describes it. {where_to}:\n",
        if format == "onnx" { "as a graph".to_string() } else { format!("with {format}'s names") },
        described.display()
    ));
    say(lines.trim_end());
    Ok(())
}
