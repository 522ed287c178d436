//! The training loop, recipes, checkpoints, monitors, logs and the report of a run.
#![doc = include_str!("../README.md")]

mod checkpoint;
mod division;
mod error;
mod evaluate;
mod fit;
pub mod log;
mod look;
pub mod machine;
mod monitor;
mod plan;
mod preview;
pub mod recipe;
pub mod report;
mod run_dir;
mod setup;
mod signal;
mod story;
mod trial;

pub use checkpoint::{Checkpoints, Position};
pub use division::Division;
pub use error::{BadInput, OrBadInput};
pub use evaluate::{Baselines, Evaluation, baselines, evaluate};
pub use fit::{Outcome, Watch, fit};
pub use look::Shown;
pub use plan::plan;
pub use preview::view_rows;
pub use recipe::Recipe;
pub use run_dir::RunDir;
pub use setup::{Prepared, device, prepare, prepare_on};
pub use signal::Signals;
