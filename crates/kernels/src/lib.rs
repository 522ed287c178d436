//! Training ops for Candle on channels-last tensors, each with an exact backward pass.
//!
//! Image tensors are `[N, H, W, C]` and convolution weights `[O, kh, kw, I]`. Every op is one folder: `mod.rs` (the op
//! for Candle, its shape checks and its tests), `cpu.rs` (the loops, which see slices and never a tensor) and
//! `reference.rs` (the same in plain f64, which the tests measure against). [`check::check_op`] holds each op to its
//! reference in value and gradient. Ops run on the CPU in this build and say so when they are given another device.
#![doc = include_str!("../README.md")]
#![allow(unsafe_code)] // Inner loops: SIMD intrinsics, gemm and disjoint parallel writes, each with a SAFETY note.

pub mod augment;
pub mod batch_norm;
pub mod check;
#[cfg(feature = "cuda")]
mod contrast;
pub mod conv2d;
pub mod cross_correlation;
#[cfg(feature = "cuda")]
pub mod cuda;
mod dense;
pub mod device;
mod disjoint;
mod embeddings;
mod in_place;
pub mod info_nce;
mod isa;
pub mod l2_normalize;
pub mod linear;
mod matmul;
mod memory;
pub mod nt_xent;
pub mod optimizer;
pub mod peak;
pub mod pool;
pub mod relu;
#[cfg(test)]
mod sanitize;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod words;

pub use batch_norm::{BatchNorm, batch_norm_eval, batch_norm_train};
pub use conv2d::conv2d;
pub use cross_correlation::{BarlowTwinsParts, barlow_twins};
pub use info_nce::{info_nce, info_nce_among};
pub use isa::isa;
pub use l2_normalize::l2_normalize;
pub use linear::linear;
pub use memory::{CountingAllocator, keep_freed_memory};
pub use nt_xent::nt_xent;
pub use pool::{global_avg_pool, max_pool2d};
pub use relu::relu;
pub use softmax::exp;
