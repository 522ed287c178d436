//! The suites: one file each, and a line in [`SUITES`].

mod augment;
mod eval;
mod loader;
mod losses;
mod ops;
mod optim;
mod pictures;
mod step;

use crate::case::Case;
use crate::setting::Setting;

/// Cases that belong together.
pub(crate) struct Suite {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it times, in a line.
    pub(crate) about: &'static str,
    /// Makes its cases; they hold no tensors yet.
    pub(crate) cases: fn(&Setting) -> Vec<Box<dyn Case>>,
}

/// Every suite.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "ops",
        about: "Convolutions, batch norm, pooling and linear layers of ResNets",
        cases: |setting| ops::cases(setting.scale),
    },
    Suite { name: "losses", about: "Losses, forward and backward", cases: |setting| losses::cases(setting.scale) },
    Suite {
        name: "optim",
        about: "Optimizer steps over a ResNet-50's parameters",
        cases: |setting| optim::cases(setting.scale),
    },
    Suite { name: "augment", about: "Random views: single operations and whole recipes", cases: augment::cases },
    Suite { name: "loader", about: "From image files to batches of views, and packed files", cases: loader::cases },
    Suite { name: "eval", about: "Evaluations of features", cases: |setting| eval::cases(setting.scale) },
    Suite {
        name: "step",
        about: "Whole training steps: forward, backward, optimizer",
        cases: |setting| step::cases(setting.scale),
    },
];
