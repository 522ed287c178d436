//! Whole training steps through the registry of methods and the optimizer, as the trainer takes them, data excluded.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use diptych_backbones::{BackboneConfig, StemChoice};
use diptych_methods::{Method, Step};
use diptych_nn::{Batch, Layout, Role, Views, backward};
use diptych_optim::{Optimizer, Rules, Sgd};
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Memory, Precision, Runner, Scale, Tensors, Tolerance, Unit, Work};
use crate::input::random;
use crate::method;

const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 1e-4;

/// A step of one method on one network. The optimizer is SGD with momentum, which PyTorch has in a fused form.
#[derive(Clone, Copy)]
struct StepCase {
    /// Without images and precision.
    name: &'static str,
    backbone: &'static str,
    /// Channels of the first layer, where not the network's own.
    base: Option<usize>,
    stem: StemChoice,
    side: usize,
    /// Images; each gives two views.
    images: usize,
    method: &'static str,
    /// `[method]` of the recipe.
    config: &'static str,
    lr: f64,
    precision: Precision,
    scale: Scale,
}

const SIMCLR: StepCase = StepCase {
    name: "resnet18_cifar_simclr",
    backbone: "resnet18",
    base: None,
    stem: StemChoice::Cifar,
    side: 32,
    images: 64,
    method: "simclr",
    config: "temperature = 0.5\nprojector = [512, 128]",
    lr: 0.03,
    precision: Precision::F32,
    scale: Scale::Cpu,
};

const BARLOW_TWINS: StepCase = StepCase {
    name: "resnet50_224_barlow_twins",
    backbone: "resnet50",
    base: None,
    stem: StemChoice::Imagenet,
    side: 224,
    images: 16,
    method: "barlow_twins",
    config: "lambda = 0.0051\nprojector = [8192, 8192, 8192]",
    lr: 1e-6,
    precision: Precision::F32,
    scale: Scale::Cpu,
};

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    use Precision::{Bf16, F32, Tf32};
    let tiny = |case: StepCase| {
        let name = if case.method == "simclr" { "tiny_simclr" } else { "tiny_barlow_twins" };
        let config = if case.method == "simclr" {
            "temperature = 0.5\nprojector = [24, 16]"
        } else {
            "lambda = 0.0051\nprojector = [32, 32, 32]"
        };
        StepCase { name, backbone: "resnet18", base: Some(8), stem: StemChoice::Cifar, side: 8, config, ..case }
    };
    let cases: Vec<(StepCase, usize, &[Precision])> = match scale {
        Scale::Cpu => vec![(SIMCLR, 64, &[F32, Bf16]), (BARLOW_TWINS, 16, &[F32, Bf16])],
        Scale::Gpu => {
            vec![(SIMCLR, 512, &[Bf16, Tf32, F32]), (BARLOW_TWINS, 256, &[Bf16]), (BARLOW_TWINS, 64, &[Tf32, F32])]
        }
        Scale::Tiny => vec![(tiny(SIMCLR), 6, &[F32, Tf32, Bf16]), (tiny(BARLOW_TWINS), 6, &[F32, Tf32, Bf16])],
    };
    let each = |(case, images, precisions): (StepCase, usize, &'static [Precision])| {
        precisions.iter().map(move |&precision| StepCase { images, precision, scale, ..case })
    };
    cases.into_iter().flat_map(each).map(|case| Box::new(case) as Box<dyn Case>).collect()
}

impl StepCase {
    fn bf16(&self) -> bool {
        self.precision == Precision::Bf16
    }

    fn table(&self) -> Result<toml::Table> {
        Ok(self.config.parse()?)
    }
}

