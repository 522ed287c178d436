//! `eval linear`: a linear classifier on frozen features.

use anyhow::Result;
use diptych::eval::Probe;

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
    let results = args.common.over_seeds(&opened, |train, test, seed| probe.result(train, test, classes, seed))?;
    args.common.tell(&opened, results)
}
