//! Evaluations of features: a file for each protocol.

mod logistic;

use crate::case::{Case, Scale};

/// All of them; those of a GPU's scale are none, since evaluations of features run on the CPU.
pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    logistic::cases(scale)
}
