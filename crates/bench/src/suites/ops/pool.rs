//! The stem's max pooling, forward and backward in one run.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_kernels::pool::{max_backward, max_forward};
use serde_json::{Value, json};

use super::{DTYPES, layouts, name, size};
use crate::case::{Case, Runner, Tensors, Work};
use crate::input::random;

/// Behind the stem of a ResNet-50 at 224 pixels: 3x3, stride 2.
const INPUT: [usize; 4] = [16, 112, 112, 64];
const OUTPUT: [usize; 4] = [16, 56, 56, 64];

struct MaxPool {
    dtype: DType,
}

pub(super) fn cases() -> Vec<Box<dyn Case>> {
    DTYPES.into_iter().map(|dtype| Box::new(MaxPool { dtype }) as Box<dyn Case>).collect()
}

impl Case for MaxPool {
    fn name(&self) -> String {
        format!("max_pool_resnet50_3x3s2_64_at112_{}", name(self.dtype))
    }

    fn groups(&self) -> Vec<String> {
        vec![format!("max pool {}", name(self.dtype))]
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn spec(&self) -> Value {
        json!({ "kind": "max_pool", "dtype": name(self.dtype), "kernel": 3, "stride": 2, "padding": 1 })
    }

    fn variants(&self) -> Vec<&'static str> {
        layouts()
    }

    fn work(&self) -> Work {
        let count = |dims: [usize; 4]| dims.iter().product::<usize>() as f64;
        Work { flops: 0.0, bytes: 2.0 * size(self.dtype) * (count(INPUT) + count(OUTPUT)) }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let x = random("x", &INPUT, 1.0, self.dtype, device)?;
        Ok(Box::new(Running { x, dy: random("dy", &OUTPUT, 1.0, self.dtype, device)? }))
    }
}

struct Running {
    x: Tensor,
    dy: Tensor,
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("x".into(), self.x.clone()), ("dy".into(), self.dy.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let (y, places) = max_forward(&self.x, 3, 2, 1)?;
        let dx = max_backward(&self.dy, &places, INPUT, 3, 2, 1)?;
        Ok([("y".into(), y), ("x.grad".into(), dx)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
