//! Losses of self-supervised learning as pure functions of embeddings: one file per loss, no parameters, no state.
//!
//! Every loss takes what two views give, row i of each from image i, and returns a [`Loss`].
//!
//! # Over ranks
//!
//! A run's objective is the mean of its ranks' totals. A loss that compares images with each other has a second function
//! that takes the ranks' collective, such as [`NtXent::loss_over`]: it gathers what it needs, so that this mean, and its
//! gradient, are those of one rank with the whole batch. The other losses are means over rows and need nothing.
#![doc = include_str!("../README.md")]

mod barlow_twins;
mod cluster_contrast;
mod info_nce;
mod loss;
mod negative_cosine;
mod normalized_mse;
mod nt_xent;
mod prototype_cross_entropy;
pub mod reference;
mod rows;
mod similarity_cross_entropy;
mod sinkhorn;
mod swapped_prediction;

pub use barlow_twins::{Balance, BarlowTwins};
pub use cluster_contrast::ClusterContrast;
pub use diptych_comm::{Collective, Local};
pub use info_nce::InfoNce;
pub use loss::Loss;
pub use negative_cosine::NegativeCosine;
pub use normalized_mse::NormalizedMse;
pub use nt_xent::NtXent;
pub use prototype_cross_entropy::PrototypeCrossEntropy;
pub use similarity_cross_entropy::SimilarityCrossEntropy;
pub use sinkhorn::sinkhorn;
pub use swapped_prediction::SwappedPrediction;
