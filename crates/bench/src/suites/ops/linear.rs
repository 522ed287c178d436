//! Linear layers of projectors, forward and backward in one run.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_kernels::linear;
use serde_json::{Value, json};

use crate::case::{Case, Precision, Runner, Scale, Tensors, Work};
use crate::input::random;

/// Rows, inputs and outputs: SimCLR's on CIFAR, and the first and second of Barlow Twins.
const SIZES: [[usize; 3]; 4] = [[128, 512, 512], [256, 2048, 2048], [32, 2048, 8192], [256, 2048, 8192]];
const GPU_SIZES: [[usize; 3]; 4] = [[1024, 512, 512], [1024, 512, 128], [256, 2048, 8192], [256, 8192, 8192]];
const TINY_SIZES: [[usize; 3]; 2] = [[6, 16, 24], [5, 7, 9]];

struct Linear {
    size: [usize; 3],
    precision: Precision,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let sizes = match scale {
        Scale::Cpu => &SIZES[..],
        Scale::Gpu => &GPU_SIZES[..],
        Scale::Tiny => &TINY_SIZES[..],
    };
    let each = |&precision| sizes.iter().map(move |&size| Box::new(Linear { size, precision }) as Box<dyn Case>);
    Precision::of(scale).iter().flat_map(each).collect()
}

impl Case for Linear {
    fn name(&self) -> String {
        let [rows, inputs, outputs] = self.size;
        format!("linear_{inputs}to{outputs}_rows{rows}_{}", self.precision.name())
    }

    fn groups(&self) -> Vec<String> {
        vec![format!("linear {}", self.precision.name())]
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn spec(&self) -> Value {
        json!({ "kind": "linear" })
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["linear"]
    }

    fn work(&self) -> Work {
        let [rows, inputs, outputs] = self.size.map(|n| n as f64);
        let activations = 2.0 * rows * (inputs + outputs) * self.precision.size();
        // The weight twice, its gradient once.
        Work { flops: 6.0 * rows * inputs * outputs, bytes: activations + 12.0 * inputs * outputs }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let [rows, inputs, outputs] = self.size;
        let w = random("w", &[outputs, inputs], (inputs as f64).sqrt().recip(), DType::F32, device)?;
        Ok(Box::new(Running {
            x: random("x", &[rows, inputs], 1.0, self.precision.dtype(), device)?,
            w,
            dy: random("dy", &[rows, outputs], 1.0, self.precision.dtype(), device)?,
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
