//! Losses, forward and backward in one run, against lightly and against a plain PyTorch version.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Var};
use diptych_losses::{Balance, BarlowTwins, NtXent};
use serde_json::{Value, json};

use crate::case::{Case, Runner, Tensors, Tolerance, Work};
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
}

pub(super) fn cases() -> Vec<Box<dyn Case>> {
    let nt_xent = [(4096, 128), (256, 128)].map(|(n, d)| LossCase { kind: Kind::NtXent, n, d });
    let barlow = [(256, 8192), (4096, 2048), (1024, 2048)].map(|(n, d)| LossCase { kind: Kind::BarlowTwins, n, d });
    nt_xent.into_iter().chain(barlow).map(|case| Box::new(case) as Box<dyn Case>).collect()
}

impl Case for LossCase {
    fn name(&self) -> String {
        let Self { n, d, .. } = self;
        match self.kind {
            Kind::NtXent => format!("nt_xent_2n{}_d{d}", 2 * n),
            Kind::BarlowTwins => format!("barlow_twins_n{n}_d{d}"),
        }
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn tolerance(&self) -> Tolerance {
        // Gradients are sums of many terms that cancel.
        Tolerance { norm: 1e-3, largest: 5e-3 }
    }

    fn spec(&self) -> Value {
        match self.kind {
            Kind::NtXent => json!({ "kind": "nt_xent", "temperature": TEMPERATURE }),
            Kind::BarlowTwins => json!({ "kind": "barlow_twins", "lambda": LAMBDA }),
        }
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["lightly", "plain"]
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
        Work { flops, bytes: 4.0 * 4.0 * n * d }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        // What views share, and what is each one's own: embeddings of training look alike in pairs.
        let draw = |name: &str| random(name, &[self.n, self.d], 1.0, DType::F32, device);
        let shared = draw("shared")?;
        let view = |name: &str| variable(&(&shared + draw(name)?)?);
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
