//! Optimizer steps over all parameters of a ResNet-50.

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use diptych_backbones::{BackboneConfig, ResNet};
use diptych_kernels::optimizer::ema_steps;
use diptych_nn::{Group, Layout, ParamStore, Role};
use diptych_optim::{Lars, Optimizer, Rules, Sgd, Variant};
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Runner, Scale, Tensors, Tolerance, Work};
use crate::input::{pull, random};

const LR: f64 = 0.1;
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 1e-4;
const ETA: f64 = 0.001;
const TAU: f64 = 0.99;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Lars,
    Sgd,
    Ema,
}

struct OptimCase {
    kind: Kind,
    scale: Scale,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    [Kind::Lars, Kind::Sgd, Kind::Ema].map(|kind| Box::new(OptimCase { kind, scale }) as Box<dyn Case>).into()
}

/// A ResNet-50's parameters, without running statistics.
fn parameters(scale: Scale, device: &Device) -> Result<ParamStore> {
    let config = BackboneConfig { name: network(scale).into(), ..BackboneConfig::default() };
    let mut store = ParamStore::new(0, device);
    ResNet::new(&mut store.scope(Group::Trunk), &config.architecture(224)?)?;
    let mut trainable = ParamStore::new(0, device);
    for (name, param) in store.trainable() {
        trainable.insert(name, param.clone())?;
    }
    Ok(trainable)
}

fn network(scale: Scale) -> &'static str {
    if scale == Scale::Tiny { "resnet_tiny" } else { "resnet50" }
}

impl Case for OptimCase {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Lars => "lars",
            Kind::Sgd => "sgd",
            Kind::Ema => "ema",
        };
        format!("{kind}_{}", network(self.scale))
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance { norm: 1e-6, largest: 1e-5 }
    }

    fn spec(&self) -> Value {
        let decays = || -> Result<Vec<String>> {
            let parameters = parameters(self.scale, &Device::Cpu)?;
            let weights = parameters.iter().filter(|(_, param)| param.role == Role::Weight);
            Ok(weights.map(|(name, _)| name.to_string()).collect())
        };
        match self.kind {
            Kind::Ema => json!({ "kind": "ema", "tau": TAU }),
            kind => json!({
                "kind": if kind == Kind::Lars { "lars" } else { "sgd" }, "lr": LR, "momentum": MOMENTUM,
                "weight_decay": WEIGHT_DECAY, "eta": ETA, "decays": decays().unwrap_or_default(),
            }),
        }
    }

    fn variants(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Lars => vec!["foreach", "lightly"],
            Kind::Sgd => vec!["foreach", "fused", "single"],
            Kind::Ema => vec!["lightly", "lerp"],
        }
    }

    fn bars(&self) -> Vec<Bar> {
        let asked = self.kind == Kind::Lars && self.scale == Scale::Gpu;
        let bar = || Bar::new("LARS over ResNet-50: against foreach", Measure::Variant("foreach"), 2.0);
        asked.then(bar).into_iter().collect()
    }

    fn work(&self) -> Work {
        let values = parameters(self.scale, &Device::Cpu).map_or(0, |store| store.trainable_values()) as f64;
        // LARS and SGD read and write weights and momentum, and read gradients; LARS has its norms from weights and gradients
        // that are in cache by then. EMA reads two and writes one.
        let passes = if self.kind == Kind::Ema { 3.0 } else { 5.0 };
        Work { flops: 0.0, bytes: passes * 4.0 * values }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let store = parameters(self.scale, device)?;
        let mut gradients = Tensors::new();
        for (name, param) in store.iter() {
            gradients.insert(name.to_string(), random(name, param.var.dims(), 0.01, DType::F32, device)?);
        }
        let rules = Rules::default();
        // lightly's form of the ratio.
        let variant = Variant { bolts: true, ..Variant::default() };
        let optimizer: Option<Box<dyn Optimizer>> = match self.kind {
            Kind::Lars => Some(Box::new(Lars::new(MOMENTUM, WEIGHT_DECAY, ETA, variant, rules))),
            Kind::Sgd => Some(Box::new(Sgd::new(MOMENTUM, WEIGHT_DECAY, false, rules))),
            Kind::Ema => None,
        };
        let grads = grad_store(&store, &gradients)?;
        Ok(Box::new(Running { store, gradients, grads, optimizer }))
    }
}

/// The gradients as a backward pass leaves them.
fn grad_store(store: &ParamStore, gradients: &Tensors) -> Result<GradStore> {
    let mut total: Option<Tensor> = None;
    for (name, param) in store.iter() {
        let term = pull(&param.var, &gradients[name])?;
        total = Some(match total {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    Ok(total.context("a network without parameters")?.backward()?)
}

struct Running {
    store: ParamStore,
    /// Gradients, or for an EMA the online network.
    gradients: Tensors,
    grads: GradStore,
    optimizer: Option<Box<dyn Optimizer>>,
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let mut inputs: Tensors =
            self.gradients.iter().map(|(name, g)| (format!("gradient.{name}"), g.clone())).collect();
        for (name, value) in self.store.tensors(Layout::Ohwi)? {
            inputs.insert(format!("parameter.{name}"), value);
        }
        Ok(inputs)
    }

    /// Two steps: the second one sees the momentum.
    fn outputs(&mut self) -> Result<Tensors> {
        self.run()?;
        self.run()?;
        Ok(self.store.tensors(Layout::Ohwi)?)
    }

    fn run(&mut self) -> Result<()> {
        match &mut self.optimizer {
            Some(optimizer) => {
                let bad = optimizer.step(&self.store, &self.grads, LR)?;
                anyhow::ensure!(bad.is_none(), "a gradient of the bench is not finite");
            }
            None => {
                let pairs: Vec<_> =
                    self.store.iter().map(|(name, param)| (name, &param.var, &self.gradients[name])).collect();
                ema_steps(&pairs, TAU)?;
            }
        }
        Ok(())
    }
}
