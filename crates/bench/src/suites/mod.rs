//! The suites: one file each, and a line in [`SUITES`].

mod augment;
mod losses;
mod ops;
mod optim;
mod step;

use crate::case::{Case, Scale};

/// Cases that belong together.
pub(crate) struct Suite {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it times, in a line.
    pub(crate) about: &'static str,
    /// Makes its cases; they hold no tensors yet.
    pub(crate) cases: fn(Scale) -> Vec<Box<dyn Case>>,
}

/// Every suite.
pub(crate) const SUITES: &[Suite] = &[
    Suite { name: "ops", about: "Convolutions, batch norm, pooling and linear layers of ResNets", cases: ops::cases },
    Suite { name: "losses", about: "Losses, forward and backward", cases: losses::cases },
    Suite { name: "optim", about: "Optimizer steps over a ResNet-50's parameters", cases: optim::cases },
    Suite { name: "augment", about: "Random views of 224 pixels", cases: augment::cases },
    Suite { name: "step", about: "Whole training steps: forward, backward, optimizer", cases: step::cases },
];
