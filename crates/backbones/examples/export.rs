//! Writes networks of every kind as files for PyTorch, with images and the features that they should give:
//! `cargo run --release -p diptych-backbones --example export FOLDER`, then
//! `python tests/fixtures/check_export.py FOLDER/*.safetensors`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Device;
use diptych_backbones::{BackboneConfig, ResNet, StemChoice, onnx, pretrained};
use diptych_nn::{Backbone, Group, Init, ParamStore};

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("say into which folder")?);
    std::fs::create_dir_all(&folder)?;
    for (name, width, stem, size) in [
        ("resnet_tiny", 1, StemChoice::Cifar, 32),
        ("resnet_tiny", 2, StemChoice::Strided, 48),
        ("resnet18", 1, StemChoice::Cifar, 32),
        ("resnet18", 2, StemChoice::Imagenet, 64),
        ("resnet50", 1, StemChoice::Imagenet, 96),
        ("resnet50", 2, StemChoice::Cifar, 32),
    ] {
        let config = BackboneConfig { name: name.into(), width, stem, ..Default::default() };
        let architecture = config.architecture(size)?;
        let mut store = ParamStore::new(3, &Device::Cpu);
        let net = ResNet::new(&mut store.scope(Group::Trunk), &architecture)?;
        let images = Init::Normal(1.0).draw(&[4, size, size, 3], 4, "images", &Device::Cpu)?;
        // Training passes, so that the running statistics are no longer 0 and 1.
        for _ in 0..3 {
            net.forward_t(&images, true)?;
        }
        let stem = architecture.stem.name();
        let path = folder.join(format!("{name}_{width}x_{stem}.safetensors"));
        let metadata = pretrained::export_metadata(&config, &architecture);
        let graph = onnx::export(&architecture, &pretrained::export_tensors(&store, 3)?, &metadata)?;
        std::fs::write(path.with_extension("onnx"), graph)?;
        std::fs::write(&path, pretrained::export(&store, 3, metadata)?)?;
        let values = BTreeMap::from([("features", net.forward_t(&images, false)?), ("images", images)]);
        std::fs::write(path.with_extension("values"), safetensors::serialize(values, None)?)?;
        println!("{}", path.display());
    }
    Ok(())
}
