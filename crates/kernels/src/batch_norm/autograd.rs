//! Batch norm as a node of Candle's graph.
//!
//! gamma and beta travel as one `[2C]` tensor, since a custom op has at most three inputs; what the backward pass needs beyond its
//! arguments sits in the op value, since a custom op has one output.

use std::sync::Mutex;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, bail};
use half::bf16;

#[cfg(feature = "cuda")]
use super::cuda;
use super::cut::filled;
use super::explicit::{Output, forward_from, forward_values, parameter_gradients};
use super::inputs::Inputs;
use super::{NAME, Options, Saved, per_channel};
#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
use crate::dense::{Dense, Element, tensor};

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
/// If a shape or a type does not fit, there is no row, `eps` is not positive and finite, or tensors lie on several devices.
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
    let inputs = Inputs::new(x, gamma, beta, residual, options)?;
    let Output { y, saved, mean, var, rows } = forward_values(&inputs, options)?;
    Ok(BatchNorm { y: node(&inputs, y, saved, true)?, mean, var, rows })
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
    let options = Options { eps, relu, ..Options::default() };
    let inputs = Inputs::new(x, gamma, beta, residual, &options)?;
    per_channel("mean", mean, inputs.channels())?;
    per_channel("var", var, inputs.channels())?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        let (y, saved) = cuda::forward_constant(&gpu, mean, var, &inputs, &options)?;
        return node(&inputs, y, saved, false);
    }
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1();
    let (y, saved) = forward_from(&[(values(mean)?, values(var)?)], &inputs, &options)?;
    node(&inputs, y, saved, false)
}

/// The node of the graph that gives `y`.
fn node(inputs: &Inputs, y: Storage, saved: Saved, batch: bool) -> Result<Tensor> {
    let op = Op { y: Mutex::new(Some(y)), saved, batch };
    let gamma_beta = Tensor::cat(&[&inputs.gamma, &inputs.beta], 0)?;
    match &inputs.residual {
        None => inputs.x.apply_op2(&gamma_beta, op),
        Some(r) => inputs.x.apply_op3(&gamma_beta, r, op),
    }
}

struct Op {
    /// The output, computed before Candle asks for it.
    y: Mutex<Option<Storage>>,
    saved: Saved,
    /// The statistics are the batch's own, and x's gradient goes through them.
    batch: bool,
}

impl Op {
    fn values(&self) -> Result<Storage> {
        match self.y.lock().map_or(None, |mut y| y.take()) {
            Some(y) => Ok(y),
            None => bail!("{NAME}: an op value was used twice"),
        }
    }

    fn forward(&self, shape: &Shape) -> Result<(CpuStorage, Shape)> {
        match self.values()? {
            Storage::Cpu(y) => Ok((y, shape.clone())),
            _ => bail!("{NAME}: x is on the CPU, another tensor on a GPU"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, shape: &Shape) -> Result<(CudaStorage, Shape)> {
        match self.values()? {
            Storage::Cuda(y) => Ok((y, shape.clone())),
            _ => bail!("{NAME}: x is on a GPU, another tensor on the CPU"),
        }
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
        // With a residual the masked gradient is a result of its own: made once, then used without the mask.
        let dy = match residual && self.saved.relu() {
            true => crate::relu::relu_backward(y, dy)?,
            false => dy.contiguous()?,
        };
        let gamma = gamma_beta.narrow(0, 0, gamma_beta.elem_count() / 2)?;
        #[cfg(feature = "cuda")]
        if let Some(gpu) = Gpu::of(x) {
            let (dx, dgamma, dbeta) = cuda::gradients(&gpu, &self.saved, x, &dy, &gamma, !residual, self.batch)?;
            return Ok((dx, Tensor::cat(&[dgamma, dbeta], 0)?, residual.then_some(dy)));
        }
        let (dx, daffine) = match x.dtype() {
            DType::BF16 => self.host_backward::<bf16>(x, &gamma, residual, &dy)?,
            _ => self.host_backward::<f32>(x, &gamma, residual, &dy)?,
        };
        Ok((dx, daffine, residual.then_some(dy)))
    }

    /// Gradients of x, and of gamma and beta.
    fn host_backward<T: Element>(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        residual: bool,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let (x_values, dy_values) = (Dense::<T>::new(NAME, x)?, Dense::<T>::new(NAME, dy)?);
        let sums = self.saved.sums(&dy_values, &x_values, !residual)?;
        // Every rank must take part, whether or not its own x asks for a gradient.
        let all = if self.batch { Some(self.saved.all_sums(&sums)?) } else { None };
        let dx = if x.track_op() {
            let gradients = self.saved.input_gradients(&Dense::new(NAME, gamma)?, !residual, all.as_deref())?;
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
        Ok((dx, Tensor::cat(&[dgamma, dbeta], 0)?))
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, l1: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(l1.shape())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, l1: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda_forward(l1.shape())
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
        _: &CpuStorage,
        l1: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(l1.shape())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        l1: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda_forward(l1.shape())
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
