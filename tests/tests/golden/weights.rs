//! Backbones of full width with weights under torchvision's names, against PyTorch; and Detectron2's names against PyTorch's reader.
//!
//! Values: tests/fixtures/make_weights.py (`features.safetensors`, PyTorch in f64 rounded to f32), in evaluation mode on two images of 40 pixels.

use candle_core::{Device, Tensor};
use diptych_backbones::{Architecture, BlockKind, ResNet, Stem};
use diptych_nn::{Backbone, Group, Layout, ParamStore};

use crate::backbones::{images, torchvision_weights};
use crate::place::{device, fixture_file};

fn check(name: &str, block: BlockKind, depths: [usize; 4], base: usize) {
    let file = std::fs::read(fixture_file("weights/features.safetensors")).unwrap();
    let expected = candle_core::safetensors::load_buffer(&file, &Device::Cpu).unwrap().remove(name).unwrap();
    let architecture =
        Architecture { block, depths, base, channels: 3, stem: Stem::Imagenet, zero_init_residual: false };
    let mut store = ParamStore::new(5, &device());
    let net = ResNet::new(&mut store.scope(Group::Trunk), &architecture).unwrap();
    for (name, value) in torchvision_weights(&store) {
        store.load_tensor(&name, &value, Layout::Oihw).unwrap();
    }
    let features = net.forward_t(&images(2, 40), false).unwrap().to_device(&Device::Cpu).unwrap();
    assert_eq!(features.dims(), expected.dims());
    let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let (gap, scale) = (largest(&(&features - &expected).unwrap()), largest(&expected).max(1.0));
    assert!(gap <= 1e-4 * scale, "{name}: off by {gap} at a scale of {scale}");
}

#[test]
fn resnet34() {
    check("resnet34", BlockKind::Basic, [3, 4, 6, 3], 64);
}

#[test]
fn resnet101() {
    check("resnet101", BlockKind::Bottleneck, [3, 4, 23, 3], 64);
}

/// SimCLR's width: every channel twice, the stem's included.
#[test]
fn resnet18_of_twice_the_width() {
    check("resnet18_2x", BlockKind::Basic, [2, 2, 2, 2], 128);
}

#[test]
fn resnet50_of_twice_the_width() {
    check("resnet50_2x", BlockKind::Bottleneck, [3, 4, 6, 3], 128);
}
