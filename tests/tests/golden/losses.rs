//! Losses against PyTorch 2.15 in float64: `tests/fixtures/make_losses.py`.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor, Var, safetensors};
use diptych_kernels::check::Array;
use diptych_kernels::{cross_correlation, info_nce, nt_xent};
use diptych_losses::{
    Balance, BarlowTwins, ClusterContrast, InfoNce, Loss, NegativeCosine, NormalizedMse, NtXent, PrototypeCrossEntropy,
    SimilarityCrossEntropy, SwappedPrediction, reference, sinkhorn,
};

use crate::place::{device, fixture_file};

/// One case of the fixture.
struct Case {
    name: String,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    fn tensor(&self, key: &str) -> &Tensor {
        &self.tensors[key]
    }

    fn array(&self, key: &str) -> Array {
        Array::of(self.tensor(key)).unwrap()
    }

    fn number(&self, key: &str) -> f64 {
        self.array(key).data[0]
    }

    /// The parameter: a temperature, a factor or an epsilon.
    fn parameter(&self) -> f64 {
        self.number("parameter")
    }

    fn near(&self, key: &str, got: f64, tolerance: f64) {
        let expected = self.number(key);
        assert!((got - expected).abs() <= tolerance * expected.abs(), "{} {key}: {got}, not {expected}", self.name);
    }

    /// The plain reference to 1e-10.
    fn reference(&self, key: &str, loss: impl Fn(&Array, &Array) -> f64) {
        self.near(key, loss(&self.array("z1"), &self.array("z2")), 1e-10);
    }

    /// The loss and its parts to 1e-5, its gradients to 1e-4 of their norm; inputs without one in the fixture have none.
    fn check(&self, loss: impl Fn(&Tensor, &Tensor) -> Result<Loss>) {
        let var = |key| Var::from_tensor(self.tensors.get(key).unwrap_or(self.tensor("z1"))).unwrap();
        let (z1, z2) = (var("z1"), var("z2"));
        let loss = loss(&z1, &z2).unwrap();
        let scalar = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        self.near("loss", scalar(&loss.total), 1e-5);
        assert!(!loss.parts.is_empty());
        for (part, value) in &loss.parts {
            self.near(part, scalar(value), 1e-5);
        }
        let grads = loss.total.backward().unwrap();
        for (key, z) in [("dz1", &z1), ("dz2", &z2)] {
            let (got, expected) = match (grads.get(z), self.tensors.get(key)) {
                (Some(got), Some(expected)) => (Array::of(got).unwrap(), Array::of(expected).unwrap()),
                (got, expected) => {
                    assert_eq!(got.is_some(), expected.is_some(), "{} {key}", self.name);
                    continue;
                }
            };
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
            let error = norm(&mut got.data.iter().zip(&expected.data).map(|(a, b)| a - b));
            let share = error / norm(&mut expected.data.iter().copied());
            assert!(share <= 1e-4, "{} {key}: off by {share} of its norm", self.name);
        }
    }
}

/// Runs `check` on every case of a loss; there must be `count`.
fn all(loss: &str, count: usize, check: impl Fn(&Case)) {
    let path = fixture_file("losses.safetensors");
    let mut cases: HashMap<String, Case> = HashMap::new();
    for (key, tensor) in safetensors::load(path, &device()).unwrap() {
        let (name, key) = key.split_once('/').unwrap();
        // The name without its shape: `nt_xent_33_17`.
        if name.rsplitn(3, '_').last() == Some(loss) {
            let case = || Case { name: name.into(), tensors: HashMap::new() };
            cases.entry(name.into()).or_insert_with(case).tensors.insert(key.into(), tensor);
        }
    }
    assert_eq!(cases.len(), count, "cases of {loss}");
    cases.values().for_each(check);
}

#[test]
fn nt_xent_equals_pytorch() {
    all("nt_xent", 5, |case| {
        let t = case.parameter();
        case.reference("loss", |z1, z2| nt_xent::reference::nt_xent(z1, z2, t));
        case.reference("positive_cosine", reference::mean_cosine);
        case.check(|z1, z2| NtXent::new(t).loss(z1, z2));
    });
}

/// Without normalization, as SimCLR's ablation has it.
#[test]
fn nt_xent_of_dot_products_equals_pytorch() {
    all("nt_xent_products", 4, |case| {
        let temperature = case.parameter();
        case.reference("loss", |z1, z2| reference::nt_xent_of_products(z1, z2, temperature));
        case.check(|z1, z2| NtXent { temperature, normalize: false }.loss(z1, z2));
    });
}

#[test]
fn info_nce_equals_the_code_of_moco() {
    all("info_nce", 5, |case| {
        let (temperature, queue) = (case.parameter(), case.tensor("queue"));
        let normalized = reference::normalized;
        case.reference("loss", |q, k| {
            info_nce::reference::info_nce(&normalized(q), &normalized(k), &case.array("queue"), temperature)
        });
        case.check(|q, k| InfoNce { temperature }.loss(q, k, queue));
    });
}

