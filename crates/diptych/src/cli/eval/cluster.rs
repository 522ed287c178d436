//! `eval cluster`: k-means on frozen features, and what can be said without labels.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;
use diptych::data::Dataset;
use diptych::eval::{
    Cluster, ClusterImages, ClusterResult, Features, Frozen, Quality, estimate_statistics, pixels, two_views,
};
use diptych::trainer::{BadInput, OrBadInput, RunDir};
use diptych::weights::{self, Weights};
use diptych::{augment, trainer};

use super::super::say;
use super::common::{Common, Opened, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    common: Common,
}

/// Features, and those of two views of some images where there is a backbone that makes them.
type Seen = (Features, Option<(Tensor, Tensor)>);

pub(super) fn run(args: &Args) -> Result<()> {
    let settings: Cluster = args.settings.read("cluster")?;
    let opened = args.common.open_any()?;
    let (split, sets) = images(&settings, &opened)?;
    let classes = sets[0].classes().len();
    let labeled = classes > 0 && sets.iter().all(|set| set.label(0).is_some());
    let classes = labeled.then_some(classes);
    settings.check(sets.iter().map(|set| set.len()).sum(), classes).or_bad_input()?;
    let seeds = args.common.seeds;
    let mut runs = Vec::new();
    for seed in 0..if args.common.random() { seeds } else { 1 } {
        let (found, views) = see(&args.common, &opened, &sets, seed)?;
        let quality = Quality::of(&found.x, views.as_ref(), settings.spectrum_images)?;
        for seed in if args.common.random() { seed..seed + 1 } else { 0..seeds } {
            runs.push((settings.run(&found, classes, seed)?, quality.clone()));
        }
    }
    let name = args.common.baseline.clone().unwrap_or_else(|| args.common.weights.weights.clone());
    let result = ClusterResult::new(&settings, &runs, [split, &name, &opened.path])?;
    say(&result);
    args.common.write(&result)
}

/// The images to cluster, and the word for them.
fn images(settings: &Cluster, opened: &Opened) -> Result<(&'static str, Vec<Arc<dyn Dataset>>)> {
    let splits = &opened.splits;
    let by_labels = if splits.labeled() { ClusterImages::Test } else { ClusterImages::All };
    let (bank, test) = (splits.bank().clone(), splits.test.clone());
    match (settings.images.unwrap_or(by_labels), test) {
        (ClusterImages::Test, Some(test)) => Ok(("test", vec![test])),
        (ClusterImages::Test, None) => {
            let message =
                format!("{} has no test images; give them with --test, or --set cluster.images=train", opened.path);
            Err(BadInput(message).into())
        }
        (ClusterImages::All, Some(test)) => Ok(("all", vec![bank, test])),
        (ClusterImages::All, None) => Ok(("all", vec![bank])),
        (ClusterImages::Train, _) => Ok(("train", vec![bank])),
    }
}

/// The features of all sets, one after the other, as `--baseline` says.
fn see(common: &Common, opened: &Opened, sets: &[Arc<dyn Dataset>], seed: u64) -> Result<Seen> {
    let transform = &opened.weights.transform;
    let random;
    let weights = match common.baseline.as_deref() {
        None => &opened.weights,
        Some("pixels") => {
            let parts = sets.iter().map(|set| pixels(set, transform)).collect::<Result<_>>()?;
            return Ok((joined(parts)?, None));
        }
        Some("random") => {
            random = weights::build(&common.weights.source(), seed)?;
            estimate_statistics(random.backbone.as_ref(), opened.splits.bank(), transform)?;
            &random
        }
        Some(other) => return Err(BadInput(format!("--baseline {other} is not one of random, pixels")).into()),
    };
    let frozen = Frozen::of(&weights.params)?;
    let backbone = weights.backbone.as_ref();
    let parts = sets.iter().map(|set| common.cache.features(weights, set, transform)).collect::<Result<_>>()?;
    let views = views_of(common, weights, sets)?.map(|recipe| two_views(backbone, sets[0].as_ref(), &recipe));
    let views = views.transpose()?;
    frozen.check(&weights.params)?;
    Ok((joined(parts)?, views))
}

/// The views that the run was trained on, or SimCLR's where the weights are a file; none where pictures of this format have none of those.
fn views_of(common: &Common, weights: &Weights, sets: &[Arc<dyn Dataset>]) -> Result<Option<augment::Recipe>> {
    let path = Path::new(&common.weights.weights);
    let recipe = if path.is_dir() {
        let run = RunDir::open(path)?;
        let text = std::fs::read_to_string(run.recipe()).context("recipe.toml can't be read").or_bad_input()?;
        let table = toml::from_str(&text).context("recipe.toml is not TOML").or_bad_input()?;
        trainer::Recipe::resolve(&run.recipe().display().to_string(), table)?.augment
    } else {
        let transform = &weights.transform;
        augment::Recipe { mean: transform.mean, std: transform.std, ..augment::Recipe::simclr(transform.size) }
    };
    Ok(recipe.check_for(sets[0].format()).is_ok().then_some(recipe))
}

/// The rows of several sets as one; places count on from set to set.
fn joined(parts: Vec<Features>) -> Result<Features> {
    let x = Tensor::cat(&parts.iter().map(|part| &part.x).collect::<Vec<_>>(), 0)?;
    let (mut labels, mut indices, mut skipped, mut before) = (Some(Vec::new()), Vec::new(), 0, 0);
    for part in parts {
        labels = match (labels, part.labels) {
            (Some(mut all), Some(more)) => {
                all.extend(more);
                Some(all)
            }
            _ => None,
        };
        let end = before + (part.indices.len() + part.skipped) as u32;
        indices.extend(part.indices.into_iter().map(|index| before + index));
        skipped += part.skipped;
        before = end;
    }
    Ok(Features { x, labels, indices, skipped })
}
