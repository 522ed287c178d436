//! Linear probes against PyTorch: tests/fixtures/make_probe.py.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_eval::{Features, Optimizer, Probe, Scaling, Schedule};

use crate::place::fixture_file;

fn fixture() -> (HashMap<String, Tensor>, Features) {
    let f = candle_core::safetensors::load(fixture_file("probe.safetensors"), &Device::Cpu).unwrap();
    let labels = f["labels"].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
    let indices = (0..labels.len() as u32).collect();
    let features = Features { x: f["x"].clone(), labels: Some(labels), indices, skipped: 0 };
    (f, features)
}

/// Settings of the fixture: 12 steps, each on all rows.
fn probe(lr: f64, decay: f64) -> Probe {
    Probe {
        learning_rates: vec![lr],
        weight_decays: vec![decay],
        decay_biases: true,
        epochs: 12,
        batch_size: 96,
        nesterov: false,
        trust: 0.02,
        schedule: Schedule::Steps,
        milestones: vec![5, 8],
        features: Scaling::Raw,
        ..Probe::default()
    }
}

/// Weights and biases equal PyTorch's after as many steps, to 1e-5 of the largest.
#[test]
fn weights_equal_pytorchs() -> Result<()> {
    let (f, features) = fixture();
    let (sgd, lars) = (probe(0.5, 1e-2), Probe { optimizer: Optimizer::Lars, ..probe(4.0, 0.0) });
    let falling = Schedule::CosineEpochs;
    let cases = [
        ("sgd", sgd.clone()),
        ("nesterov", Probe { nesterov: true, schedule: falling, ..probe(0.5, 0.0) }),
        ("lars", Probe { schedule: falling, ..lars.clone() }),
        ("lars_decay", Probe { weight_decays: vec![1e-1], ..lars }),
        ("batch_norm", Probe { features: Scaling::BatchNorm, ..sgd }),
    ];
    for (name, probe) in cases {
        let found = probe.run(&features, &features, 4, 0)?;
        for (part, got) in [("weight", &found.weights), ("bias", &found.biases)] {
            let expected = f[&format!("{name}.{part}")].flatten_all()?.to_vec1::<f32>()?;
            let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
            assert!(largest > 1e-3, "{name}.{part} of the fixture");
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-5 * largest.max(1.0), "{name}.{part}: {a}, PyTorch has {b}");
            }
            assert_eq!(got.len(), expected.len());
        }
    }
    Ok(())
}
