//! Clustering measures, average precision and logistic regression against scikit-learn: tests/fixtures/make_evaluation.py.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use diptych_eval::{Features, Logistic};
use diptych_metrics::{AveragePrecision, adjusted_rand_index, clustering_accuracy, normalized_mutual_information};

use crate::place::fixture_file;

fn fixture() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture_file("evaluation.safetensors"), &Device::Cpu).unwrap()
}

fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {got}, expected {expected}");
}

#[test]
fn agreement_of_clusters_and_classes() -> Result<()> {
    let f = fixture();
    for (i, expected) in f["agreement"].to_vec2::<f64>()?.iter().enumerate() {
        let (clusters, classes) =
            (f[&format!("clusters.{i}")].to_vec1::<u32>()?, f[&format!("classes.{i}")].to_vec1::<u32>()?);
        close("NMI", normalized_mutual_information(&clusters, &classes)?, expected[0], 1e-9);
        close("ARI", adjusted_rand_index(&clusters, &classes)?, expected[1], 1e-9);
        close("accuracy", clustering_accuracy(&clusters, &classes)?, expected[2], 1e-12);
    }
    Ok(())
}

#[test]
fn average_precision_of_every_class_and_their_mean() -> Result<()> {
    let f = fixture();
    let scores = &f["ap.scores"];
    let truth: Vec<Vec<bool>> =
        f["ap.truth"].to_vec2::<u8>()?.into_iter().map(|row| row.into_iter().map(|v| v == 1).collect()).collect();
    let expected = f["ap"].to_vec2::<f64>()?;
    for (c, expected) in expected.iter().enumerate() {
        let column = scores.narrow(1, c, 1)?.flatten_all()?.to_vec1::<f32>()?;
        let positive: Vec<bool> = truth.iter().map(|row| row[c]).collect();
        close("area", AveragePrecision::Area.of(&column, &positive)?, expected[0], 1e-9);
        close("11 points", AveragePrecision::ElevenPoints.of(&column, &positive)?, expected[1], 1e-9);
    }
    for (kind, place) in [(AveragePrecision::Area, 0), (AveragePrecision::ElevenPoints, 1)] {
        let mean = expected.iter().map(|row| row[place]).sum::<f64>() / expected.len() as f64;
        close("mean", kind.mean(scores, &truth)?, mean, 1e-9);
    }
    Ok(())
}

/// The same minimum, for weak and strong penalties: loss to 1e-4 (here 1e-5), and the same class for every test row.
#[test]
fn logistic_regression_finds_scikit_learns_minimum() -> anyhow::Result<()> {
    let f = fixture();
    let labels = f["logistic.labels"].to_vec1::<u32>()?;
    let part = |start: usize, len: usize| -> anyhow::Result<Features> {
        let x = f["logistic.x"].narrow(0, start, len)?;
        Ok(Features {
            x,
            labels: Some(labels[start..start + len].to_vec()),
            indices: (0..len as u32).collect(),
            skipped: 0,
        })
    };
    let (train, test) = (part(0, 300)?, part(300, 100)?);
    let (penalties, losses) = (f["logistic.penalties"].to_vec1::<f64>()?, f["logistic.losses"].to_vec1::<f64>()?);
    let predictions = f["logistic.predictions"].to_vec2::<u32>()?;
    for ((penalty, loss), expected) in penalties.iter().zip(losses).zip(predictions) {
        let one = Logistic { penalties: vec![*penalty], tolerance: 1e-6, ..Logistic::default() };
        let found = one.run(&train, &test, 4, 0)?;
        close("objective", found.objective, loss, 1e-5);
        let apart = found.predictions.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(apart, 0, "penalty {penalty}");
        assert_eq!(found.penalty, *penalty);
    }
    Ok(())
}

/// All penalties at once are each alone, and the validation rows choose a sensible one.
#[test]
fn a_sweep_chooses_by_the_held_out_rows() -> anyhow::Result<()> {
    let f = fixture();
    let labels = f["logistic.labels"].to_vec1::<u32>()?;
    let all = Features { x: f["logistic.x"].clone(), labels: Some(labels), indices: (0..400).collect(), skipped: 0 };
    let found = Logistic::default().run(&all, &all, 4, 1)?;
    assert!(found.accuracy > 0.6 && found.validation_accuracy > 0.5, "{found:?}");
    assert!((1e-6..=1e5).contains(&found.penalty));
    assert_eq!(found, Logistic::default().run(&all, &all, 4, 1)?, "the same seed, the same result");
    Ok(())
}
