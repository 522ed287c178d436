//! Batch norm as a node of Candle's graph.
//!
//! gamma and beta travel as one `[2C]` tensor, since a custom op has at most three inputs; what the backward pass needs beyond its
//! arguments sits in the op value, since a custom op has one output.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};
use half::bf16;

use super::cut::filled;
use super::explicit::{Saved, all_moments, forward_from, forward_values, parameter_gradients};
use super::{NAME, Options, check, per_channel};
use crate::dense::{Dense, Element, activation, input, tensor};

/// What [`batch_norm_train`] returns.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// The output, of x's shape and type.
    pub y: Tensor,
    /// The batch's mean, f32, `[C]` (`[groups, C]` where there is more than one), detached: for the running statistics.
    pub mean: Tensor,
    /// The batch's biased variance (divided by the number of rows), as `mean`.
    pub var: Tensor,
    /// Rows that each mean and variance is of: N H W over the groups, times the ranks.
    pub rows: usize,
}

/// Batch norm with the batch's own statistics, then `+ residual` and ReLU if asked.
///
/// `x`: `[N, .., C]` of rank 2 or more, f32 or bf16; rows are all but the last dimension. `gamma`, `beta`: `[C]`, f32, 1 and 0 where None.
/// `residual`: x's shape and type. Gradients are exact for x, gamma, beta and residual. Statistics are accurate for any mean and do not depend
/// on the number of threads. One row (N H W = 1) has variance 0: y is beta (+ residual), and x gets a gradient of 0.
///
/// # Errors
/// If a shape or a type does not fit, there is no row, `eps` is not positive and finite, or a tensor is not on the CPU.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    residual: Option<&Tensor>,
    relu: bool,
    eps: f64,
) -> Result<BatchNorm> {
    batch_norm_train_with(x, gamma, beta, residual, &Options { eps, relu, ..Options::default() })
}

/// [`batch_norm_train`] with statistics per group of images, or over ranks.
///
/// # Errors
/// As [`batch_norm_train`], and if N is not a multiple of the groups or ranks do not answer.
pub fn batch_norm_train_with(
    x: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    residual: Option<&Tensor>,
    options: &Options,
) -> Result<BatchNorm> {
    let inputs = Inputs::new(x, gamma, beta, residual, options.groups)?;
    let Inputs { x, gamma, beta, residual } = &inputs;
    let moments = all_moments(x, options)?;
    let (y, saved, mean, var) = forward_values(&moments, x, gamma, beta, residual.as_ref(), options)?;
    Ok(BatchNorm { y: inputs.node(y, saved, true)?, mean, var, rows: moments[0].count as usize })
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
    let inputs = Inputs::new(x, gamma, beta, residual, 1)?;
    let Inputs { x, gamma, beta, residual } = &inputs;
    let channels = gamma.elem_count();
    let values = |name: &str, t: &Tensor| -> Result<Vec<f64>> {
        per_channel(name, t, channels)?;
        t.to_dtype(DType::F64)?.to_vec1()
    };
    let statistics = [(values("mean", mean)?, values("var", var)?)];
    let options = Options { eps, relu, ..Options::default() };
    let (y, saved) = forward_from(&statistics, x, gamma, beta, residual.as_ref(), &options)?;
    inputs.node(y, saved, false)
}

/// Contiguous arguments whose shapes fit.
struct Inputs {
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    residual: Option<Tensor>,
}

impl Inputs {
    fn new(
        x: &Tensor,
        gamma: Option<&Tensor>,
        beta: Option<&Tensor>,
        residual: Option<&Tensor>,
        groups: usize,
    ) -> Result<Self> {
        let channels = check(x, residual, groups)?;
        let affine = |name: &str, t: Option<&Tensor>, default: f32| match t {
            Some(t) => per_channel(name, t, channels).and_then(|()| input(NAME, name, t)),
            None => Tensor::full(default, channels, &Device::Cpu),
        };
        let (gamma, beta) = (affine("gamma", gamma, 1.0)?, affine("beta", beta, 0.0)?);
        let residual = residual.map(|r| activation(NAME, "residual", r)).transpose()?;
        Ok(Self { x: activation(NAME, "x", x)?, gamma, beta, residual })
    }

