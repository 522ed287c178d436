//! Batch norm with ReLU, and with a residual sum before it: forward and backward in one run.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use diptych_kernels::batch_norm::{Backward, Forward, Options, backward, forward};
use serde_json::{Value, json};

use super::{DTYPES, layouts, name, size};
use crate::case::{Case, Runner, Tensors, Tolerance, Work};
use crate::input::random;

/// PyTorch's.
const EPS: f64 = 1e-5;

#[derive(Clone, Copy, Debug)]
struct BatchNorm {
    net: &'static str,
    shape: [usize; 4],
    residual: bool,
    dtype: DType,
}

pub(super) fn cases() -> Vec<Box<dyn Case>> {
    let large = [(112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048)];
    let small = [(32, 64), (16, 128), (8, 256), (4, 512)];
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for dtype in DTYPES {
        for (net, n, sizes) in [("resnet50", 16, &large[..]), ("resnet18_cifar", 128, &small[..])] {
            for &(side, channels) in sizes {
                // The sum is at the end of a block: behind the expansion of a bottleneck, or in any basic block.
                let residual = n == 128 || channels >= 256;
                cases.push(Box::new(BatchNorm { net, shape: [n, side, side, channels], residual, dtype }));
            }
        }
    }
    cases
}

impl Case for BatchNorm {
    fn name(&self) -> String {
        let add = if self.residual { "add_" } else { "" };
        let [_, side, _, channels] = self.shape;
        format!("batch_norm_{add}relu_{}_{channels}_at{side}_{}", self.net, name(self.dtype))
    }

    fn groups(&self) -> Vec<String> {
        let add = if self.residual { " + add" } else { "" };
        vec![format!("batch norm{add} + ReLU {}", name(self.dtype))]
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    /// A value that rounding puts on the other side of ReLU's 0 has its gradient in one and not in the other, and that is as large as
    /// any: a few of ten million in f32, some in a thousand in bf16, where PyTorch also rounds between its three ops. So the norm
    /// decides, and the largest difference only has to be that of one gradient.
    fn tolerance(&self) -> Tolerance {
        let norm = if self.dtype == DType::BF16 { 5e-2 } else { 5e-3 };
        Tolerance { norm, largest: 2.0 }
    }

    fn spec(&self) -> Value {
        json!({ "kind": "batch_norm", "dtype": name(self.dtype), "residual": self.residual, "eps": EPS })
    }

    fn variants(&self) -> Vec<&'static str> {
        layouts()
    }

    fn work(&self) -> Work {
        // x twice and y (statistics, then values); dy and x twice (sums, then gradients), dx. The residual is read, its
        // gradient written.
        let passes = if self.residual { 10.0 } else { 8.0 };
        Work { flops: 0.0, bytes: passes * size(self.dtype) * self.shape.iter().product::<usize>() as f64 }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let channels = self.shape[3];
        let draw = |name: &str| random(name, &self.shape, 1.0, self.dtype, device);
        let vector = |name: &str| random(name, &[channels], 0.3, DType::F32, device);
        Ok(Box::new(Running {
            x: draw("x")?,
            residual: if self.residual { Some(draw("residual")?) } else { None },
            gamma: (vector("gamma")? + 1.0)?,
            beta: vector("beta")?,
            // Around 1, so that the sums over rows are of the size of what is summed and not of its chance.
            dy: (draw("dy")? + 1.0)?,
            given_away: None,
        }))
    }
}

struct Running {
    x: Tensor,
    residual: Option<Tensor>,
    gamma: Tensor,
    beta: Tensor,
    dy: Tensor,
    /// Copies of x and dy, which the backward pass writes over, as it does in a training step.
    given_away: Option<(Tensor, Tensor)>,
}

impl Running {
    fn pass(&mut self) -> Result<(Tensor, Backward)> {
        let (x, dy) = self.given_away.take().context("run without reset")?;
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
        self.reset()?;
        let (y, gradients) = self.pass()?;
        let Backward { dx, dgamma, dbeta, dresidual } = gradients;
        let named = [("y", y), ("x.grad", dx), ("gamma.grad", dgamma), ("beta.grad", dbeta)];
        let residual = dresidual.map(|tensor| ("residual.grad", tensor));
        Ok(named.into_iter().chain(residual).map(|(name, tensor)| (name.to_string(), tensor)).collect())
    }

    fn reset(&mut self) -> Result<()> {
        self.given_away = Some((self.x.copy()?, self.dy.copy()?));
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.pass().map(drop)
    }
}
