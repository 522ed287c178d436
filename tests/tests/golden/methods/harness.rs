//! Two steps of a method from given values, and every tensor that it then holds.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Result, Tensor, safetensors};
use diptych_backbones::{BackboneConfig, ResNet};
use diptych_comm::{Collective, Local};
use diptych_kernels::check::Array;
use diptych_methods::{Build, Method, Step};
use diptych_nn::{Backbone, Batch, Layout, ParamStore, Scope, Views, backward};
use diptych_optim::OptimConfig;

use crate::place::{device, fixture_file};

/// The seed of the run, by which MoCo shuffles and draws.
pub(super) const SEED: u64 = 5;
/// The images of the two steps.
pub(super) const INDEX: [[u32; 6]; 2] = [[4, 1, 9, 0, 7, 2], [3, 9, 5, 8, 1, 10]];
/// Images in the data set.
pub(super) const IMAGES: usize = 12;
/// The two steps, of 10 with 5 in an epoch.
pub(super) const STEPS: [u64; 2] = [3, 4];

/// How a case of the fixture is set up here.
pub(super) struct Case<'a> {
    /// Its name in the fixture.
    pub name: &'static str,
    /// The method's name in the registry.
    pub method: &'static str,
    /// The recipe's `[method]`.
    pub config: &'a str,
    /// The recipe's `[optim]`; its rate is taken literally, and follows a cosine unless it says otherwise.
    pub optim: &'a str,
    /// The recipe's `trainer.bn_groups`.
    pub groups: usize,
    /// How many of the fixture's views it takes: two of 8 pixels, then one of 6.
    pub views: usize,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self { name: "", method: "", config: "", optim: "", groups: 1, views: 2 }
    }
}

fn fixture() -> &'static HashMap<String, Tensor> {
    static FIXTURE: OnceLock<HashMap<String, Tensor>> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let path = fixture_file("methods.safetensors");
        safetensors::load(path, &device()).unwrap()
    })
}

/// The stores of a method with their names in the fixture.
fn stores(method: &dyn Method) -> Vec<(&'static str, &ParamStore)> {
    [("params", method.params())].into_iter().chain(method.extra_state()).collect()
}

impl Case<'_> {
    /// Every parameter, statistic, target parameter and queue row to 1e-4 of its tensor's norm, what the steps changed of it
    /// to 1e-3, and both losses to 1e-5.
    pub(super) fn check(&self) {
        self.follow().unwrap();
    }

    fn follow(&self) -> Result<()> {
        let mut method = self.build()?;
        for (store, params) in stores(method.as_ref()) {
            params.load(&self.start(store, params), Layout::Oihw)?;
        }
        let common = "lr_scaling = 'none'\nmomentum = 0.9\nwarmup_epochs = 0";
        let optim: OptimConfig = toml::from_str(&format!("{common}\n{}", self.optim)).unwrap();
        let (mut optimizer, schedule) = diptych_optim::build(&optim, INDEX[0].len(), 10, 5).unwrap();
        let losses = fixture()[&format!("{}/losses", self.name)].to_vec1::<f64>()?;
        for (k, index) in STEPS.into_iter().enumerate() {
            let step = Step { index, total: 10, epoch: 0, steps_per_epoch: 5 };
            method.before_step(step)?;
            let loss = method.forward(&self.batch(k))?.loss.total;
            let gradients = backward(&loss)?;
            let bad = optimizer.step(method.params(), &gradients, schedule.at(index))?;
            assert_eq!(bad, None, "{}: a gradient that is not finite", self.name);
            method.after_step(step)?;
            let loss = f64::from(loss.to_scalar::<f32>()?);
            let error = (loss - losses[k]).abs();
            // A cosine near 0 is off by what 1 rounds to.
            assert!(error <= 1e-5 * losses[k].abs().max(1.0), "{}: {loss}, not {}", self.name, losses[k]);
        }
        for (store, params) in stores(method.as_ref()) {
            self.compare(store, params)?;
        }
        Ok(())
    }

    fn build(&self) -> Result<Box<dyn Method>> {
        let config = BackboneConfig { name: "resnet_tiny".into(), base: Some(2), ..BackboneConfig::default() };
        let architecture = config.architecture(8).unwrap();
        let entry = diptych_methods::find(self.method).unwrap();
        let table = (entry.resolve)(toml::from_str(self.config).unwrap(), architecture.out_dim())?;
        let backbone =
            |scope: &mut Scope| -> Result<Box<dyn Backbone>> { Ok(Box::new(ResNet::new(scope, &architecture)?)) };
        let comm: Arc<dyn Collective> = Arc::new(Local);
        (entry.build)(&Build {
            config: &table,
            backbone: &backbone,
            comm: &comm,
            bn_groups: self.groups,
            device: &device(),
            seed: SEED,
            dataset_len: IMAGES,
            total_steps: 10,
        })
    }

    fn batch(&self, k: usize) -> Batch {
        let views = (0..self.views).map(|view| fixture()[&format!("views/{k}/{view}")].clone()).collect();
        Batch { views: Views(views), labels: None, index: INDEX[k].to_vec() }
    }

    /// The fixture's start of a store: its own tensors, and a shared backbone.
    fn start(&self, store: &str, params: &ParamStore) -> HashMap<String, Tensor> {
        let shared = format!("shared/{}/", if store == "params" { store } else { "target" });
        let own = format!("{}/start/{store}/", self.name);
        let below = |prefix: &str| -> Vec<(String, Tensor)> {
            let tensors = fixture().iter();
            tensors.filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_string(), value.clone()))).collect()
        };
        let has_backbone = params.iter().any(|(name, _)| name.starts_with("backbone."));
        let shared = if has_backbone { below(&shared) } else { Vec::new() };
        below(&own).into_iter().chain(shared).collect()
    }

    fn compare(&self, store: &str, params: &ParamStore) -> Result<()> {
        let start = self.start(store, params);
        let all = format!("{}/end/{store}/", self.name);
        assert_eq!(fixture().keys().filter(|key| key.starts_with(&all)).count(), params.len(), "{all}");
        for (name, value) in params.tensors(Layout::Oihw)? {
            let expected = &fixture()[&format!("{all}{name}")];
            assert_eq!((value.dims(), value.dtype()), (expected.dims(), expected.dtype()), "{all}{name}");
            if value.dtype() == DType::I64 {
                let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<i64>();
                assert_eq!(flat(&value)?, flat(expected)?, "{all}{name}");
                continue;
            }
            let [got, expected, start] =
                [&value, expected, &start[&name]].map(|tensor| Array::of(tensor).unwrap().data);
            let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let (error, scale) = (distance(&got, &expected), distance(&expected, &vec![0.0; expected.len()]));
            assert!(error <= 1e-4 * scale, "{all}{name}: off by {error} at {scale}");
            let moved = distance(&expected, &start);
            assert!(error <= 1e-3 * moved + 1e-6 * scale, "{all}{name}: off by {error} where it moved by {moved}");
        }
        Ok(())
    }
}
