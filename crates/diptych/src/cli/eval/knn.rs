//! `eval knn`: what the nearest training images say.

use anyhow::Result;
use diptych::eval::knn_result;

use super::common::Common;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let opened = args.common.open()?;
    let sets = args.common.features(&opened)?;
    let results = sets.iter().map(|(train, test)| knn_result(train, test, 20, 0.07)).collect::<Result<_>>()?;
    args.common.tell(&opened, results)
}
