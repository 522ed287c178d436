//! A plain copy: the bandwidth that others are held against, as a case of its own.

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use crate::case::{Case, Precision, Runner, Scale, Tensors, Work};
use crate::input::random;

struct Copy {
    values: usize,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let values = match scale {
        Scale::Cpu => 1 << 26,
        Scale::Gpu => 1 << 28,
        Scale::Tiny => 1000,
    };
    vec![Box::new(Copy { values })]
}

impl Case for Copy {
    fn name(&self) -> String {
        match self.values >> 20 {
            0 => "copy_small".to_string(),
            millions => format!("copy_{}mib", 4 * millions),
        }
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn spec(&self) -> Value {
        json!({ "kind": "copy" })
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["clone"]
    }

    fn work(&self) -> Work {
        Work { flops: 0.0, bytes: 2.0 * 4.0 * self.values as f64 }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        Ok(Box::new(Running(random("x", &[self.values], 1.0, Precision::F32.dtype(), device)?)))
    }
}

struct Running(Tensor);

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("x".into(), self.0.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        Ok([("y".into(), self.0.copy()?)].into())
    }

    fn run(&mut self) -> Result<()> {
        self.outputs().map(drop)
    }
}
