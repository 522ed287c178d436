//! Projectors of self-supervised learning, described as data.
#![doc = include_str!("../README.md")]

mod mlp;
pub mod projector;

pub use mlp::{Block, Mlp, Norm};
