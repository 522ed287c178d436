//! `eval knn`: what the nearest training images say.

use anyhow::Result;
use diptych::eval::Neighbors;
use diptych::trainer::OrBadInput;

use super::common::{Common, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let neighbors: Neighbors = args.settings.read("knn")?;
    let opened = args.common.open()?;
    neighbors.check(opened.splits.bank().len()).or_bad_input()?;
    let results = match neighbors.is_grid() {
        // A seed is another part of the training images that chooses.
        true => args.common.over_seeds(&opened, |train, test, seed| neighbors.result(train, test, seed))?,
        false => {
            let sets = args.common.features(&opened)?;
            sets.iter().map(|(train, test)| neighbors.result(train, test, 0)).collect::<Result<_>>()?
        }
    };
    args.common.tell(&opened, results)
}
