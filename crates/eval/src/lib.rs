//! What a backbone is worth: its features, judged by neighbors and by a linear classifier, and what fine-tuning makes of it.
//!
//! | protocol | function |
//! | --- | --- |
//! | features of a data set | [`features`], [`pixels`] (the baseline without a network), [`forward`] |
//! | 20 nearest neighbors | [`knn`], [`knn_result`] |
//! | logistic regression with a sweep of penalties | [`Logistic`] |
//! | the same for images that show several things | [`Logistic::one_vs_rest`], [`Targets`] |
//! | linear classifier on frozen features | [`Probe`] |
//! | fine-tuning on all labels or a share of them | [`FineTune`], [`Network`] |
//! | proof that nothing was changed | [`Frozen`] |
//! | a random network's fair chance | [`estimate_statistics`] |
//!
//! Everything is deterministic for a seed, whatever the number of threads.
#![doc = include_str!("../README.md")]

mod features;
mod finetune;
mod frozen;
mod knn;
mod logistic;
mod probe;
mod result;
mod rows;
mod statistics;
mod targets;
#[cfg(test)]
mod testing;

pub use features::{Features, Transform, features, features_with, forward, pixels};
pub use finetune::{FineTune, FineTuneFrom, FineTuned, HeadInit, Network, Tuning};
pub use frozen::Frozen;
pub use knn::{knn, knn_result};
pub use logistic::{Logistic, OneVsRest, Point, Regressed};
pub use probe::{Augment, Fitted, Images, Init, Optimizer, Probe, Scaling, Schedule};
pub use result::{BestEpoch, EvalResult};
pub use statistics::estimate_statistics;
pub use targets::Targets;