#[test]
fn info_nce_among_equals_the_code_of_moco_v3() {
    all("info_nce_among", 4, |case| {
        let temperature = case.parameter();
        let normalized = reference::normalized;
        case.reference("loss", |q, k| {
            let positive: Vec<u32> = (0..q.shape[0] as u32).collect();
            info_nce::reference::info_nce_among(&normalized(q), &normalized(k), &positive, None, temperature)
        });
        case.check(|q, k| InfoNce { temperature }.loss_among(q, k, 0));
    });
}

/// In the D x D form, up to D = N - 1, and in the N x N form, from D = N.
#[test]
fn barlow_twins_equals_the_official_code() {
    all("barlow_twins", 8, |case| {
        case.reference("invariance", |z1, z2| cross_correlation::reference::barlow_twins(z1, z2, 1e-5).0);
        case.reference("redundancy", |z1, z2| cross_correlation::reference::barlow_twins(z1, z2, 1e-5).1);
        case.check(|z1, z2| BarlowTwins { balance: Balance::Lambda(case.parameter()) }.loss(z1, z2));
    });
}

/// The form without a factor, whose off-diagonal term is a mean over each row.
#[test]
fn barlow_twins_by_row_means_equals_pytorch() {
    all("barlow_twins_mean", 4, |case| {
        case.reference("loss", |z1, z2| {
            let (invariance, redundancy) = cross_correlation::reference::barlow_twins(z1, z2, 1e-5);
            invariance + redundancy / (z1.shape[1] - 1) as f64
        });
        case.check(|z1, z2| BarlowTwins { balance: Balance::RowMean }.loss(z1, z2));
    });
}

#[test]
fn normalized_mse_equals_pytorch() {
    all("normalized_mse", 4, |case| {
        case.reference("loss", reference::normalized_mse);
        case.check(|p, target| NormalizedMse.loss(p, target));
    });
}

#[test]
fn negative_cosine_equals_pytorch() {
    all("negative_cosine", 4, |case| {
        case.reference("loss", reference::negative_cosine);
        case.check(|p, z| NegativeCosine.loss(p, z));
    });
}

#[test]
fn similarity_cross_entropy_equals_pytorch() {
    all("similarity_cross_entropy", 4, |case| {
        case.reference("loss", reference::similarity_cross_entropy);
        case.check(|p, z| SimilarityCrossEntropy.loss(p, z));
    });
}

#[test]
fn swapped_prediction_equals_pytorch() {
    all("swapped_prediction", 4, |case| {
        let temperature = case.parameter();
        case.reference("loss", |scores, codes| reference::swapped_prediction(scores, codes, temperature));
        case.check(|scores, codes| SwappedPrediction { temperature }.loss(scores, codes));
    });
}

#[test]
fn prototype_cross_entropy_equals_pytorch() {
    all("prototype_cross_entropy", 4, |case| {
        let temperature = case.parameter();
        let labels = case.tensor("labels").to_vec1::<i64>().unwrap();
        let labels: Vec<Option<u32>> = labels.into_iter().map(|label| u32::try_from(label).ok()).collect();
        case.near("loss", reference::prototype_cross_entropy(&case.array("z1"), &labels, temperature), 1e-10);
        case.check(|scores, _| PrototypeCrossEntropy { temperature }.loss(scores, &labels));
    });
}

#[test]
fn cluster_contrast_equals_the_official_code() {
    all("cluster_contrast", 4, |case| {
        let temperature = case.parameter();
        case.reference("contrast", |p1, p2| reference::cluster_contrast(p1, p2, temperature).0);
        case.reference("entropy", |p1, p2| reference::cluster_contrast(p1, p2, temperature).1);
        case.check(|p1, p2| ClusterContrast { temperature }.loss(p1, p2));
    });
}

/// Every code, to 1e-5 of the largest.
#[test]
fn sinkhorn_equals_the_official_code() {
    all("sinkhorn", 4, |case| {
        let (epsilon, expected) = (case.parameter(), case.array("codes"));
        let largest = expected.data.iter().fold(0.0, |largest, v| v.max(largest));
        let check = |got: &Array, tolerance: f64| {
            for (got, expected) in got.data.iter().zip(&expected.data) {
                assert!((got - expected).abs() <= tolerance * largest, "{}: {got}, not {expected}", case.name);
            }
        };
        check(&reference::sinkhorn(&case.array("scores"), epsilon, 3), 1e-10);
        let codes = sinkhorn(case.tensor("scores"), epsilon, 3, &diptych_losses::Local).unwrap();
        check(&Array::of(&codes).unwrap(), 1e-5);
    });
}
