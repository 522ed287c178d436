//! Batch norm over the last dimension, fused with a residual add and ReLU: one node of the graph instead of a dozen.
//!
//! `y = relu?(gamma (x - mean) / sqrt(var + eps) + beta + residual)`, Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithm 1.
//! ReLU's derivative at 0 is 0, so with a gamma of zeros and no residual nothing flows, as in PyTorch.
//!
//! gamma and beta travel as one `[2C]` tensor, since a custom op has at most three inputs; the statistics of the forward pass sit in
//! the op value, since a custom op has one output.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

use crate::dense::{Dense, input, slice};

pub mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

const NAME: &str = "batch_norm";

/// What [`batch_norm_train`] returns.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// The output, of x's shape.
    pub y: Tensor,
    /// The batch's mean, `[C]`, detached: for the running statistics.
    pub mean: Tensor,
    /// The batch's biased variance (divided by the number of rows), `[C]`, detached.
    pub var: Tensor,
}

/// Batch norm with the batch's own statistics, then `+ residual` and ReLU if asked.
///
/// `x`: `[.., C]` of rank 2 or more; rows are all but the last dimension. `gamma`, `beta`: `[C]`, 1 and 0 where None. `residual`: x's shape.
/// Gradients are exact for x, gamma, beta and residual. Statistics are accurate for any mean and do not depend on the number of threads.
/// One row (N H W = 1) has variance 0: y is beta (+ residual), and x gets a gradient of 0.
///
/// # Errors
/// If a shape does not fit, there is no row, `eps` is not positive and finite, or a tensor is not f32 on the CPU.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    residual: Option<&Tensor>,
    relu: bool,
    eps: f64,
) -> Result<BatchNorm> {
    let channels = check(x, residual, eps)?;
    let state = Arc::new(OnceLock::new());
    let op = Op { eps, relu, fixed: None, state: state.clone() };
    let y = run(op, x, gamma, beta, residual, channels)?;
    let Some(state) = state.get() else { bail!("{NAME}: the forward pass left no statistics") };
    let mean = Tensor::from_vec(state.saved.mean.clone(), channels, &Device::Cpu)?;
    let var = Tensor::from_vec(state.var.clone(), channels, &Device::Cpu)?;
    Ok(BatchNorm { y, mean, var })
}

/// Batch norm with given statistics (evaluation mode), then `+ residual` and ReLU if asked.
///
/// Shapes as in [`batch_norm_train`]; `mean` and `var` (biased or not, as you keep it): `[C]`, constants: no gradient reaches them.
/// x, gamma, beta and residual get theirs.
///
/// # Errors
/// As [`batch_norm_train`], and if `mean` or `var` is not `[C]`.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_eval(
    x: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    mean: &Tensor,
    var: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
    eps: f64,
) -> Result<Tensor> {
    let channels = check(x, residual, eps)?;
    let values = |name: &str, t: &Tensor| -> Result<Vec<f64>> {
        per_channel(name, t, channels)?;
        t.to_dtype(DType::F64)?.to_vec1()
    };
    let (mean, var) = (values("mean", mean)?, values("var", var)?);
    let op = Op { eps, relu, fixed: Some((mean, var)), state: Arc::new(OnceLock::new()) };
    run(op, x, gamma, beta, residual, channels)
}

fn check(x: &Tensor, residual: Option<&Tensor>, eps: f64) -> Result<usize> {
    let &[.., channels] = x.dims() else { bail!("{NAME}: x is a scalar; expected [.., C]") };
    if x.rank() < 2 || x.elem_count() == 0 {
        bail!("{NAME}: x has shape {:?}; expected [.., C] with at least one row", x.dims())
    }
    if let Some(r) = residual
        && r.dims() != x.dims()
    {
        bail!("{NAME}: the residual has shape {:?}, x {:?}", r.dims(), x.dims())
    }
    if !(eps > 0.0 && eps.is_finite()) {
        bail!("{NAME}: eps is {eps}; expected a positive number, usually 1e-5")
    }
    Ok(channels)
}

fn per_channel(name: &str, t: &Tensor, channels: usize) -> Result<()> {
    if t.dims() != [channels] {
        bail!("{NAME}: {name} has shape {:?}; x has {channels} channels", t.dims())
    }
    Ok(())
}