    /// The node of the graph that gives `y`.
    fn node(&self, y: CpuStorage, saved: Saved, batch: bool) -> Result<Tensor> {
        let op = Op { y: Mutex::new(Some(y)), saved, batch };
        let gamma_beta = Tensor::cat(&[&self.gamma, &self.beta], 0)?;
        match &self.residual {
            None => self.x.apply_op2(&gamma_beta, op),
            Some(r) => self.x.apply_op3(&gamma_beta, r, op),
        }
    }
}

struct Op {
    /// The output, computed before Candle asks for it.
    y: Mutex<Option<CpuStorage>>,
    saved: Saved,
    /// The statistics are the batch's own, and x's gradient goes through them.
    batch: bool,
}

impl Op {
    fn forward(&self, shape: &Shape) -> Result<(CpuStorage, Shape)> {
        let y = self.y.lock().map_or(None, |mut y| y.take());
        match y {
            Some(y) => Ok((y, shape.clone())),
            None => bail!("{NAME}: an op value was used twice"),
        }
    }

    /// Gradients of x, of gamma and beta as `[2C]`, and of the residual where there is one; x's only if something asks for it.
    fn backward<T: Element>(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        residual: bool,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Tensor, Option<Tensor>)> {
        // With a residual the masked gradient is a result of its own: made once, then used without the mask.
        let dy = match residual && self.saved.relu() {
            true => crate::relu::relu_backward(y, dy)?,
            false => dy.contiguous()?,
        };
        let (x_values, dy_values) = (Dense::<T>::new(NAME, x)?, Dense::<T>::new(NAME, &dy)?);
        let gamma_beta_values = Dense::<f32>::new(NAME, gamma_beta)?;
        let gamma = &gamma_beta_values[..gamma_beta_values.len() / 2];
        let sums = self.saved.sums(&dy_values, &x_values, !residual);
        // Every rank must take part, whether or not its own x asks for a gradient.
        let all = if self.batch { Some(self.saved.all_sums(&sums)?) } else { None };
        let dx = if x.track_op() {
            let gradients = self.saved.input_gradients(gamma, !residual, all.as_deref());
            let part = x_values.len() / gradients.len();
            // SAFETY: the groups' parts cover everything, and `into` writes all of its part.
            let dx = unsafe {
                filled(x_values.len(), |dx| {
                    let arrays = dy_values.chunks_exact(part).zip(x_values.chunks_exact(part));
                    let groups = gradients.iter().zip(arrays).zip(dx.chunks_exact_mut(part));
                    groups.for_each(|((gradient, (dy, x)), dx)| gradient.into(dy, x, dx));
                })
            };
            Some(tensor(dx, x.shape())?)
        } else {
            None
        };
        let (dgamma, dbeta) = parameter_gradients(&sums)?;
        drop(dy_values);
        Ok((dx, Tensor::cat(&[dgamma, dbeta], 0)?, residual.then_some(dy)))
    }

    fn any_backward(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        residual: bool,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Tensor, Option<Tensor>)> {
        match x.dtype() {
            DType::BF16 => self.backward::<bf16>(x, gamma_beta, residual, y, dy),
            _ => self.backward::<f32>(x, gamma_beta, residual, y, dy),
        }
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, l1: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(l1.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, daffine, _) = self.any_backward(x, gamma_beta, false, y, dy)?;
        Ok((dx, Some(daffine)))
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        l1: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(l1.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma_beta: &Tensor,
        _residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, daffine, dresidual) = self.any_backward(x, gamma_beta, true, y, dy)?;
        Ok((dx, Some(daffine), dresidual))
    }
}
