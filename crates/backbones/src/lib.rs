//! ResNet backbones with torchvision's parameter names, on channels-last tensors.
#![doc = include_str!("../README.md")]

mod config;
pub mod pretrained;
mod resnet;

use candle_core::Result;
use diptych_nn::{Backbone, Scope};

pub use config::{BackboneConfig, Stem, names, out_dim};
pub use resnet::ResNet;

/// Builds the backbone of `config` in `scope`, for images of side `size`.
///
/// # Errors
/// If the name or the width is not known; the message names the key.
pub fn build(config: &BackboneConfig, size: usize, scope: &mut Scope) -> Result<Box<dyn Backbone>> {
    Ok(Box::new(ResNet::new(config, size, scope)?))
}