fn run(
    op: Op,
    x: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    residual: Option<&Tensor>,
    channels: usize,
) -> Result<Tensor> {
    let affine = |name: &str, t: Option<&Tensor>, default: f32| match t {
        Some(t) => per_channel(name, t, channels).and_then(|()| input(NAME, name, t)),
        None => Tensor::full(default, channels, &Device::Cpu),
    };
    let gamma_beta = Tensor::cat(&[affine("gamma", gamma, 1.0)?, affine("beta", beta, 0.0)?], 0)?;
    let x = input(NAME, "x", x)?;
    match residual {
        None => x.apply_op2(&gamma_beta, op),
        Some(r) => x.apply_op3(&gamma_beta, &input(NAME, "residual", r)?, op),
    }
}

struct State {
    saved: cpu::Saved,
    /// Biased variance of the batch; empty in evaluation mode.
    var: Vec<f32>,
}

struct Op {
    eps: f64,
    relu: bool,
    /// Mean and variance of evaluation mode.
    fixed: Option<(Vec<f64>, Vec<f64>)>,
    state: Arc<OnceLock<State>>,
}

impl Op {
    fn forward(&self, x: &[f32], gamma_beta: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let channels = gamma_beta.len() / 2;
        let state = self.state.get_or_init(|| match &self.fixed {
            Some((mean, var)) => State { saved: cpu::Saved::new(mean, var, self.eps), var: Vec::new() },
            None => {
                let moments = cpu::statistics(x, channels);
                let var: Vec<f64> = moments.m2.iter().map(|m2| m2 / moments.count).collect();
                let saved = cpu::Saved::new(&moments.mean, &var, self.eps);
                State { saved, var: var.iter().map(|&v| v as f32).collect() }
            }
        });
        let (gamma, beta) = gamma_beta.split_at(channels);
        cpu::apply(x, gamma, beta, residual, self.relu, &state.saved)
    }

    /// Gradients of x, of gamma and beta as `[2C]`, and of the residual where there is one; x's only if something asks for it.
    fn backward(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        residual: bool,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Tensor, Option<Tensor>)> {
        let Some(state) = self.state.get() else { bail!("{NAME}: backward before forward") };
        // With a residual the masked gradient is a result of its own: made once, then used without the mask.
        let masked = match (residual, self.relu) {
            (true, true) => {
                let dy = dy.contiguous()?;
                let d = cpu::relu_gradient(&Dense::new(NAME, &dy)?, &Dense::new(NAME, y)?);
                Some(Tensor::from_vec(d, y.shape(), &Device::Cpu)?)
            }
            (true, false) => Some(dy.contiguous()?),
            (false, _) => None,
        };
        let dy = match &masked {
            Some(masked) => masked.clone(),
            None => dy.contiguous()?,
        };
        let (dy, y_values) = (Dense::new(NAME, &dy)?, Dense::new(NAME, y)?);
        let y_values = (self.relu && !residual).then_some(&*y_values);
        let (x_values, gamma_beta_values) = (Dense::new(NAME, x)?, Dense::new(NAME, gamma_beta)?);
        let gamma = &gamma_beta_values[..gamma_beta_values.len() / 2];

        let sums = cpu::backward_sums(&dy, y_values, &x_values, &state.saved);
        let dx = if x.track_op() {
            let sums = self.fixed.is_none().then_some(&sums);
            let dx = cpu::backward_apply(&dy, y_values, &x_values, gamma, &state.saved, sums);
            Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?)
        } else {
            None
        };
        let affine: Vec<f32> = sums.gamma.iter().chain(&sums.beta).map(|&v| v as f32).collect();
        Ok((dx, Tensor::from_vec(affine, gamma_beta.shape(), &Device::Cpu)?, masked))
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(slice(NAME, s1, l1)?, slice(NAME, s2, l2)?, None);
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, daffine, _) = self.backward(x, gamma_beta, false, y, dy)?;
        Ok((dx, Some(daffine)))
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(slice(NAME, s1, l1)?, slice(NAME, s2, l2)?, Some(slice(NAME, s3, l3)?));
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        _residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, daffine, dresidual) = self.backward(x, gamma_beta, true, y, dy)?;
        Ok((dx, Some(daffine), dresidual))
    }
}
