//! Metrics against PyTorch and scikit-learn in float64: tests/fixtures/make_metrics.py.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};

use crate::place::fixture_file;

/// Training rows of the kNN case; the rest are queries.
const TRAIN: usize = 120;

fn fixture() -> HashMap<String, Tensor> {
    let path = fixture_file("metrics.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {got}, expected {expected}");
}

#[test]
fn knn_equals_the_reference() -> Result<()> {
    let f = fixture();
    let labels = f["labels"].to_vec1::<u32>()?;
    let (train, test) = (f["x"].narrow(0, 0, TRAIN)?, f["x"].narrow(0, TRAIN, 60)?);
    let found = diptych_metrics::knn(&train, &labels[..TRAIN], &test, &labels[TRAIN..], 20, 0.07)?;
    assert_eq!(found.predictions, f["knn.predictions"].to_vec1::<u32>()?);
    let (index, similarity) = (f["knn.index"].to_vec2::<u32>()?, f["knn.similarity"].to_vec2::<f64>()?);
    for (found, (index, similarity)) in found.neighbors.iter().zip(index.iter().zip(&similarity)) {
        assert_eq!(found.iter().map(|n| n.0).collect::<Vec<_>>(), *index);
        for (found, expected) in found.iter().zip(similarity) {
            close("similarity", f64::from(found.1), *expected, 1e-6);
        }
    }
    Ok(())
}

#[test]
fn scalars_equal_the_reference() -> Result<()> {
    let f = fixture();
    let (x, y, expected) = (&f["x"], &f["y"], f["scalars"].to_vec1::<f64>()?);
    close("alignment", diptych_metrics::alignment(x, y)?, expected[0], 1e-6);
    close("uniformity", diptych_metrics::uniformity(x)?, expected[1], 1e-6);
    close("embedding std", diptych_metrics::embedding_std(x)?, expected[2], 1e-6);
    close("effective rank", diptych_metrics::effective_rank(x)?, expected[3], 1e-9);
    let expected = f["singular_values"].to_vec1::<f64>()?;
    for (got, expected) in diptych_metrics::singular_values(x)?.iter().zip(expected) {
        close("singular value", *got, expected, 1e-10);
    }
    Ok(())
}

#[test]
fn pca_equals_the_reference() -> Result<()> {
    let f = fixture();
    let found = diptych_metrics::pca(&f["x"])?;
    for (got, expected) in found.points.iter().zip(f["pca.points"].to_vec2::<f64>()?) {
        close("first coordinate", f64::from(got[0]), expected[0], 1e-5);
        close("second coordinate", f64::from(got[1]), expected[1], 1e-5);
    }
    for (got, expected) in found.components.iter().zip(f["pca.components"].to_vec2::<f64>()?) {
        got.iter().zip(expected).for_each(|(g, e)| close("component", *g, e, 1e-7));
    }
    for (got, expected) in found.explained.iter().zip(f["pca.explained"].to_vec1::<f64>()?) {
        close("explained variance", *got, expected, 1e-9);
    }
    Ok(())
}
