//! Evaluations of features: a file for each protocol.

mod knn;
mod logistic;

use crate::case::{Case, Scale};

/// All of them; those of a GPU's scale are none, since evaluations of features run on the CPU.
pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    knn::cases(scale).into_iter().chain(logistic::cases(scale)).collect()
}
