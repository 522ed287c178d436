//! Batch norm's passes as plain functions, for an engine that keeps its own buffers: no graph, and gradients written over
//! what they replace.

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, Tensor, bail};
use half::bf16;

use super::cpu::{self, Incoming, InputGradient, Normalizer, Sums};
#[cfg(feature = "cuda")]
use super::cuda;
use super::cut::filled;
use super::inputs::Inputs;
use super::ranks::merge_ranks;
use super::statistics::Moments;
use super::{NAME, Options, Saved, check, per_channel};
#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
use crate::dense::{Dense, Element, activation, input, tensor};
use crate::in_place::{change, owned};

/// What [`forward`] returns.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The output: x's shape and type.
    pub y: Tensor,
    /// What [`backward`] needs.
    pub saved: Saved,
    /// Mean, f32, `[C]`, or `[groups, C]` where there is more than one.
    pub mean: Tensor,
    /// Biased variance (divided by the number of rows), as `mean`.
    pub var: Tensor,
    /// Rows that each mean and variance is of: N H W over the groups, times the ranks.
    pub rows: usize,
}

/// What the passes of both kinds work out.
pub(super) struct Output {
    pub(super) y: Storage,
    pub(super) saved: Saved,
    pub(super) mean: Tensor,
    pub(super) var: Tensor,
    pub(super) rows: usize,
}

/// What [`backward`] returns.
#[derive(Clone, Debug)]
pub struct Backward {
    /// Gradient of x, in x's memory.
    pub dx: Tensor,
    /// Gradient of gamma, `[C]`, f32: over this rank's rows.
    pub dgamma: Tensor,
    /// Gradient of beta, alike.
    pub dbeta: Tensor,
    /// Gradient of the residual where there is one, in dy's memory.
    pub dresidual: Option<Tensor>,
}

/// `y = relu?(gamma (x - mean) / sqrt(var + eps) + beta + residual)` with the batch's own statistics.
///
/// `x`: `[N, .., C]`, f32 or bf16, rows are all but the last dimension; `gamma`, `beta`: `[C]`, f32; `residual`: x's shape and type. Memory: reads x
/// twice and the residual once, writes y.
///
/// # Errors
/// If a shape or a type does not fit, there is no row, N is not a multiple of the groups, `eps` is not positive and finite, or ranks do not answer.
pub fn forward(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    options: &Options,
) -> Result<Forward> {
    let inputs = Inputs::new(x, Some(gamma), Some(beta), residual, options)?;
    Ok(forward_values(&inputs, options)?.tensors(x.shape()))
}

impl Output {
    fn tensors(self, shape: &Shape) -> Forward {
        let Self { y, saved, mean, var, rows } = self;
        Forward { y: Tensor::from_storage(y, shape, BackpropOp::none(), false), saved, mean, var, rows }
    }
}

/// The forward pass with the statistics of x's groups, over all ranks.
pub(super) fn forward_values(inputs: &Inputs, options: &Options) -> Result<Output> {
    #[cfg(feature = "cuda")]
    if let (None, Some(gpu)) = (&options.ranks, Gpu::of(&inputs.x)) {
        return cuda::forward(&gpu, None, inputs, options);
    }
    let own = moments(&inputs.x, options.groups)?;
    let moments = match &options.ranks {
        Some(ranks) => merge_ranks(&**ranks, &own)?,
        None => own,
    };
    forward_given(&moments, inputs, options)
}

/// Count, mean and M2 of each channel, for each of `groups` consecutive parts of x `[N, .., C]`.
///
/// This is what ranks tell each other. Of an x on a GPU it is read back, which waits for the GPU; [`forward`] without ranks reads nothing back.
///
/// # Errors
/// As [`forward`].
pub fn moments(x: &Tensor, groups: usize) -> Result<Vec<Moments>> {
    check(x, None, groups)?;
    let x = activation(NAME, "x", x)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        return cuda::moments(&gpu, &x, last(&x), groups);
    }
    match x.dtype() {
        DType::BF16 => moments_of::<bf16>(&x, groups),
        _ => moments_of::<f32>(&x, groups),
    }
}

fn moments_of<T: Element>(x: &Tensor, groups: usize) -> Result<Vec<Moments>> {
    let (channels, x) = (last(x), Dense::<T>::new(NAME, x)?);
    Ok(x.chunks_exact(x.len() / groups).map(|x| Moments::of(x, channels)).collect())
}

/// [`forward`] where the moments of each group are known: from [`moments`], merged over ranks.
///
/// # Errors
/// As [`forward`], and if there are not as many moments as groups.
pub fn forward_with(
    moments: &[Moments],
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    options: &Options,
) -> Result<Forward> {
    let inputs = Inputs::new(x, Some(gamma), Some(beta), residual, options)?;
    Ok(forward_given(moments, &inputs, options)?.tensors(x.shape()))
}

