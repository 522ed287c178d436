//! Parameters with roles and groups, layers over channels-last kernels, initializers and checkpoint tensors.
#![doc = include_str!("../README.md")]

mod backbone;
mod batch;
pub mod init;
mod layers;
mod norm_groups;
mod param;
mod scope;
mod store;
mod tape;
mod var_builder;

pub use backbone::Backbone;
pub use batch::{Batch, Views};
pub use init::Init;
pub use layers::{BatchNorm, Bias, Conv2d, Linear, global_avg_pool, max_pool2d, relu};
pub use norm_groups::NormGroups;
pub use param::{Group, Param, Role};
pub use scope::Scope;
pub use store::{Layout, ParamStore};
pub use tape::{Tape, Value, activation_bytes, backward, hold_statistics, no_grad, segment};
pub use var_builder::var_builder;
