//! `eval linear`: a linear classifier on frozen features.

use anyhow::Result;
use diptych::eval::{Augment, Frozen, Images, Probe};
use diptych::trainer::BadInput;

use super::common::{Common, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let probe: Probe = args.settings.read("linear")?;
    let opened = args.common.open()?;
    let classes = opened.classes();
    if probe.augment == Augment::None {
        let results = args.common.over_seeds(&opened, |train, test, seed| probe.result(train, test, classes, seed))?;
        return args.common.tell(&opened, results);
    }
    if let Some(baseline) = &args.common.baseline {
        let message = format!("--baseline {baseline} is judged by its center views: add --set linear.augment=none");
        return Err(BadInput(message).into());
    }
    let weights = &opened.weights;
    let images =
        Images { backbone: weights.backbone.as_ref(), dataset: opened.splits.bank(), transform: &weights.transform };
    let frozen = Frozen::of(&weights.params)?;
    let results = args
        .common
        .over_seeds(&opened, |train, test, seed| probe.result_on_images(&images, train, test, classes, seed))?;
    frozen.check(&weights.params)?;
    args.common.tell(&opened, results)
}
