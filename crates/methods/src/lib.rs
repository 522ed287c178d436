//! Methods of self-supervised learning: a trait, a registry, and one file per method.
#![doc = include_str!("../README.md")]

mod barlow_twins;
mod method;
mod registry;
mod simclr;
#[cfg(test)]
mod suite;

pub use method::{BackboneMaker, Build, Forward, Method, Step};
pub use registry::{Entry, REGISTRY, find};
