//! A data set of one's own behind the trait `Dataset`: here stripes, drawn as they are asked for, in one of four directions.
//!
//! `cargo run --release -p diptych --example custom_dataset [IMAGES]` loads views of it, as training does, and says how
//! well pixels and a random network tell the directions apart.

use std::sync::Arc;

use anyhow::Result;
use diptych::augment::{Image, Picture, Recipe};
use diptych::backbones::{BackboneConfig, ResNet};
use diptych::data::{DataError, Dataset, Loader, LoaderConfig, Subset};
use diptych::eval::{Transform, estimate_statistics, features, knn, pixels};
use diptych::nn::{Group, ParamStore};
use diptych::random::{Stream, hash};

struct Stripes {
    len: usize,
    classes: Vec<String>,
}

impl Dataset for Stripes {
    fn len(&self) -> usize {
        self.len
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        // A function of the index: whoever asks, in whatever order, sees the same image.
        let mut random = Stream::keyed(7, &[i as u64]);
        let angle = (i % 4) as f64 * std::f64::consts::FRAC_PI_4 + random.normal() * 0.1;
        let (width, phase, color) =
            (2.0 + 3.0 * random.uniform(), 6.3 * random.uniform(), [(); 3].map(|()| random.uniform()));
        let level = |p: usize| {
            let (x, y) = ((p / 3 % 32) as f64, (p / 96) as f64);
            let wave = ((x * angle.cos() + y * angle.sin()) / width + phase).sin();
            (127.0 + 120.0 * wave * color[p % 3]) as u8
        };
        let image = Image::new(32, 32, (0..32 * 32 * 3).map(level).collect());
        image.map(Into::into).map_err(|error| DataError::Invalid(error.to_string()))
    }
    fn label(&self, i: usize) -> Option<u32> {
        Some((i % 4) as u32)
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        format!("stripes/{i:05}")
    }
    fn fingerprint(&self) -> u64 {
        hash(format!("stripes {}", self.len).as_bytes())
    }
}

fn main() -> Result<()> {
    let len: usize = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let classes = ["across", "rising", "up", "falling"].map(String::from).to_vec();
    let all: Arc<dyn Dataset> = Arc::new(Stripes { len, classes });
    let (test, train) = Subset::split_by_key(all, len / 5);
    let (train, test): (Arc<dyn Dataset>, Arc<dyn Dataset>) = (Arc::new(train), Arc::new(test));

    let config = LoaderConfig {
        batch_size: 16.min(train.len()),
        recipe: Recipe::simclr(32),
        end: Some(2),
        ..Default::default()
    };
    for batch in Loader::new(train.clone(), config)? {
        let batch = batch?;
        println!(
            "{} views of shape {:?} of images {:?} ...",
            batch.views.0.len(),
            batch.views.0[0].dims(),
            &batch.index[..4]
        );
    }

    let transform = Transform { size: 32, ..Transform::default() };
    let mut params = ParamStore::new(0, &candle_core::Device::Cpu);
    let architecture = BackboneConfig { name: "resnet_tiny".into(), ..Default::default() }.architecture(32)?;
    let backbone = ResNet::new(&mut params.scope(Group::Trunk), &architecture)?;
    estimate_statistics(&backbone, &train, &transform)?;
    let of = |set| features(&backbone, set, &transform);
    for (name, a, b) in [
        ("pixels", pixels(&train, &transform)?, pixels(&test, &transform)?),
        ("a random network", of(&train)?, of(&test)?),
    ] {
        println!("20-NN accuracy of {name}: {:.1} %", 100.0 * knn(&a, &b, 20.min(train.len()), 0.07)?.accuracy);
    }
    Ok(())
}
