//! Projectors, predictors and prototypes of self-supervised learning, described as data.
#![doc = include_str!("../README.md")]

mod mlp;
pub mod predictor;
pub mod projector;
mod prototypes;
mod saved;

pub use diptych_nn::Bias;
pub use mlp::{Block, Mlp, Norm};
pub use prototypes::Prototypes;
pub use saved::{Saved, SavedError};
