//! ResNets against torchvision's, on torchvision's weights.
//!
//! Values: tests/fixtures/make_backbones.py (PyTorch in f64). Weights and images are made by the same formula on both
//! sides, in PyTorch's layout; they come into our networks the way a user's would, through a safetensors file.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor, safetensors::load_buffer};
use diptych_backbones::{Architecture, BlockKind, ResNet, Stem, pretrained};
use diptych_nn::{Backbone, Group, Layout, ParamStore};

use crate::place::device;

static FIXTURE: &[u8] = include_bytes!("../../fixtures/backbones.safetensors");

/// `mix` of make_backbones.py.
fn mix(count: usize, key: u32) -> impl Iterator<Item = f64> {
    (0..count as u32).map(move |i| {
        let mut x = i.wrapping_add(key.wrapping_mul(0x9E37_79B1));
        for multiplier in [0x7FEB_352D, 0x846C_A68Bu32] {
            x ^= x >> 15;
            x = x.wrapping_mul(multiplier);
        }
        x ^= x >> 16;
        f64::from(x) / 2f64.powi(31) - 1.0
    })
}

/// Images `[count, size, size, 3]`.
pub(crate) fn images(count: usize, size: usize) -> Tensor {
    let values: Vec<f32> = mix(count * size * size * 3, 0).map(|v| v as f32).collect();
    Tensor::from_vec(values, (count, size, size, 3), &device()).unwrap()
}

/// `fill` of make_backbones.py: tensors as a torchvision `state_dict` holds them.
pub(crate) fn torchvision_weights(store: &ParamStore) -> BTreeMap<String, Tensor> {
    let shapes = store.tensors(Layout::Oihw).unwrap();
    let last = if shapes.contains_key("layer1.0.bn3.weight") { "bn3" } else { "bn2" };
    let mut out = BTreeMap::new();
    for (key, (name, like)) in shapes.iter().enumerate() {
        let scale_and_shift = match like.dims() {
            &[_, i, kh, kw] => ((6.0 / (i * kh * kw) as f64).sqrt(), 0.0),
            _ if name.ends_with("running_var") => (0.5, 1.0),
            _ if name.ends_with("weight") => (0.1, if name.contains(last) { 0.3 } else { 1.0 }),
            _ => (0.1, 0.0),
        };
        let values: Vec<f32> = mix(like.elem_count(), key as u32 + 1)
            .map(|u| (scale_and_shift.1 + scale_and_shift.0 * u) as f32)
            .collect();
        out.insert(name.clone(), Tensor::from_vec(values, like.dims(), &Device::Cpu).unwrap());
    }
    out
}

fn build(block: BlockKind, depths: [usize; 4], base: usize, stem: Stem) -> (ParamStore, ResNet) {
    let architecture = Architecture { block, depths, base, channels: 3, stem, zero_init_residual: false };
    let mut store = ParamStore::new(5, &device());
    let net = ResNet::new(&mut store.scope(Group::Trunk), &architecture).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = safetensors::serialize(torchvision_weights(&store), None).unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    pretrained::load(&store, file.path().to_str().unwrap()).unwrap();
    (store, net)
}

fn fixture() -> HashMap<String, Tensor> {
    load_buffer(FIXTURE, &device()).unwrap()
}

/// Within `tolerance` of the largest expected magnitude (at least 1).
fn assert_near(what: &str, got: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let max = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    let (gap, scale) = (max(&(got - expected).unwrap()), max(expected).max(1.0));
    assert!(gap <= tolerance * scale, "{what}: off by {gap} at a scale of {scale}");
}

fn check(name: &str, block: BlockKind, depths: [usize; 4], stem: Stem, size: usize) {
    let expected = fixture();
    let (_, net) = build(block, depths, 64, stem);
    let x = images(2, size);
    let features = net.forward_t(&x, false).unwrap();
    assert_near(name, &features, &expected[&format!("{name}.features")], 1e-4);
    for (i, stage) in net.stages(&x, false).unwrap().iter().enumerate() {
        let key = format!("{name}.stage{}", i + 2);
        assert_near(&key, &stage.mean((1, 2)).unwrap(), &expected[&key], 1e-4);
    }
}

#[test]
fn resnet18_with_the_imagenet_stem() {
    check("resnet18_imagenet_65", BlockKind::Basic, [2, 2, 2, 2], Stem::Imagenet, 65);
}

#[test]
fn resnet18_with_the_cifar_stem() {
    check("resnet18_cifar_32", BlockKind::Basic, [2, 2, 2, 2], Stem::Cifar, 32);
}

#[test]
fn resnet50() {
    check("resnet50_imagenet_64", BlockKind::Bottleneck, [3, 4, 6, 3], Stem::Imagenet, 64);
}

#[test]
fn resnet_tiny_with_the_strided_stem() {
    check("resnet_tiny_strided_33", BlockKind::Basic, [1, 1, 1, 1], Stem::Strided, 33);
}

/// One training step of a whole small network: features, gradients through every kind of layer, running statistics.
#[test]
fn a_training_step() {
    let expected = fixture();
    let (store, net) = build(BlockKind::Basic, [1, 1, 1, 1], 8, Stem::Imagenet);
    let features = net.forward_t(&images(4, 40), true).unwrap();
    assert_near("features", &features, &expected["train.features"], 1e-4);
    let cotangent: Vec<f32> = mix(features.elem_count(), 999).map(|v| v as f32).collect();
    let cotangent = Tensor::from_vec(cotangent, features.dims(), &device()).unwrap();
    let grads = (features * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
    let mut seen = 0;
    for (key, value) in &expected {
        if let Some(name) = key.strip_prefix("train.grad.") {
            let grad = grads.get(&store.get(name).unwrap().var).unwrap();
            let grad = if grad.rank() == 4 { grad.permute((0, 3, 1, 2)).unwrap() } else { grad.clone() };
            assert_near(key, &grad, value, 2e-4);
            seen += 1;
        } else if let Some(name) = key.strip_prefix("train.after.") {
            assert_near(key, &store.get(name).unwrap().var, value, 1e-5);
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}
