//! Diptych: self-supervised pretraining of vision backbones, from a folder of unlabeled images to weights that load
//! elsewhere.
//!
//! This crate is the door: it re-exports the others under short names, embeds the recipes, and holds the command line.
//! Each of the others can be used alone.
#![doc = include_str!("../README.md")]

pub use diptych_augment as augment;
pub use diptych_backbones as backbones;
pub use diptych_comm as comm;
pub use diptych_data as data;
pub use diptych_eval as eval;
pub use diptych_heads as heads;
pub use diptych_hub as hub;
pub use diptych_kernels as kernels;
pub use diptych_losses as losses;
pub use diptych_methods as methods;
pub use diptych_metrics as metrics;
pub use diptych_nn as nn;
pub use diptych_optim as optim;
pub use diptych_random as random;
pub use diptych_trainer as trainer;

pub mod card;
pub mod projector;
pub mod protocols;
pub mod recipes;
pub mod sweep;
pub mod training;
pub mod usage;
pub mod weights;
