//! Heads against PyTorch 2.15 in float64, module by module: `tests/fixtures/make_heads.py`.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Result, Tensor, Var, safetensors};
use diptych_heads::{Block, Mlp, Prototypes, predictor, projector};
use diptych_kernels::check::Array;
use diptych_nn::{Group, Layout, ParamStore, Role};

use crate::place::{device, fixture_file};

/// One case of the fixture.
struct Case {
    name: String,
    tensors: BTreeMap<String, Tensor>,
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

impl Case {
    /// The widths of input, hidden layers and output.
    fn widths(&self) -> [usize; 3] {
        let mut last = self.name.rsplit('_').map(|number| number.parse().unwrap());
        let mut next = || last.next().unwrap();
        let (out, hidden, input) = (next(), next(), next());
        [input, hidden, out]
    }

    /// `||got - expected|| <= tolerance * scale`, where the scale is the expected norm but at least `least`.
    fn near(&self, key: &str, got: &Tensor, tolerance: f64, least: f64) {
        let expected = &self.tensors[key];
        assert_eq!(got.dims(), expected.dims(), "{} {key}", self.name);
        let (got, expected) = (Array::of(got).unwrap(), Array::of(expected).unwrap());
        let error = norm(got.data.iter().zip(&expected.data).map(|(a, b)| a - b));
        let scale = norm(expected.data.into_iter()).max(least);
        assert!(error <= tolerance * scale, "{} {key}: off by {error} at {scale}", self.name);
    }

    /// Value, evaluation and statistics to 1e-5, gradients to 1e-4 of their norms. The fixture's parameters are the store's, with
    /// the same names, and those that have a gradient are the trainable ones.
    fn check(&self, store: &ParamStore, forward: impl Fn(&Tensor, bool) -> Result<Tensor>) {
        for (name, param) in store.iter().filter(|(_, param)| param.role != Role::Buffer) {
            store.load_tensor(name, &self.tensors[name], Layout::Oihw).unwrap();
            let trained = self.tensors.contains_key(&format!("grad.{name}"));
            assert_eq!(trained, param.is_trainable(), "{} {name}", self.name);
        }
        let extra = ["x", "y", "dy", "grad_x", "y_eval"];
        let own = |key: &str| key.starts_with("grad.") || extra.contains(&key);
        let names = self.tensors.keys().map(|key| key.strip_prefix("after.").unwrap_or(key)).filter(|key| !own(key));
        let (mut names, known): (Vec<_>, Vec<_>) = (names.collect(), store.iter().map(|(name, _)| name).collect());
        names.sort_unstable();
        assert_eq!(names, known, "{}", self.name);

        let x = Var::from_tensor(&self.tensors["x"]).unwrap();
        let y = forward(&x, true).unwrap();
        self.near("y", &y, 1e-5, 0.0);
        let grads = diptych_nn::backward(&(y * &self.tensors["dy"]).unwrap().sum_all().unwrap()).unwrap();
        self.near("grad_x", grads.get(&x).unwrap(), 1e-4, 0.0);
        for (name, param) in store.trainable() {
            // A bias that feeds a batch norm has a gradient of 0, up to what its terms round to.
            let terms = name.strip_suffix("bias").and_then(|layer| self.tensors.get(&format!("grad.{layer}weight")));
            let least = terms.map_or(0.0, |terms| norm(Array::of(terms).unwrap().data.into_iter()));
            let gradient = grads.get(&param.var).unwrap();
            self.near(&format!("grad.{name}"), gradient, 1e-4, if feeds_a_norm(store, name) { least } else { 0.0 });
        }
        for (name, param) in store.iter().filter(|(_, param)| param.role == Role::Buffer) {
            self.near(&format!("after.{name}"), &param.var, 1e-5, 0.0);
        }
        self.near("y_eval", &forward(&x, false).unwrap(), 1e-5, 0.0);
    }
}

/// Whether the module after this linear layer's bias is a batch norm.
fn feeds_a_norm(store: &ParamStore, name: &str) -> bool {
    let Some(place) = name.strip_suffix(".bias").and_then(|place| place.parse::<usize>().ok()) else { return false };
    store.get(&format!("{place}.running_mean")).is_none() && store.get(&format!("{}.running_mean", place + 1)).is_some()
}

/// The four cases of a head, whose names are its name and `numbers` extents.
fn cases(head: &str, numbers: usize) -> Vec<Case> {
    let path = fixture_file("heads.safetensors");
    let mut cases: HashMap<String, Case> = HashMap::new();
    for (key, tensor) in safetensors::load(path, &device()).unwrap() {
        let (name, key) = key.split_once('/').unwrap();
        if name.rsplitn(numbers + 1, '_').nth(numbers) == Some(head) {
            let case = || Case { name: name.into(), tensors: BTreeMap::new() };
            cases.entry(name.into()).or_insert_with(case).tensors.insert(key.into(), tensor);
        }
    }
    assert_eq!(cases.len(), 4, "cases of {head}");
    cases.into_values().collect()
}

/// `blocks` gives the head for the widths of input, hidden layers and output.
fn check(head: &str, blocks: impl Fn([usize; 3]) -> Vec<Block>) {
    for case in cases(head, 4) {
        let widths = case.widths();
        let mut store = ParamStore::new(3, &device());
        let mlp = Mlp::new(&mut store.scope(Group::Projector), widths[0], &blocks(widths)).unwrap();
        case.check(&store, |x, train| mlp.forward(x, train));
    }
}

#[test]
fn simclr() {
    check("simclr_2", |[_, a, b]| projector::simclr(&[a, b]));
    check("simclr_3", |[i, a, b]| projector::simclr(&[i, a, b]));
}

#[test]
fn moco() {
    check("moco_v1", |[_, _, b]| projector::moco(&[b]));
    check("moco_v2", |[_, a, b]| projector::moco(&[a, b]));
}

#[test]
fn byol() {
    check("byol", |[_, a, b]| projector::byol(&[a, b]));
    check("byol_predictor", |[_, a, b]| predictor::byol(a, b));
}

#[test]
fn simsiam() {
    check("simsiam", |[_, a, b]| projector::simsiam(&[a, a, b]));
    check("simsiam_predictor", |[_, a, b]| predictor::simsiam(a, b));
}

#[test]
fn simsiam_with_other_norms() {
    check("simsiam_hidden", |[_, a, b]| projector::simsiam_with(&[a, b], true, false));
    check("simsiam_output", |[_, a, b]| projector::simsiam_with(&[a, b], false, true));
    check("simsiam_none", |[_, a, b]| projector::simsiam_with(&[a, b], false, false));
    check("simsiam_predictor_plain", |[_, a, b]| predictor::simsiam_with(a, b, false));
}

#[test]
fn barlow_twins() {
    check("barlow_twins", |[_, a, b]| projector::barlow_twins(&[a, a, b]));
}

#[test]
fn swav() {
    check("swav", |[_, a, b]| projector::swav(&[a, b]));
}

#[test]
fn contrastive_clustering() {
    check("contrastive_clustering_instance", |[_, a, b]| projector::contrastive_clustering_instance(&[a, b]));
}

/// Gradients go through the normalization of z; the weight is taken as it is.
#[test]
fn prototypes() {
    for case in cases("prototypes", 3) {
        let [_, inputs, count] = case.widths();
        let mut store = ParamStore::new(3, &device());
        let prototypes = Prototypes::new(&mut store.scope(Group::Prototypes), inputs, count).unwrap();
        case.check(&store, |z, train| prototypes.forward(z, train));
    }
}
