//! The stem's max pooling, forward and backward in one run.

use anyhow::Result;
use candle_core::{Device, Tensor};
use diptych_kernels::pool::{max_backward, max_forward};
use serde_json::{Value, json};

use super::layouts;
use crate::case::{Case, Precision, Runner, Scale, Tensors, Work};
use crate::input::random;

/// Behind the stem of a ResNet-50: 3x3, stride 2.
struct MaxPool {
    n: usize,
    side: usize,
    channels: usize,
    precision: Precision,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let (n, side, channels) = match scale {
        Scale::Cpu => (16, 112, 64),
        Scale::Gpu => (256, 112, 64),
        Scale::Tiny => (2, 6, 12),
    };
    [Precision::F32, Precision::Bf16]
        .map(|precision| Box::new(MaxPool { n, side, channels, precision }) as Box<dyn Case>)
        .into()
}

impl MaxPool {
    fn input(&self) -> [usize; 4] {
        [self.n, self.side, self.side, self.channels]
    }

    fn output(&self) -> [usize; 4] {
        [self.n, self.side / 2, self.side / 2, self.channels]
    }
}

impl Case for MaxPool {
    fn name(&self) -> String {
        format!("max_pool_resnet50_3x3s2_{}_at{}_{}", self.channels, self.side, self.precision.name())
    }

    fn groups(&self) -> Vec<String> {
        vec![format!("max pool {}", self.precision.name())]
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn spec(&self) -> Value {
        json!({ "kind": "max_pool", "kernel": 3, "stride": 2, "padding": 1 })
    }

    fn variants(&self) -> Vec<&'static str> {
        layouts()
    }

    fn work(&self) -> Work {
        let count = |dims: [usize; 4]| dims.iter().product::<usize>() as f64;
        Work { flops: 0.0, bytes: 2.0 * self.precision.size() * (count(self.input()) + count(self.output())) }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let draw = |name: &str, shape: [usize; 4]| random(name, &shape, 1.0, self.precision.dtype(), device);
        Ok(Box::new(Running { x: draw("x", self.input())?, dy: draw("dy", self.output())?, input: self.input() }))
    }
}

struct Running {
    x: Tensor,
    dy: Tensor,
    input: [usize; 4],
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("x".into(), self.x.clone()), ("dy".into(), self.dy.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let (y, places) = max_forward(&self.x, 3, 2, 1)?;
        let dx = max_backward(&self.dy, &places, self.input, 3, 2, 1)?;
        Ok([("y".into(), y), ("x.grad".into(), dx)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
