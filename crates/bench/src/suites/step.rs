//! Whole training steps through the registry of methods and the optimizer, as the trainer takes them, data excluded.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use diptych_backbones::{BackboneConfig, StemChoice};
use diptych_methods::{Method, Step};
use diptych_nn::{Batch, Layout, Role, Views, backward};
use diptych_optim::{Optimizer, Rules, Sgd};
use serde_json::{Value, json};

use crate::case::{Case, Memory, Runner, Tensors, Tolerance, Unit, Work};
use crate::input::random;
use crate::method;

const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 1e-4;

/// A step of one method on one network. The optimizer is SGD with momentum, which PyTorch has in a fused form.
#[derive(Clone, Copy)]
struct StepCase {
    name: &'static str,
    backbone: &'static str,
    stem: StemChoice,
    side: usize,
    /// Images; each gives two views.
    images: usize,
    method: &'static str,
    /// `[method]` of the recipe.
    config: &'static str,
    lr: f64,
    dtype: DType,
}

const SIMCLR: StepCase = StepCase {
    name: "resnet18_cifar_simclr_b64x2",
    backbone: "resnet18",
    stem: StemChoice::Cifar,
    side: 32,
    images: 64,
    method: "simclr",
    config: "temperature = 0.5\nprojector = [512, 128]",
    lr: 0.03,
    dtype: DType::F32,
};

const BARLOW_TWINS: StepCase = StepCase {
    name: "resnet50_224_barlow_twins_b16x2",
    backbone: "resnet50",
    stem: StemChoice::Imagenet,
    side: 224,
    images: 16,
    method: "barlow_twins",
    config: "lambda = 0.0051\nprojector = [8192, 8192, 8192]",
    lr: 1e-6,
    dtype: DType::F32,
};

pub(super) fn cases() -> Vec<Box<dyn Case>> {
    let both = |case: StepCase| [case, StepCase { dtype: DType::BF16, ..case }];
    [SIMCLR, BARLOW_TWINS].into_iter().flat_map(both).map(|case| Box::new(case) as Box<dyn Case>).collect()
}

impl StepCase {
    fn bf16(&self) -> bool {
        self.dtype == DType::BF16
    }

    fn table(&self) -> Result<toml::Table> {
        Ok(self.config.parse()?)
    }
}

impl Case for StepCase {
    fn name(&self) -> String {
        format!("{}_{}", self.name, if self.bf16() { "bf16" } else { "f32" })
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn unit(&self) -> Unit {
        Unit::ImagesPerSecond(self.images)
    }

    /// Losses and norms of gradients after some fifty layers.
    fn tolerance(&self) -> Tolerance {
        match self.bf16() {
            true => Tolerance { norm: 3e-2, largest: 6e-2 },
            false => Tolerance { norm: 1e-3, largest: 2e-3 },
        }
    }

    fn memory(&self) -> Memory {
        Memory::Resident
    }

    fn spec(&self) -> Value {
        let table = self.table().unwrap_or_default();
        json!({
            "kind": "step", "dtype": if self.bf16() { "bf16" } else { "f32" }, "backbone": self.backbone,
            "stem": if self.stem == StemChoice::Cifar { "cifar" } else { "imagenet" }, "method": self.method,
            "config": table, "lr": self.lr, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY,
        })
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["channels_last", "contiguous"]
    }

    /// Three times the forward pass's products: 2 x 0.556 and 2 x 4.089 GFLOP an image for the backbones (convolutions alone),
    /// plus the projector's weights.
    fn work(&self) -> Work {
        let (backbone, projector) = match self.backbone {
            "resnet18" => (2.0 * 0.5554e9, 2.0 * (512.0 * 512.0 + 512.0 * 128.0)),
            _ => (2.0 * 4.0872e9, 2.0 * (2048.0 * 8192.0 + 2.0 * 8192.0 * 8192.0)),
        };
        Work { flops: 3.0 * 2.0 * self.images as f64 * (backbone + projector), bytes: 0.0 }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        // Without zero_init_residual: gradients that are 0 at the start would prove nothing.
        let config = BackboneConfig { name: self.backbone.into(), stem: self.stem, ..BackboneConfig::default() };
        let method = method::build(self.method, self.table()?, &config, self.side, self.images, device)?;
        let shape = [self.images, self.side, self.side, 3];
        let shared = random("images", &shape, 0.8, DType::F32, device)?;
        let view = |name: &str| -> Result<Tensor> {
            Ok((&shared + random(name, &shape, 0.6, DType::F32, device)?)?.to_dtype(self.dtype)?)
        };
        let index = (0..self.images as u32).collect();
        let batch = Batch { views: Views(vec![view("view 1")?, view("view 2")?]), labels: None, index };
        let optimizer = Box::new(Sgd::new(MOMENTUM, WEIGHT_DECAY, false, Rules::default()));
        Ok(Box::new(Running { method, optimizer, batch, lr: self.lr, index: 0 }))
    }
}

struct Running {
    method: Box<dyn Method>,
    optimizer: Box<dyn Optimizer>,
    batch: Batch,
    lr: f64,
    index: u64,
}

impl Running {
    /// A step; gives the loss, and, if asked, the norm of each parameter's gradient.
    fn step(&mut self, norms: bool) -> Result<(f32, Vec<f32>)> {
        let at = Step { index: self.index, total: u64::MAX, epoch: 0, steps_per_epoch: u64::MAX };
        self.method.before_step(at)?;
        let forward = self.method.forward(&self.batch)?;
        let loss = forward.loss.total.to_scalar::<f32>()?;
        let gradients = backward(&forward.loss.total)?;
        drop(forward);
        let mut found = Vec::new();
        if norms {
            for (name, param) in self.method.params().trainable() {
                let gradient = gradients.get(&param.var).with_context(|| format!("{name} has no gradient"))?;
                found.push(gradient.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt());
            }
        }
        self.optimizer.step(self.method.params(), &gradients, self.lr)?;
        self.method.after_step(at)?;
        self.index += 1;
        Ok((loss, found))
    }
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let mut inputs = Tensors::new();
        for (name, value) in self.method.params().tensors(Layout::Oihw)? {
            inputs.insert(format!("parameter.{name}"), value);
        }
        // Names in our order, and which of them decay, ride along as tensors of no size.
        for (name, param) in self.method.params().trainable() {
            let decays = if param.role == Role::Weight { 1.0f32 } else { 0.0 };
            inputs.insert(format!("decays.{name}"), Tensor::new(decays, &Device::Cpu)?);
        }
        for (i, view) in self.batch.views.0.iter().enumerate() {
            inputs.insert(format!("view.{i}"), view.clone());
        }
        Ok(inputs)
    }

    /// The losses of two steps, so that the optimizer is seen too, and the norms of the first one's gradients.
    fn outputs(&mut self) -> Result<Tensors> {
        let (first, norms) = self.step(true)?;
        let (second, _) = self.step(false)?;
        let losses = Tensor::new(&[first, second], &Device::Cpu)?;
        Ok([("losses".into(), losses), ("gradient norms".into(), Tensor::new(norms, &Device::Cpu)?)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.step(false).map(drop)
    }
}
