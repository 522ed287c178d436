//! Batch norm with ReLU, and with a residual sum before it: forward and backward in one run.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use diptych_kernels::batch_norm::{Backward, Forward, Options, backward, forward};
use serde_json::{Value, json};

use super::layouts;
use crate::bars::{Bar, Measure};
use crate::case::{Case, Precision, Runner, Scale, Tensors, Tolerance, Work};
use crate::input::random;

/// Bytes for what runs use up.
const ROOM: usize = 16 << 30;

/// PyTorch's.
const EPS: f64 = 1e-5;

#[derive(Clone, Copy, Debug)]
struct BatchNorm {
    net: &'static str,
    shape: [usize; 4],
    residual: bool,
    precision: Precision,
    scale: Scale,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let large = [(112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048)];
    let small = [(32, 64), (16, 128), (8, 256), (4, 512)];
    // The sum is at the end of a block: behind the expansion of a bottleneck, or in any basic block.
    let expanded = |&(side, channels): &(usize, usize)| (side, channels, channels >= 256);
    let basic = |&(side, channels): &(usize, usize)| (side, channels, true);
    let nets = match scale {
        Scale::Cpu | Scale::Gpu => {
            let (n, m) = if scale == Scale::Cpu { (16, 128) } else { (256, 1024) };
            let large = large.iter().map(expanded).collect::<Vec<_>>();
            vec![("resnet50", n, large), ("resnet18_cifar", m, small.iter().map(basic).collect())]
        }
        Scale::Tiny => vec![("tiny", 2, vec![(6, 16, true), (5, 8, false), (3, 13, true)])],
    };
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        for (net, n, sizes) in &nets {
            for &(side, channels, residual) in sizes {
                let shape = [*n, side, side, channels];
                cases.push(Box::new(BatchNorm { net, shape, residual, precision, scale }));
            }
        }
    }
    cases
}

impl Case for BatchNorm {
    fn name(&self) -> String {
        let add = if self.residual { "add_" } else { "" };
        let [_, side, _, channels] = self.shape;
        format!("batch_norm_{add}relu_{}_{channels}_at{side}_{}", self.net, self.precision.name())
    }

    fn groups(&self) -> Vec<String> {
        let add = if self.residual { " + add" } else { "" };
        vec![format!("batch norm{add} + ReLU {}", self.precision.name())]
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    /// A value that rounding puts on the other side of ReLU's 0 has its gradient in one and not in the other, and that is as large as
    /// any: a few of ten million in f32, some in a thousand in bf16, where PyTorch also rounds between its three ops. So the norm
    /// decides, and the largest difference only has to be that of one gradient.
    fn tolerance(&self) -> Tolerance {
        let norm = if self.precision == Precision::Bf16 { 5e-2 } else { 5e-3 };
        Tolerance { norm, largest: 2.0 }
    }

    fn spec(&self) -> Value {
        json!({ "kind": "batch_norm", "residual": self.residual, "eps": EPS })
    }

    fn variants(&self) -> Vec<&'static str> {
        let compiled = (self.scale == Scale::Gpu).then_some("compile");
        layouts().into_iter().chain(compiled).collect()
    }

    fn bars(&self) -> Vec<Bar> {
        let asked = self.scale == Scale::Gpu && self.residual && self.net == "resnet50";
        let what = format!("batch norm + add + ReLU, {}: share of the copy's bandwidth", self.precision.name());
        if asked { vec![Bar::new(what, Measure::Bandwidth, 0.8)] } else { Vec::new() }
    }

    fn work(&self) -> Work {
        // x twice and y (statistics, then values); dy and x twice (sums, then gradients), dx. The residual is read, its
        // gradient written.
        let passes = if self.residual { 10.0 } else { 8.0 };
        Work { flops: 0.0, bytes: passes * self.precision.size() * self.shape.iter().product::<usize>() as f64 }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let channels = self.shape[3];
        let cpu = &Device::Cpu;
        let draw = |name: &str| random(name, &self.shape, 1.0, self.precision.dtype(), cpu);
        let vector = |name: &str| random(name, &[channels], 0.3, DType::F32, cpu);
        Ok(Box::new(Running {
            x: draw("x")?.to_device(device)?,
            residual: if self.residual { Some(draw("residual")?.to_device(device)?) } else { None },
            gamma: (vector("gamma")? + 1.0)?.to_device(device)?,
            beta: vector("beta")?.to_device(device)?,
            // Around 1, so that the sums over rows are of the size of what is summed and not of its chance.
            dy: (draw("dy")? + 1.0)?.to_device(device)?,
            given_away: Vec::new(),
        }))
    }
}

struct Running {
    x: Tensor,
    residual: Option<Tensor>,
    gamma: Tensor,
    beta: Tensor,
    dy: Tensor,
    /// Copies of x and dy for each run, which the backward pass writes over, as it does in a training step.
    given_away: Vec<(Tensor, Tensor)>,
}

impl Running {
    fn pass(&mut self) -> Result<(Tensor, Backward)> {
        let (x, dy) = self.given_away.pop().context("run without reset")?;
        let options = Options { eps: EPS, relu: true, ..Options::default() };
        let Forward { y, saved, .. } = forward(&x, &self.gamma, &self.beta, self.residual.as_ref(), &options)?;
        let gradients = backward(&saved, x, &y, dy, &self.gamma, self.residual.is_some())?;
        Ok((y, gradients))
    }
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let mut inputs: Tensors = [("x", &self.x), ("gamma", &self.gamma), ("beta", &self.beta), ("dy", &self.dy)]
            .map(|(name, tensor)| (name.to_string(), tensor.clone()))
            .into();
        inputs.extend(self.residual.iter().map(|residual| ("residual".to_string(), residual.clone())));
        Ok(inputs)
    }

    fn outputs(&mut self) -> Result<Tensors> {
        self.reset(1)?;
        let (y, gradients) = self.pass()?;
        let Backward { dx, dgamma, dbeta, dresidual } = gradients;
        let named = [("y", y), ("x.grad", dx), ("gamma.grad", dgamma), ("beta.grad", dbeta)];
        let residual = dresidual.map(|tensor| ("residual.grad", tensor));
        Ok(named.into_iter().chain(residual).map(|(name, tensor)| (name.to_string(), tensor)).collect())
    }

    fn reset(&mut self, runs: usize) -> Result<()> {
        self.given_away.clear();
        for _ in 0..runs {
            self.given_away.push((self.x.copy()?, self.dy.copy()?));
        }
        Ok(())
    }

    fn at_once(&self) -> usize {
        let bytes = 2 * self.x.elem_count() * self.x.dtype().size_in_bytes();
        (ROOM / bytes).max(1)
    }

    fn run(&mut self) -> Result<()> {
        self.pass().map(drop)
    }
}
