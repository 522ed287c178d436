//! kNN grids against NumPy, k-means and silhouettes against scikit-learn, spectra against NumPy: tests/fixtures/make_neighbors.py.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use diptych_metrics::{Votes, classify, kmeans_from, nearest, power_law};

use crate::place::fixture_file;

/// Rows that vote; the rest ask.
const BANK: usize = 300;

fn fixture() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture_file("neighbors.safetensors"), &Device::Cpu).unwrap()
}

fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {got}, expected {expected}");
}

/// The same neighbors in the same order and the same class for every row and every pair of the grid: with similarities and votes that tie to the last bit,
/// and with copies of rows. One search serves the whole grid.
#[test]
fn a_grid_of_neighbors_equals_numpy_exactly() -> Result<()> {
    let f = fixture();
    for name in ["ties", "real"] {
        let (x, labels) = (&f[&format!("{name}.x")], f[&format!("{name}.labels")].to_vec1::<u32>()?);
        let (bank, queries) = (x.narrow(0, 0, BANK)?, x.narrow(0, BANK, x.dim(0)? - BANK)?);
        let found = nearest(&queries, &bank, BANK)?;
        let order: Vec<Vec<u32>> = found.iter().map(|row| row.iter().map(|n| n.0).collect()).collect();
        assert_eq!(order, f[&format!("{name}.order")].to_vec2::<u32>()?, "{name}");
        let expected = f[&format!("{name}.predictions")].to_vec2::<u32>()?;
        for (pair, expected) in f["grid"].to_vec2::<f64>()?.iter().zip(expected) {
            let (k, temperature) = (pair[0] as usize, pair[1]);
            let votes = if temperature == 0.0 { Votes::Uniform } else { Votes::Weighted { temperature } };
            assert_eq!(classify(&found, &labels, k, votes)?, expected, "{name}: k = {k}, {votes:?}");
            // A search for this k alone finds the same.
            assert_eq!(classify(&nearest(&queries, &bank, k)?, &labels, k, votes)?, expected);
        }
    }
    Ok(())
}

#[test]
fn k_means_equals_scikit_learn_from_the_same_centers() -> Result<()> {
    let f = fixture();
    for i in 0..3 {
        let get = |name: &str| &f[&format!("kmeans.{i}.{name}")];
        let found = kmeans_from(get("x"), get("start"), 300)?;
        assert_eq!(found.clusters.assignments, get("labels").to_vec1::<u32>()?, "case {i}");
        let numbers = get("numbers").to_vec1::<f64>()?;
        assert!((found.inertia / numbers[0] - 1.0).abs() < 1e-6, "{} {}", found.inertia, numbers[0]);
        let silhouette = diptych_metrics::silhouette(get("x"), &found.clusters.assignments)?;
        close("silhouette", silhouette, numbers[1], 1e-9);
        let centers = found.clusters.centers.to_vec2::<f32>()?;
        for (got, expected) in centers.iter().flatten().zip(get("centers").to_vec2::<f64>()?.iter().flatten()) {
            close("center", f64::from(*got), *expected, 1e-6);
        }
    }
    Ok(())
}

#[test]
fn spectra_equal_numpy() -> Result<()> {
    let f = fixture();
    let (x, numbers) = (&f["spectrum.x"], f["spectrum.numbers"].to_vec1::<f64>()?);
    let found = diptych_metrics::covariance_spectrum(x)?;
    for (got, expected) in found.iter().zip(f["spectrum.eigenvalues"].to_vec1::<f64>()?) {
        close("eigenvalue", *got / found[0], expected / found[0], 1e-12);
    }
    close("RankMe", diptych_metrics::effective_rank(x)?, numbers[0], 1e-9);
    close("participation ratio", diptych_metrics::participation_ratio(&found), numbers[1], 1e-9);
    for ((first, last), expected) in [(1, 48), (11, 40), (5, 30)].into_iter().zip(numbers[2..].chunks(2)) {
        let law = power_law(&found, first, last)?;
        close("alpha", law.alpha, expected[0], 1e-9);
        close("fit", law.fit, expected[1], 1e-9);
    }
    Ok(())
}
