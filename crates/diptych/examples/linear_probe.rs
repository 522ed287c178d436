//! What frozen features are worth: a linear classifier on them, beside one on pixels.
//!
//! `cargo run --release -p diptych --example linear_probe [TRAINING IMAGES] [WEIGHTS]`: WEIGHTS is a run directory or a
//! weights file. Without it: a network with random weights. The images are drawn ones.

use std::sync::Arc;

use anyhow::Result;
use diptych::backbones::{BackboneConfig, ResNet};
use diptych::data::{Dataset, Synthetic, synthetic::Split};
use diptych::eval::{Probe, Transform, estimate_statistics, features, pixels};
use diptych::nn::{Backbone, Group, ParamStore};
use diptych::weights::{self, Source};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let images: usize = args.first().map_or(Ok(2000), |text| text.parse())?;
    let train: Arc<dyn Dataset> = Arc::new(Synthetic::new(0, Split::Train, images, 32));
    let test: Arc<dyn Dataset> = Arc::new(Synthetic::new(0, Split::Test, images / 2, 32));
    let classes = train.classes().len();

    let (name, backbone, transform): (&str, Box<dyn Backbone>, Transform) = match args.get(1) {
        Some(path) => {
            let weights = weights::open(&Source { path: path.clone(), ..Source::default() })?;
            (path, weights.backbone, weights.transform)
        }
        None => {
            let transform = Transform { size: 32, ..Transform::default() };
            let architecture = BackboneConfig { name: "resnet_tiny".into(), ..Default::default() }.architecture(32)?;
            let mut params = ParamStore::new(0, &candle_core::Device::Cpu);
            let backbone = ResNet::new(&mut params.scope(Group::Trunk), &architecture)?;
            estimate_statistics(&backbone, &train, &transform)?;
            ("a random network", Box::new(backbone), transform)
        }
    };

    // All pairs of learning rate and weight decay train at once; a tenth of the training images chooses among them.
    let probe = Probe { epochs: 30, ..Probe::default() };
    for (name, a, b) in [
        ("pixels", pixels(&train, &transform)?, pixels(&test, &transform)?),
        (name, features(backbone.as_ref(), &train, &transform)?, features(backbone.as_ref(), &test, &transform)?),
    ] {
        println!("{name}: {}", probe.result(&a, &b, classes, /* seed */ 0)?);
    }
    Ok(())
}
