//! `eval`: how good a backbone's features are, by the papers' protocols.

mod cluster;
mod common;
mod finetune;
mod knn;
mod linear;
mod logistic;
mod transfer;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// Nearest neighbors by cosine similarity; 20, weighted by exp(s / 0.07), or a grid of both (--set knn.k=[1,20,200]).
    Knn(knn::Args),
    /// A linear classifier on frozen features; the learning rate is chosen on a tenth of the training images.
    Linear(linear::Args),
    /// Logistic regression by L-BFGS on frozen features; one of 45 L2 penalties is chosen on a fifth of the training images (SimCLR's and BYOL's transfer
    /// protocol).
    Logistic(logistic::Args),
    /// Backbone and a linear classifier trained together on 1 %, 10 % or all of the labels.
    Finetune(finetune::Args),
    /// k-means into as many clusters as classes, and what needs no labels: RankMe, alpha-ReQ, uniformity, alignment, silhouette.
    Cluster(cluster::Args),
    /// Other data sets, each judged by the metric that papers report for it, in one table.
    Transfer(transfer::Args),
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.protocol {
        Protocol::Knn(args) => knn::run(&args),
        Protocol::Linear(args) => linear::run(&args),
        Protocol::Logistic(args) => logistic::run(&args),
        Protocol::Finetune(args) => finetune::run(&args),
        Protocol::Cluster(args) => cluster::run(&args),
        Protocol::Transfer(args) => transfer::run(&args),
    }
}
