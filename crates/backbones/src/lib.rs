//! ResNet backbones on channels-last tensors, with torchvision's parameter names.
//!
//! [`BackboneConfig`] is what a recipe says; it becomes an [`Architecture`], from which [`ResNet::new`] builds the network
//! in a parameter store. [`pretrained`] reads weights of other projects and writes files that torchvision loads.
#![doc = include_str!("../README.md")]

mod architecture;
mod config;
mod description;
pub mod onnx;
pub mod pretrained;
mod resnet;

pub use architecture::{Architecture, BlockKind, Stem};
pub use config::{BackboneConfig, NAMES, StemChoice};
pub use description::{Input, describe, described};
pub use resnet::ResNet;
