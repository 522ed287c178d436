//! Linear layers of projectors, forward and backward in one run.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_kernels::linear;
use serde_json::{Value, json};

use super::{DTYPES, name, size};
use crate::case::{Case, Runner, Tensors, Work};
use crate::input::random;

/// Rows, inputs and outputs: SimCLR's on CIFAR, and the first and second of Barlow Twins.
const SIZES: [[usize; 3]; 4] = [[128, 512, 512], [256, 2048, 2048], [32, 2048, 8192], [256, 2048, 8192]];

struct Linear {
    size: [usize; 3],
    dtype: DType,
}

pub(super) fn cases() -> Vec<Box<dyn Case>> {
    let each = |dtype| SIZES.into_iter().map(move |size| Box::new(Linear { size, dtype }) as Box<dyn Case>);
    DTYPES.into_iter().flat_map(each).collect()
}

impl Case for Linear {
    fn name(&self) -> String {
        let [rows, inputs, outputs] = self.size;
        format!("linear_{inputs}to{outputs}_rows{rows}_{}", name(self.dtype))
    }

    fn groups(&self) -> Vec<String> {
        vec![format!("linear {}", name(self.dtype))]
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn spec(&self) -> Value {
        json!({ "kind": "linear", "dtype": name(self.dtype) })
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["linear"]
    }

    fn work(&self) -> Work {
        let [rows, inputs, outputs] = self.size.map(|n| n as f64);
        let activations = 2.0 * rows * (inputs + outputs) * size(self.dtype);
        // The weight twice, its gradient once.
        Work { flops: 6.0 * rows * inputs * outputs, bytes: activations + 12.0 * inputs * outputs }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let [rows, inputs, outputs] = self.size;
        let w = random("w", &[outputs, inputs], (inputs as f64).sqrt().recip(), DType::F32, device)?;
        Ok(Box::new(Running {
            x: random("x", &[rows, inputs], 1.0, self.dtype, device)?,
            w,
            dy: random("dy", &[rows, outputs], 1.0, self.dtype, device)?,
        }))
    }
}

struct Running {
    x: Tensor,
    w: Tensor,
    dy: Tensor,
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let Self { x, w, dy } = self;
        Ok([("x".into(), x.clone()), ("w".into(), w.clone()), ("dy".into(), dy.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let y = linear::linear(&self.x, &self.w, None)?;
        let dx = linear::input_grad(&self.w, &self.dy)?;
        let dw = linear::weight_grad(&self.x, &self.dy)?;
        Ok([("y".into(), y), ("x.grad".into(), dx), ("w.grad".into(), dw)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
