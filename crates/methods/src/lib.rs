//! Methods of self-supervised learning: a trait, a registry, and one file per method.
#![doc = include_str!("../README.md")]

mod adco;
mod barlow_twins;
mod byol;
mod contrastive_clustering;
mod crops;
mod deepcluster;
mod dictionary;
mod encoder;
mod least_squares;
mod method;
mod moco;
mod pass;
mod registry;
mod shuffle;
mod simclr;
mod simsiam;
#[cfg(test)]
mod suite;
mod swav;

pub use method::{BackboneMaker, Build, Embeddings, Forward, Method, Step};
pub use pass::{Parts, Pass, pass};
pub use registry::{Entry, REGISTRY, find};
