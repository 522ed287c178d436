//! What a backbone is worth: its features, judged by neighbors and by a linear classifier, and what fine-tuning makes of it.
//!
//! | protocol | function |
//! | --- | --- |
//! | features of a data set | [`features`], [`pixels`] (the baseline without a network), [`forward`] |
//! | the same, kept in files from one evaluation to the next | [`Cache`] |
//! | nearest neighbors | [`Neighbors`], [`knn`], [`knn_result`] |
//! | clusters and what needs no labels | [`Cluster`], [`Quality`], [`two_views`] |
//! | logistic regression with a sweep of penalties | [`Logistic`] |
//! | the same for images that show several things | [`Logistic::one_vs_rest`], [`Targets`] |
//! | linear classifier on frozen features | [`Probe`] |
//! | transfer to other data sets | [`Transfer`] |
//! | fine-tuning on all labels or a share of them | [`FineTune`], [`Network`] |
//! | a 2-d map | [`tsne`] |
//! | proof that nothing was changed | [`Frozen`] |
//! | a random network's fair chance | [`estimate_statistics`] |
//!
//! Everything is deterministic for a seed, whatever the number of threads.
#![doc = include_str!("../README.md")]

mod cache;
mod cluster;
mod features;
mod finetune;
mod frozen;
mod key;
mod knn;
mod logistic;
mod map;
mod probe;
mod quality;
mod result;
mod rows;
mod sample;
mod statistics;
mod targets;
#[cfg(test)]
mod testing;
mod transfer;
mod views;

pub use cache::{Cache, Embedder, Kept};
pub use cluster::{Agreement, Cluster, ClusterImages, ClusterResult, Clustering};
pub use features::{Features, Transform, features, features_with, forward, pixels};
pub use finetune::{FineTune, FineTuneFrom, FineTuned, HeadInit, Network, Tuning};
pub use frozen::Frozen;
pub use knn::{Neighbors, Precision, Values, Weights, knn, knn_result};
pub use logistic::{Logistic, OneVsRest, Point, Regressed};
pub use map::tsne;
pub use probe::{Augment, Fitted, Images, Init, Optimizer, Probe, Scaling, Schedule};
pub use quality::Quality;
pub use result::{BestEpoch, EvalResult, GridValue};
pub use statistics::estimate_statistics;
pub use targets::Targets;
pub use transfer::{Transfer, TransferData, TransferMetric, TransferProtocol, TransferSet};
pub use views::two_views;
