//! Losses against PyTorch 2.15 in float64: `tests/fixtures/make_losses.py`.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var, safetensors};
use diptych_kernels::check::Array;
use diptych_kernels::{cross_correlation, nt_xent};
use diptych_losses::{Balance, BarlowTwins, InfoNce, Loss, NtXent};

/// One case of the fixture.
struct Case {
    name: &'static str,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    fn load(name: &'static str) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/losses.safetensors");
        Self { name, tensors: safetensors::load(path, &Device::Cpu).unwrap() }
    }

    fn tensor(&self, key: &str) -> &Tensor {
        &self.tensors[&format!("{}/{key}", self.name)]
    }

    fn array(&self, key: &str) -> Array {
        Array::of(self.tensor(key)).unwrap()
    }

    fn number(&self, key: &str) -> f64 {
        self.array(key).data[0]
    }

    fn near(&self, key: &str, got: f64, tolerance: f64) {
        let expected = self.number(key);
        assert!((got - expected).abs() <= tolerance * expected.abs(), "{} {key}: {got}, not {expected}", self.name);
    }

    /// The loss to 1e-5, its gradients to 1e-4 of their norm, its parts to 1e-5.
    fn check(&self, loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Loss>) {
        let [z1, z2] = ["z1", "z2"].map(|key| Var::from_tensor(self.tensor(key)).unwrap());
        let loss = loss(&z1, &z2).unwrap();
        let scalar = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        self.near("loss", scalar(&loss.total), 1e-5);
        assert!(!loss.parts.is_empty());
        for (part, value) in &loss.parts {
            self.near(part, scalar(value), 1e-5);
        }
        let grads = loss.total.backward().unwrap();
        for (key, z) in [("dz1", &z1), ("dz2", &z2)] {
            let (got, expected) = (Array::of(grads.get(z).unwrap()).unwrap(), self.array(key));
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
            let error = norm(&mut got.data.iter().zip(&expected.data).map(|(a, b)| a - b));
            let share = error / norm(&mut expected.data.iter().copied());
            assert!(share <= 1e-4, "{} {key}: off by {share} of its norm", self.name);
        }
    }
}

fn check_nt_xent(name: &'static str) {
    let case = Case::load(name);
    let temperature = case.number("parameter");
    case.near("loss", nt_xent::reference::nt_xent(&case.array("z1"), &case.array("z2"), temperature), 1e-10);
    case.check(|z1, z2| NtXent::new(temperature).loss(z1, z2));
}

fn check_barlow_twins(name: &'static str) {
    let case = Case::load(name);
    let lambda = case.number("parameter");
    let reference = cross_correlation::reference::barlow_twins(&case.array("z1"), &case.array("z2"), 1e-5);
    case.near("invariance", reference.0, 1e-10);
    case.near("redundancy", reference.1, 1e-10);
    case.check(|z1, z2| BarlowTwins { balance: Balance::Lambda(lambda) }.loss(z1, z2));
}

#[test]
fn nt_xent_equals_pytorch() {
    check_nt_xent("nt_xent_2_3");
    check_nt_xent("nt_xent_5_2");
    check_nt_xent("nt_xent_33_17");
    check_nt_xent("nt_xent_40_48");
    check_nt_xent("nt_xent_301_6");
}

fn check_info_nce(name: &'static str) {
    let case = Case::load(name);
    let (temperature, queue) = (case.number("parameter"), case.tensor("queue"));
    case.check(|q, k| InfoNce { temperature }.loss(q, k, queue));
}

fn check_info_nce_among(name: &'static str) {
    let case = Case::load(name);
    let temperature = case.number("parameter");
    case.check(|q, k| InfoNce { temperature }.loss_among(q, k, 0));
}

#[test]
fn info_nce_equals_the_code_of_moco() {
    check_info_nce("info_nce_1_3");
    check_info_nce("info_nce_5_2");
    check_info_nce("info_nce_33_17");
    check_info_nce("info_nce_40_48");
    check_info_nce("info_nce_301_6");
}

#[test]
fn info_nce_among_equals_the_code_of_moco_v3() {
    check_info_nce_among("info_nce_among_5_2");
    check_info_nce_among("info_nce_among_33_17");
    check_info_nce_among("info_nce_among_301_6");
}

/// The D x D form, up to D = N - 1.
#[test]
fn barlow_twins_equals_the_official_code() {
    check_barlow_twins("barlow_twins_8_4");
    check_barlow_twins("barlow_twins_33_17");
    check_barlow_twins("barlow_twins_18_17");
}

/// The N x N form, from D = N.
#[test]
fn barlow_twins_of_wide_embeddings_equals_the_official_code() {
    check_barlow_twins("barlow_twins_17_17");
    check_barlow_twins("barlow_twins_16_17");
    check_barlow_twins("barlow_twins_36_70");
    check_barlow_twins("barlow_twins_5_11");
    check_barlow_twins("barlow_twins_16_90");
}
