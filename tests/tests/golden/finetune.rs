//! Fine-tuning against PyTorch 2.15 in float64, over two epochs: `tests/fixtures/make_finetune.py`.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, safetensors};
use diptych_augment::{Image, Picture};
use diptych_backbones::{BackboneConfig, ResNet};
use diptych_data::{DataError, Dataset};
use diptych_eval::{FineTune, FineTuneFrom, FineTuned, Network, Transform, features};
use diptych_kernels::check::Array;
use diptych_nn::{Group, Layout, ParamStore};
use diptych_optim::{Algorithm, Decay, LrScaling, Variant};

use crate::place::fixture_file;

/// The fixture's images.
struct Images {
    pixels: Vec<u8>,
    labels: Vec<i64>,
    classes: Vec<String>,
}

impl Dataset for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn get(&self, i: usize) -> std::result::Result<Picture, DataError> {
        let pixels = self.pixels[i * 8 * 8 * 3..][..8 * 8 * 3].to_vec();
        Image::new(8, 8, pixels).map(Into::into).map_err(|error| DataError::Invalid(error.to_string()))
    }
    fn label(&self, i: usize) -> Option<u32> {
        Some(self.labels[i] as u32)
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        i.to_string()
    }
    fn fingerprint(&self) -> u64 {
        0
    }
}

/// What both cases have: one batch of everything, whole images, and a rate that is taken literally.
fn settings() -> FineTune {
    FineTune {
        lr_scaling: LrScaling::None,
        weight_decay: 1e-2,
        epochs: 2,
        // A crop of all of a square that is not square itself does not fit, and the whole image is taken.
        crop_scale: [1.0, 1.0],
        flip: 0.0,
        ..FineTune::default()
    }
}

struct Case {
    fixture: HashMap<String, Tensor>,
    network: Network,
    tuned: FineTuned,
    data: Arc<dyn Dataset>,
    transform: Transform,
}

fn run(settings: &FineTune) -> anyhow::Result<Case> {
    let fixture = safetensors::load(fixture_file("finetune.safetensors"), &Device::Cpu)?;
    let below = |prefix: &str| -> HashMap<String, Tensor> {
        let own = fixture.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
        own.map(|(name, value)| (name.to_string(), value.clone())).collect()
    };
    let data: Arc<dyn Dataset> = Arc::new(Images {
        pixels: fixture["images"].flatten_all()?.to_vec1()?,
        labels: fixture["labels"].to_vec1()?,
        classes: (0..7).map(|class| format!("class {class}")).collect(),
    });
    let config = BackboneConfig { name: "resnet_tiny".into(), base: Some(2), ..BackboneConfig::default() };
    let mut params = ParamStore::new(0, &Device::Cpu);
    let trunk = ResNet::new(&mut params.scope(Group::Trunk), &config.architecture(8)?)?;
    let start = below("start/").into_iter().filter(|(name, _)| !name.starts_with("projector.")).collect();
    params.load(&start, Layout::Oihw)?;
    let mut network = Network::new(Box::new(trunk), params)?;
    if let FineTuneFrom::Projector(layers) = settings.from {
        let projector = below("start/projector.");
        let projector = projector.into_iter().map(|(name, value)| Ok((name, value.to_dtype(candle_core::DType::F32)?)));
        network = network.with_projector(layers, &projector.collect::<Result<_>>()?)?;
    }
    let (mean, std) = ([0.5; 3].into(), [0.25; 3].into());
    let transform = Transform { size: 8, mean, std, batch_size: 5, workers: 1, max_error_share: 0.0 };
    let tuned = settings.run(&mut network, (&data, &data), &transform, 3, &mut |_| {})?;
    Ok(Case { fixture, network, tuned, data, transform })
}

/// Every parameter and statistic to 1e-4 of its norm, what the steps changed of it to 1e-3, losses and logits to 1e-4.
fn check(name: &str, settings: &FineTune) -> anyhow::Result<()> {
    let Case { fixture, network, tuned, data, transform } = run(settings)?;
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let losses = fixture[&format!("{name}/losses")].to_vec1::<f64>()?;
    assert!(distance(&tuned.losses, &losses) <= 1e-5, "{name}: {:?}, not {losses:?}", tuned.losses);
    let (trained, head) = (network.params().tensors(Layout::Oihw)?, tuned.head.tensors(Layout::Oihw)?);
    let all: Vec<_> = trained.into_iter().chain(head).collect();
    let prefix = format!("{name}/end/");
    assert_eq!(all.len(), fixture.keys().filter(|key| key.starts_with(&prefix)).count());
    for (key, value) in all {
        let expected = Array::of(&fixture[&format!("{prefix}{key}")])?.data;
        let got = Array::of(&value)?.data;
        let zeros = vec![0.0; expected.len()];
        let (error, scale) = (distance(&got, &expected), distance(&expected, &zeros));
        assert!(error <= 1e-4 * scale, "{name} {key}: off by {error} at {scale}");
        let start = fixture.get(&format!("start/{key}")).map_or(Ok(zeros), |start| Array::of(start).map(|a| a.data))?;
        let moved = distance(&expected, &start);
        assert!(error <= 1e-3 * moved + 1e-6 * scale, "{name} {key}: off by {error} where it moved by {moved}");
    }
    let (logits, expected) = (features(&network, &data, &transform)?.x, &fixture[&format!("{name}/logits")]);
    let (logits, expected) = (Array::of(&logits)?.data, Array::of(expected)?.data);
    assert!(distance(&logits, &expected) <= 1e-4 * distance(&expected, &vec![0.0; expected.len()]), "{name}: logits");
    Ok(())
}

#[test]
fn sgd_with_two_rates() {
    check("sgd", &FineTune { trunk_lr: 0.05, head_lr: 0.5, decay: Decay::All, ..settings() }).unwrap();
}

/// From the projector's first layer, as SimCLR v2.
#[test]
fn lars_from_a_projector_layer() {
    let lars = FineTune {
        from: FineTuneFrom::Projector(1),
        optimizer: Algorithm::Lars,
        variant: Variant { lr_in_momentum: true, ..Variant::default() },
        eta: 0.1,
        trunk_lr: 0.3,
        head_lr: 0.6,
        ..settings()
    };
    check("lars", &lars).unwrap();
}
