//! Losses of self-supervised learning as pure functions of embeddings: one file per loss, no parameters, no state.
//!
//! Every loss takes the embeddings of views, `[N, D]` with row i of each from image i, and returns a [`Loss`].
#![doc = include_str!("../README.md")]

mod barlow_twins;
mod info_nce;
mod loss;
mod nt_xent;

pub use barlow_twins::{Balance, BarlowTwins};
pub use info_nce::InfoNce;
pub use loss::Loss;
pub use nt_xent::NtXent;