fn forward_given(moments: &[Moments], inputs: &Inputs, options: &Options) -> Result<Output> {
    let channels = inputs.channels();
    if moments.len() != options.groups || moments.iter().any(|m| m.mean.len() != channels || m.m2.len() != channels) {
        bail!("{NAME}: {} moments for {} groups of {channels} channels", moments.len(), options.groups)
    }
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&inputs.x) {
        return cuda::forward(&gpu, Some(moments), inputs, options);
    }
    let statistics: Vec<_> = moments.iter().map(|m| (m.mean.clone(), m.variance())).collect();
    let (y, saved) = forward_from(&statistics, inputs, options)?;
    let shape = if options.groups == 1 { vec![channels] } else { vec![options.groups, channels] };
    let narrow = |values: Vec<f64>| {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)
    };
    let (mean, var): (Vec<_>, Vec<_>) = statistics.into_iter().unzip();
    let (mean, var) = (narrow(mean.concat())?, narrow(var.concat())?);
    Ok(Output { y, saved, mean, var, rows: moments[0].count as usize })
}

/// The forward pass on the CPU with mean and biased variance of each group.
pub(super) fn forward_from(
    statistics: &[(Vec<f64>, Vec<f64>)],
    inputs: &Inputs,
    options: &Options,
) -> Result<(Storage, Saved)> {
    let (gamma, beta) = (Dense::<f32>::new(NAME, &inputs.gamma)?, Dense::<f32>::new(NAME, &inputs.beta)?);
    let normalizer = |(mean, var): &(Vec<f64>, Vec<f64>)| Normalizer::new(mean, var, &gamma, &beta, options.eps);
    let groups: Vec<_> = statistics.iter().map(normalizer).collect();
    let (x, residual) = (&inputs.x, inputs.residual.as_ref());
    let y = match x.dtype() {
        DType::BF16 => apply::<bf16>(x, residual, options.relu, &groups)?,
        _ => apply::<f32>(x, residual, options.relu, &groups)?,
    };
    Ok((Storage::Cpu(y), Saved::on_host(options, inputs.channels(), groups)))
}

fn apply<T: Element>(x: &Tensor, residual: Option<&Tensor>, relu: bool, groups: &[Normalizer]) -> Result<CpuStorage> {
    let x = Dense::<T>::new(NAME, x)?;
    let residual = residual.map(|r| Dense::<T>::new(NAME, r)).transpose()?;
    let part = x.len() / groups.len();
    // SAFETY: the groups' parts cover everything, and `apply` writes all of its part.
    let y = unsafe {
        filled(x.len(), |y| {
            for (i, (norm, y)) in groups.iter().zip(y.chunks_exact_mut(part)).enumerate() {
                let range = i * part..(i + 1) * part;
                cpu::apply(&x[range.clone()], residual.as_ref().map(|r| &r[range]), relu, norm, y);
            }
        })
    };
    Ok(T::to_cpu_storage_owned(y))
}

/// The gradients of [`forward`]. **dx is written over x's memory, and with a residual and ReLU its gradient over dy's**: the
/// caller gives both away, and every other tensor that shares their memory changes with them.
///
/// `x`, `gamma`: as given to [`forward`]; `y`: what it returned, read only where there is both a residual and a ReLU; `dy`: the gradient of y,
/// of its shape and type. A tensor that is not contiguous, or shares its storage with another argument, is copied first. The gradient of a
/// residual without ReLU is dy itself.
///
/// With ranks, dx counts the rows of all of them; dgamma and dbeta are sums over this rank's rows.
///
/// # Errors
/// If a shape or a type does not fit, or ranks do not answer.
pub fn backward(saved: &Saved, x: Tensor, y: &Tensor, dy: Tensor, gamma: &Tensor, residual: bool) -> Result<Backward> {
    saved.all_fit(&x, y, &dy)?;
    let gamma = parameter("gamma", gamma, last(&x))?;
    let x = owned(x, &[y, &dy, &gamma])?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        return cuda::backward(&gpu, saved, x, y, dy, &gamma, residual);
    }
    let (sums, dy) = backward_sums(saved, &x, y, dy, residual)?;
    let dx = backward_apply(saved, x, &dy, &gamma, residual, &saved.all_sums(&sums)?)?;
    let (dgamma, dbeta) = parameter_gradients(&sums)?;
    Ok(Backward { dx, dgamma, dbeta, dresidual: residual.then_some(dy) })
}