impl Case for StepCase {
    fn name(&self) -> String {
        format!("{}_b{}x2_{}", self.name, self.images, self.precision.name())
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn unit(&self) -> Unit {
        Unit::ImagesPerSecond(self.images)
    }

    /// Losses and norms of gradients after some fifty layers.
    fn tolerance(&self) -> Tolerance {
        match self.precision {
            // Statistics of six rows.
            Precision::Bf16 if self.scale == Scale::Tiny => Tolerance { norm: 2e-1, largest: 4e-1 },
            Precision::Tf32 if self.scale == Scale::Tiny => Tolerance { norm: 5e-2, largest: 1e-1 },
            Precision::F32 => Tolerance { norm: 1e-3, largest: 2e-3 },
            Precision::Tf32 => Tolerance { norm: 1e-2, largest: 2e-2 },
            Precision::Bf16 => Tolerance { norm: 3e-2, largest: 6e-2 },
        }
    }

    fn memory(&self) -> Memory {
        Memory::Resident
    }

    fn spec(&self) -> Value {
        let table = self.table().unwrap_or_default();
        json!({
            "kind": "step", "backbone": self.backbone, "base": self.base,
            "stem": if self.stem == StemChoice::Cifar { "cifar" } else { "imagenet" }, "method": self.method,
            "config": table, "lr": self.lr, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY,
        })
    }

    fn variants(&self) -> Vec<&'static str> {
        match (self.scale, self.method) {
            (Scale::Cpu, _) => vec!["channels_last", "contiguous"],
            (_, "simclr") => vec!["eager", "compile", "compile_reduce_overhead", "compile_max_autotune"],
            // Graphs of so many images would keep their memory apart from that of the others.
            _ => vec!["eager", "compile", "compile_max_autotune"],
        }
    }

    fn bars(&self) -> Vec<Bar> {
        if self.scale != Scale::Gpu || !self.bf16() {
            return Vec::new();
        }
        if self.method == "simclr" {
            let what = "step: ResNet-18 CIFAR, SimCLR, 512 x 2 views, bf16: against eager";
            return vec![Bar::new(what, Measure::Variant("eager"), 1.3)];
        }
        let what = "step: ResNet-50, 224 px, Barlow Twins 8192^3, 256 x 2 views, bf16";
        vec![
            Bar::new(format!("{what}: against eager"), Measure::Variant("eager"), 1.2),
            Bar::new(format!("{what}: against compile"), Measure::Variant("compile"), 1.0),
        ]
    }

    /// Three times the forward pass's products: 2 x 0.556 and 2 x 4.089 GFLOP an image for the backbones (convolutions alone),
    /// plus the projector's weights.
    fn work(&self) -> Work {
        let (backbone, projector) = match self.backbone {
            // What an emulator runs has no floor.
            _ if self.scale == Scale::Tiny => return Work::default(),
            "resnet18" => (2.0 * 0.5554e9, 2.0 * (512.0 * 512.0 + 512.0 * 128.0)),
            _ => (2.0 * 4.0872e9, 2.0 * (2048.0 * 8192.0 + 2.0 * 8192.0 * 8192.0)),
        };
        Work { flops: 3.0 * 2.0 * self.images as f64 * (backbone + projector), bytes: 0.0 }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        // Without zero_init_residual: gradients that are 0 at the start would prove nothing.
        let config = BackboneConfig {
            name: self.backbone.into(),
            stem: self.stem,
            base: self.base,
            ..BackboneConfig::default()
        };
        let method = method::build(self.method, self.table()?, &config, self.side, self.images, device)?;
        let shape = [self.images, self.side, self.side, 3];
        let draw = |name: &str, std| random(name, &shape, std, DType::F32, &Device::Cpu);
        let shared = draw("images", 0.8)?;
        let view = |name: &str| -> Result<Tensor> {
            Ok((&shared + draw(name, 0.6)?)?.to_dtype(self.precision.dtype())?.to_device(device)?)
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
    /// A step; gives the loss, which nobody has waited for, and, if asked, the norm of each parameter's gradient.
    fn step(&mut self, norms: bool) -> Result<(Tensor, Vec<f32>)> {
        let at = Step { index: self.index, total: u64::MAX, epoch: 0, steps_per_epoch: u64::MAX };
        self.method.before_step(at)?;
        let forward = self.method.forward(&self.batch)?;
        let loss = forward.loss.total.detach();
        let gradients = backward(&forward.loss.total)?;
        drop(forward);
        let mut found = Vec::new();
        if norms {
            for (name, param) in self.method.params().trainable() {
                let gradient = gradients.get(&param.var).with_context(|| format!("{name} has no gradient"))?;
                let gradient = gradient.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                found.push(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt());
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
        let losses = Tensor::new(&[first.to_scalar::<f32>()?, second.to_scalar()?], &Device::Cpu)?;
        Ok([("losses".into(), losses), ("gradient norms".into(), Tensor::new(norms, &Device::Cpu)?)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.step(false).map(drop)
    }
}
