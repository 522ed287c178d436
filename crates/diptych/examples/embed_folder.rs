//! Features of a folder of images, as a file that PyTorch and NumPy can read.
//!
//! `cargo run --release -p diptych --example embed_folder [DATA] [WEIGHTS] [OUT.safetensors]`: DATA is a folder of images
//! or a file of a known format, WEIGHTS a run directory, a weights file or `hf://owner/name`. Without them: 1,000 drawn
//! images, a network with random weights, and no file.

use anyhow::Result;
use diptych::backbones::{BackboneConfig, ResNet};
use diptych::data::{OpenOptions, open};
use diptych::eval::{Transform, estimate_statistics, features};
use diptych::nn::{Backbone, Group, ParamStore};
use diptych::weights::{self, Source};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let data = args.first().map_or("synthetic", String::as_str);
    let options = OpenOptions { image_size: 32, train_size: args.is_empty().then_some(1000), ..OpenOptions::default() };
    let images = open(data, &options)?.train;

    // Weights say how their images are prepared.
    let (backbone, transform): (Box<dyn Backbone>, Transform) = match args.get(1) {
        Some(path) => {
            let weights = weights::open(&Source { path: path.clone(), ..Source::default() })?;
            (weights.backbone, weights.transform)
        }
        None => {
            let transform = Transform { size: 32, ..Transform::default() };
            let architecture = BackboneConfig { name: "resnet_tiny".into(), ..Default::default() }.architecture(32)?;
            let mut params = ParamStore::new(0, &candle_core::Device::Cpu);
            let backbone = ResNet::new(&mut params.scope(Group::Trunk), &architecture)?;
            estimate_statistics(&backbone, &images, &transform)?;
            (Box::new(backbone), transform)
        }
    };

    let found = features(backbone.as_ref(), &images, &transform)?;
    let (rows, width) = found.x.dims2()?;
    println!("{rows} images, {width} numbers each; {} could not be decoded", found.skipped);
    for (row, &index) in found.indices.iter().enumerate().take(3) {
        let first: Vec<f32> = found.x.get(row)?.narrow(0, 0, 4)?.to_vec1()?;
        println!("{}: {first:.3?} ...", images.name(index as usize));
    }
    if let Some(out) = args.get(2) {
        let tensors = std::collections::HashMap::from([("features", found.x)]);
        candle_core::safetensors::save(&tensors, out)?;
        println!("written to {out}");
    }
    Ok(())
}