/// The first half of [`backward`]: sums over this rank's rows for each group, and dy, masked by the ReLU (over its memory) if
/// there is both a residual and a ReLU. Sums of an x on a GPU are read back, which waits for the GPU.
///
/// # Errors
/// As [`backward`].
pub fn backward_sums(saved: &Saved, x: &Tensor, y: &Tensor, dy: Tensor, residual: bool) -> Result<(Vec<Sums>, Tensor)> {
    saved.all_fit(x, y, &dy)?;
    let x = activation(NAME, "x", x)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        return cuda::host_sums(&gpu, saved, &x, y, dy, residual);
    }
    match x.dtype() {
        DType::BF16 => sums_of::<bf16>(saved, &x, y, dy, residual),
        _ => sums_of::<f32>(saved, &x, y, dy, residual),
    }
}

fn sums_of<T: Element>(
    saved: &Saved,
    x: &Tensor,
    y: &Tensor,
    dy: Tensor,
    residual: bool,
) -> Result<(Vec<Sums>, Tensor)> {
    if !(saved.relu() && residual) {
        let dy = dy.contiguous()?;
        let sums = saved.sums(&Dense::<T>::new(NAME, &dy)?, &Dense::new(NAME, x)?, !residual)?;
        return Ok((sums, dy));
    }
    let dy = owned(dy, &[x, y])?;
    let y = y.contiguous()?;
    let (x, y) = (Dense::<T>::new(NAME, x)?, Dense::<T>::new(NAME, &y)?);
    let (norms, part) = (saved.host()?, x.len() / saved.groups());
    let sums = change(NAME, &dy, |dy: &mut [T]| {
        let arrays = dy.chunks_exact_mut(part).zip(y.chunks_exact(part)).zip(x.chunks_exact(part));
        let groups = norms.iter().zip(arrays);
        Ok(groups.map(|(norm, ((dy, y), x))| cpu::backward_sums(Incoming::Mask(dy, y), x, norm)).collect())
    })?;
    Ok((sums, dy))
}

/// The second half of [`backward`]: dx, written over x's memory. `dy`: as [`backward_sums`] returned it; `sums`: its sums, added over ranks.
///
/// # Errors
/// As [`backward`], and if there are not as many sums as groups.
pub fn backward_apply(
    saved: &Saved,
    x: Tensor,
    dy: &Tensor,
    gamma: &Tensor,
    residual: bool,
    sums: &[Sums],
) -> Result<Tensor> {
    saved.fits("dy", dy, &x)?;
    if sums.len() != saved.groups() {
        bail!("{NAME}: {} sums for {} groups", sums.len(), saved.groups())
    }
    let gamma = parameter("gamma", gamma, last(&x))?;
    let x = owned(x, &[dy, &gamma])?;
    let dy = dy.contiguous()?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        cuda::apply_sums(&gpu, saved, &x, &dy, &gamma, residual, sums)?;
        return Ok(x);
    }
    let gradients = saved.input_gradients(&Dense::new(NAME, &gamma)?, !residual, Some(sums))?;
    match x.dtype() {
        DType::BF16 => write_dx::<bf16>(&gradients, &x, &dy)?,
        _ => write_dx::<f32>(&gradients, &x, &dy)?,
    }
    Ok(x)
}

fn write_dx<T: Element>(gradients: &[InputGradient], x: &Tensor, dy: &Tensor) -> Result<()> {
    let dy = Dense::<T>::new(NAME, dy)?;
    let part = dy.len() / gradients.len();
    change(NAME, x, |x: &mut [T]| {
        let arrays = x.chunks_exact_mut(part).zip(dy.chunks_exact(part));
        gradients.iter().zip(arrays).for_each(|(gradient, (x, dy))| gradient.over(dy, x));
        Ok(())
    })
}

/// Gradients of gamma and beta, `[C]`: sums over the groups.
pub(super) fn parameter_gradients(sums: &[Sums]) -> Result<(Tensor, Tensor)> {
    let total = |of: &dyn Fn(&Sums) -> &[f64]| {
        let mut total = vec![0f64; of(&sums[0]).len()];
        for sums in sums {
            total.iter_mut().zip(of(sums)).for_each(|(total, v)| *total += v);
        }
        let channels = total.len();
        tensor(total.into_iter().map(|v| v as f32).collect::<Vec<f32>>(), channels)
    };
    Ok((total(&|s| &s.gamma)?, total(&|s| &s.beta)?))
}

fn last(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(0)
}

fn parameter(name: &str, t: &Tensor, channels: usize) -> Result<Tensor> {
    per_channel(name, t, channels)?;
    input(NAME, name, t)
}
