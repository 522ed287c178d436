//! `embed`: the features of images as a file, and as a page to look at.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use diptych::data::{Dataset, OpenOptions, Splits, open};
use diptych::trainer::machine::count;
use diptych::trainer::{BadInput, OrBadInput};

use super::kept::CacheArgs;
use super::{WeightsArgs, gallery, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// A folder of images, a file of a known format, or `synthetic`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Which images: train, test or all.
    #[arg(long, value_name = "S", default_value = "all")]
    split: String,
    /// FILE.safetensors (features, and labels where there are any) or FILE.npy (features).
    #[arg(long, value_name = "FILE", required_unless_present = "page")]
    out: Option<PathBuf>,
    /// Write a page to look at: a 2-d map with pictures, and the nearest neighbors of some images.
    #[arg(long, value_name = "FILE.html")]
    page: Option<PathBuf>,
}

/// All that was embedded, in the order of the paths.
pub(super) struct Embedded {
    /// `[M, F]` f32.
    pub(super) x: Tensor,
    /// One class per row, or none at all.
    pub(super) labels: Vec<i64>,
    /// What each image is called.
    pub(super) names: Vec<String>,
    /// Where each image is: the data set and the place in it.
    pub(super) images: Vec<(Arc<dyn Dataset>, u32)>,
    /// Images that could not be decoded.
    pub(super) skipped: usize,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let extension = |file: &Path| file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_string();
    if let Some(out) = args.out.as_deref().filter(|out| !["safetensors", "npy"].contains(&extension(out).as_str())) {
        return Err(BadInput(format!("--out {} must end in .safetensors or .npy", out.display())).into());
    }
    if let Some(page) = args.page.as_deref().filter(|page| !["html", "htm"].contains(&extension(page).as_str())) {
        return Err(BadInput(format!("--page {} must end in .html", page.display())).into());
    }
    let weights = args.weights.open()?;
    let drawn = weights.data.as_ref().map_or(weights.transform.size, |data| data.image_size);
    let options = OpenOptions { image_size: drawn, channels: weights.channels(), ..OpenOptions::default() };
    let splits = open(&args.data, &options).or_bad_input()?;
    let parts = parts(&args, &splits)?;
    let embedded = embed(&args, &weights, &parts)?;
    if let Some(out) = &args.out {
        write(&embedded, out).with_context(|| format!("{} can't be written", out.display())).or_bad_input()?;
        let (m, f) = embedded.x.dims2()?;
        let m = count(m);
        say(format!("{m} features of width {f} in {}, their order in {}.paths.txt", out.display(), out.display()));
    }
    if let Some(page) = &args.page {
        let html = gallery::page(&embedded, &args.weights.weights, &args.data, &weights.transform)?;
        std::fs::write(page, html).with_context(|| format!("{} can't be written", page.display())).or_bad_input()?;
        say(format!("{} shows {} images", page.display(), count(embedded.names.len())));
    }
    Ok(())
}

type Part = (&'static str, Arc<dyn Dataset>);

fn parts(args: &Args, splits: &Splits) -> Result<Vec<Part>> {
    let train = ("train", splits.train.clone());
    match (args.split.as_str(), &splits.test) {
        ("train", _) | ("all", None) => Ok(vec![train]),
        ("test", Some(test)) => Ok(vec![("test", test.clone())]),
        ("all", Some(test)) => Ok(vec![train, ("test", test.clone())]),
        ("test", None) => Err(BadInput(format!("{} has no test split", args.data.display())).into()),
        (other, _) => Err(BadInput(format!("--split {other} is not one of train, test, all")).into()),
    }
}

fn embed(args: &Args, weights: &diptych::weights::Weights, parts: &[Part]) -> Result<Embedded> {
    let (mut rows, mut labels, mut names, mut images, mut skipped) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0);
    let prefix = same_names(parts);
    for (split, part) in parts {
        let found = args.cache.features(weights, part, &weights.transform)?;
        names.extend(found.indices.iter().map(|&i| match prefix {
            true => format!("{split}/{}", part.name(i as usize)),
            false => part.name(i as usize),
        }));
        images.extend(found.indices.iter().map(|&i| (part.clone(), i)));
        labels.extend(found.labels.unwrap_or_default().into_iter().map(i64::from));
        rows.push(found.x);
        skipped += found.skipped;
    }
    // One order for all: by path.
    let mut order: Vec<u32> = (0..names.len() as u32).collect();
    order.sort_by(|&a, &b| names[a as usize].as_bytes().cmp(names[b as usize].as_bytes()));
    let labeled = labels.len() == names.len();
    Ok(Embedded {
        x: Tensor::cat(&rows, 0)?.index_select(&Tensor::new(order.as_slice(), &Device::Cpu)?, 0)?,
        labels: if labeled { order.iter().map(|&i| labels[i as usize]).collect() } else { Vec::new() },
        images: order.iter().map(|&i| images[i as usize].clone()).collect(),
        names: order.iter().map(|&i| names[i as usize].clone()).collect(),
        skipped,
    })
}

fn write(embedded: &Embedded, out: &Path) -> Result<()> {
    if out.extension().is_some_and(|ending| ending == "npy") {
        embedded.x.write_npy(out)?;
    } else {
        let mut tensors = vec![("features".to_string(), embedded.x.clone())];
        if !embedded.labels.is_empty() {
            tensors.push(("labels".to_string(), Tensor::new(embedded.labels.as_slice(), &Device::Cpu)?));
        }
        let bytes = safetensors::serialize(tensors.iter().map(|(name, t)| (name, t)), None)?;
        std::fs::write(out, bytes)?;
    }
    let list: String = embedded.names.iter().map(|name| format!("{name}\n")).collect();
    let mut paths = out.to_path_buf().into_os_string();
    paths.push(".paths.txt");
    Ok(std::fs::write(paths, list)?)
}

/// Whether two images of different splits have the same path below their splits, so that the split must be named.
fn same_names(parts: &[Part]) -> bool {
    let mut seen = HashSet::new();
    parts.iter().any(|(_, part)| (0..part.len()).any(|i| !seen.insert(part.name(i))))
}
