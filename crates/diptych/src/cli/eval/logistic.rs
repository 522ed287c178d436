//! `eval logistic`: logistic regression on frozen features, its penalty chosen on a part of the training images.

use anyhow::Result;
use diptych::eval::Logistic;

use super::common::{Common, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let logistic: Logistic = args.settings.read("logistic")?;
    let opened = args.common.open()?;
    let classes = opened.classes();
    let results = args.common.over_seeds(&opened, |train, test, seed| logistic.result(train, test, classes, seed))?;
    args.common.tell(&opened, results)
}
