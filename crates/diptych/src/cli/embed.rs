//! `embed`: the features of images as a file.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;
use diptych::data::{Dataset, OpenOptions, open};
use diptych::eval::features;
use diptych::trainer::{BadInput, OrBadInput};

use super::{WeightsArgs, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    weights: WeightsArgs,
    /// A folder of images, a file of a known format, or `synthetic`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Which images: train, test or all.
    #[arg(long, value_name = "S", default_value = "all")]
    split: String,
    /// FILE.safetensors (features, and labels where there are any) or FILE.npy (features).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let extension = args.out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !["safetensors", "npy"].contains(&extension) {
        let message = format!("--out {} must end in .safetensors or .npy", args.out.display());
        return Err(BadInput(message).into());
    }
    let weights = args.weights.open()?;
    let drawn = weights.data.as_ref().map_or(weights.transform.size, |data| data.image_size);
    let options = OpenOptions { image_size: drawn, channels: weights.channels(), ..OpenOptions::default() };
    let splits = open(&args.data, &options).or_bad_input()?;
    let mut parts = Vec::new();
    match (args.split.as_str(), &splits.test) {
        ("train", _) | ("all", None) => parts.push(("train", splits.train.clone())),
        ("test", Some(test)) => parts.push(("test", test.clone())),
        ("all", Some(test)) => parts.extend([("train", splits.train.clone()), ("test", test.clone())]),
        ("test", None) => return Err(BadInput(format!("{} has no test split", args.data.display())).into()),
        (other, _) => return Err(BadInput(format!("--split {other} is not one of train, test, all")).into()),
    }
    let (mut rows, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let prefix = same_names(&parts);
    for (split, part) in &parts {
        let found = features(weights.backbone.as_ref(), part, &weights.transform)?;
        names.extend(found.indices.iter().map(|&i| match prefix {
            true => format!("{split}/{}", part.name(i as usize)),
            false => part.name(i as usize),
        }));
        labels.extend(found.labels.unwrap_or_default().into_iter().map(i64::from));
        rows.push(found.x);
    }
    // One order for all: by path.
    let mut order: Vec<u32> = (0..names.len() as u32).collect();
    order.sort_by(|&a, &b| names[a as usize].as_bytes().cmp(names[b as usize].as_bytes()));
    let device = candle_core::Device::Cpu;
    let x = Tensor::cat(&rows, 0)?.index_select(&Tensor::new(order.as_slice(), &device)?, 0)?;
    let labels: Vec<i64> =
        if labels.len() == names.len() { order.iter().map(|&i| labels[i as usize]).collect() } else { Vec::new() };
    let write = || -> Result<()> {
        if extension == "npy" {
            x.write_npy(&args.out)?;
        } else {
            let mut tensors = vec![("features".to_string(), x.clone())];
            if !labels.is_empty() {
                tensors.push(("labels".to_string(), Tensor::new(labels.as_slice(), &device)?));
            }
            let bytes = safetensors::serialize(tensors.iter().map(|(name, t)| (name, t)), None)?;
            std::fs::write(&args.out, bytes)?;
        }
        let list: String = order.iter().map(|&i| format!("{}\n", names[i as usize])).collect();
        let mut paths = args.out.clone().into_os_string();
        paths.push(".paths.txt");
        Ok(std::fs::write(paths, list)?)
    };
    write().with_context(|| format!("{} can't be written", args.out.display())).or_bad_input()?;
    let (m, f) = x.dims2()?;
    say(format!(
        "{m} features of width {f} in {}, their order in {}.paths.txt",
        args.out.display(),
        args.out.display()
    ));
    Ok(())
}

/// Whether two images of different splits have the same path below their splits, so that the split must be named.
fn same_names(parts: &[(&str, Arc<dyn Dataset>)]) -> bool {
    let mut seen = HashSet::new();
    parts.iter().any(|(_, part)| (0..part.len()).any(|i| !seen.insert(part.name(i))))
}
