//! Linear layers of projectors, forward and backward in one run.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use diptych_kernels::linear;
use serde_json::{Value, json};

use super::{DTYPES, name, size};
use crate::case::{Case, Runner, Tensors, Work};
use crate::input::{pull, random, variable};

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
            x: variable(&random("x", &[rows, inputs], 1.0, self.dtype, device)?)?,
            w: variable(&w)?,
            dy: random("dy", &[rows, outputs], 1.0, self.dtype, device)?,
        }))
    }
}

struct Running {
    x: Var,
    w: Var,
    dy: Tensor,
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let (x, w) = (self.x.as_detached_tensor(), self.w.as_detached_tensor());
        Ok([("x".into(), x), ("w".into(), w), ("dy".into(), self.dy.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let y = linear(&self.x, &self.w, None)?;
        let mut gradients = pull(&y, &self.dy)?.backward()?;
        let mut tensors: Tensors = [("y".into(), y.detach())].into();
        for (name, var) in [("x.grad", &self.x), ("w.grad", &self.w)] {
            tensors.insert(name.into(), gradients.remove(var).with_context(|| format!("there is no {name}"))?);
        }
        Ok(tensors)
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
