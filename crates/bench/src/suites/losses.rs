//! Losses, forward and backward in one run, against lightly and against a plain PyTorch version.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Var};
use diptych_losses::{Balance, BarlowTwins, NtXent};
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Precision, Runner, Scale, Tensors, Tolerance, Work};
use crate::input::{random, variable};

const TEMPERATURE: f64 = 0.1;
const LAMBDA: f64 = 0.0051;

#[derive(Clone, Copy)]
enum Kind {
    NtXent,
    BarlowTwins,
}

/// A loss of two views' embeddings, each `[n, d]`.
#[derive(Clone, Copy)]
struct LossCase {
    kind: Kind,
    n: usize,
    d: usize,
    precision: Precision,
    scale: Scale,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let (contrast, twins) = match scale {
        Scale::Cpu => (vec![(4096, 128), (256, 128)], vec![(256, 8192), (4096, 2048), (1024, 2048)]),
        Scale::Gpu => (vec![(32_768, 128), (4096, 128), (512, 128)], vec![(1024, 8192), (256, 8192), (4096, 2048)]),
        Scale::Tiny => (vec![(24, 16), (37, 24)], vec![(12, 40), (40, 16)]),
    };
    // On the CPU losses are f32 always.
    let precisions = if scale == Scale::Cpu { &[Precision::F32][..] } else { Precision::of(scale) };
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for &precision in precisions {
        for (kind, sizes) in [(Kind::NtXent, &contrast), (Kind::BarlowTwins, &twins)] {
            for &(n, d) in sizes {
                cases.push(Box::new(LossCase { kind, n, d, precision, scale }));
            }
        }
    }
    cases
}

impl Case for LossCase {
    fn name(&self) -> String {
        let Self { n, d, .. } = self;
        // CPU figures of the past have no precision in their names.
        let precision = if self.scale == Scale::Cpu { String::new() } else { format!("_{}", self.precision.name()) };
        match self.kind {
            Kind::NtXent => format!("nt_xent_2n{}_d{d}{precision}", 2 * n),
            Kind::BarlowTwins => format!("barlow_twins_n{n}_d{d}{precision}"),
        }
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn tolerance(&self) -> Tolerance {
        // Gradients are sums of many terms that cancel.
        match self.precision {
            Precision::F32 => Tolerance { norm: 1e-3, largest: 5e-3 },
            Precision::Tf32 => Tolerance { norm: 5e-3, largest: 2e-2 },
            Precision::Bf16 => Tolerance { norm: 3e-2, largest: 1e-1 },
        }
    }

    fn spec(&self) -> Value {
        match self.kind {
            Kind::NtXent => json!({ "kind": "nt_xent", "temperature": TEMPERATURE }),
            Kind::BarlowTwins => json!({ "kind": "barlow_twins", "lambda": LAMBDA }),
        }
    }

    fn variants(&self) -> Vec<&'static str> {
        match (self.scale, self.kind) {
            (Scale::Cpu, _) => vec!["lightly", "plain"],
            (_, Kind::NtXent) => vec!["plain", "chunked", "compile", "chunked_compile"],
            (_, Kind::BarlowTwins) => vec!["lightly", "plain", "compile"],
        }
    }

    fn bars(&self) -> Vec<Bar> {
        if self.scale != Scale::Gpu {
            return Vec::new();
        }
        let (n, d, precision) = (self.n, self.d, self.precision.name());
        match (self.kind, n, d) {
            (Kind::NtXent, 32_768, _) if self.precision == Precision::Bf16 => {
                let what = format!("NT-Xent, 2N = 65,536, D = 128, {precision}");
                // O(N D): sixteen times both views in f32; the matrix of similarities would be 256 times.
                let room = 16.0 * 2.0 * 4.0 * (n * d) as f64;
                vec![
                    Bar::new(format!("{what}: against PyTorch's best that fits"), Measure::Best, 3.0),
                    Bar::new(format!("{what}: 16 times both views over peak memory"), Measure::Memory(room), 1.0),
                ]
            }
            (Kind::BarlowTwins, 1024, 8192) => {
                let what = format!("Barlow Twins loss, N = 1024, D = 8192, {precision}: against PyTorch's best");
                vec![Bar::new(what, Measure::Best, 4.0)]
            }
            _ => Vec::new(),
        }
    }

    fn work(&self) -> Work {
        let (n, d) = (self.n as f64, self.d as f64);
        // NT-Xent: the symmetric 2N x 2N products once, and one product for the gradient. Barlow Twins: one product forward
        // and two backward in the cheaper of its two forms, of which the dual's two are symmetric.
        let flops = match self.kind {
            Kind::NtXent => (1.0 + 2.0) * (2.0 * n).powi(2) * d,
            Kind::BarlowTwins => 6.0 * n * d * n.min(d),
        };
        // Both views read, both gradients written.
        Work { flops, bytes: 4.0 * self.precision.size() * n * d }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        // What views share, and what is each one's own: embeddings of training look alike in pairs.
        let draw = |name: &str| random(name, &[self.n, self.d], 1.0, DType::F32, &Device::Cpu);
        let shared = draw("shared")?;
        let view = |name: &str| -> Result<Var> {
            variable(&(&shared + draw(name)?)?.to_dtype(self.precision.dtype())?.to_device(device)?)
        };
        Ok(Box::new(Running { case: *self, z1: view("z1")?, z2: view("z2")? }))
    }
}

struct Running {
    case: LossCase,
    z1: Var,
    z2: Var,
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("z1".into(), self.z1.as_detached_tensor()), ("z2".into(), self.z2.as_detached_tensor())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let loss = match self.case.kind {
            Kind::NtXent => NtXent::new(TEMPERATURE).loss(&self.z1, &self.z2)?,
            Kind::BarlowTwins => BarlowTwins { balance: Balance::Lambda(LAMBDA) }.loss(&self.z1, &self.z2)?,
        };
        let mut gradients = loss.total.backward()?;
        let mut tensors: Tensors = [("loss".into(), loss.total.detach())].into();
        for (name, var) in [("z1.grad", &self.z1), ("z2.grad", &self.z2)] {
            tensors.insert(name.into(), gradients.remove(var).with_context(|| format!("there is no {name}"))?);
        }
        Ok(tensors)
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
