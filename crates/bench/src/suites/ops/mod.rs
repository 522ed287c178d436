//! The operations of a ResNet's training step, alone.

mod batch_norm;
mod conv;
mod copy;
mod linear;
mod pool;

use crate::case::{Case, Scale};

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    [copy::cases(scale), conv::cases(scale), batch_norm::cases(scale), pool::cases(scale), linear::cases(scale)]
        .into_iter()
        .flatten()
        .collect()
}

/// The layouts that PyTorch's image operations know.
fn layouts() -> Vec<&'static str> {
    vec!["channels_last", "contiguous"]
}
