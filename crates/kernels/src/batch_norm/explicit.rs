//! Batch norm's passes as plain functions, for an engine that keeps its own buffers: no graph, and gradients written over
//! what they replace.

use candle_core::{CpuStorage, DType, Device, Result, Tensor, bail};
use half::bf16;

use super::cpu::{self, Incoming, InputGradient, Normalizer, Sums};
use super::cut::filled;
use super::ranks::{merge_ranks, sum_ranks};
use super::statistics::Moments;
use super::{NAME, Options, check, per_channel};
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

/// What the forward pass leaves to the backward pass: a few values per channel and group.
#[derive(Clone, Debug)]
pub struct Saved {
    options: Options,
    /// The parts of x that have statistics of their own, in order.
    groups: Vec<Normalizer>,
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
    forward_with(&all_moments(x, options)?, x, gamma, beta, residual, options)
}

/// The moments of x's groups, over all ranks.
pub(super) fn all_moments(x: &Tensor, options: &Options) -> Result<Vec<Moments>> {
    let moments = moments(x, options.groups)?;
    match &options.ranks {
        Some(ranks) => merge_ranks(&**ranks, &moments),
        None => Ok(moments),
    }
}

/// Count, mean and M2 of each channel, for each of `groups` consecutive parts of x `[N, .., C]`.
///
/// # Errors
/// As [`forward`].
pub fn moments(x: &Tensor, groups: usize) -> Result<Vec<Moments>> {
    check(x, None, groups)?;
    let x = activation(NAME, "x", x)?;
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
    let (values, saved, mean, var) = forward_values(moments, x, gamma, beta, residual, options)?;
    let y = match values {
        CpuStorage::BF16(y) => tensor(y, x.shape())?,
        CpuStorage::F32(y) => tensor(y, x.shape())?,
        _ => bail!("{NAME}: x is neither f32 nor bf16"),
    };
    Ok(Forward { y, saved, mean, var, rows: moments[0].count as usize })
}

/// y's values, what [`backward`] needs, mean and biased variance.
pub(super) fn forward_values(
    moments: &[Moments],
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    options: &Options,
) -> Result<(CpuStorage, Saved, Tensor, Tensor)> {
    let channels = check(x, residual, options.groups)?;
    if moments.len() != options.groups || moments.iter().any(|m| m.mean.len() != channels || m.m2.len() != channels) {
        bail!("{NAME}: {} moments for {} groups of {channels} channels", moments.len(), options.groups)
    }
    let statistics: Vec<_> = moments.iter().map(|m| (m.mean.clone(), m.variance())).collect();
    let (y, saved) = forward_from(&statistics, x, gamma, beta, residual, options)?;
    let shape = if options.groups == 1 { vec![channels] } else { vec![options.groups, channels] };
    let narrow = |values: Vec<f64>| {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)
    };
    let (mean, var): (Vec<_>, Vec<_>) = statistics.into_iter().unzip();
    Ok((y, saved, narrow(mean.concat())?, narrow(var.concat())?))
}

/// The forward pass with mean and biased variance of each group.
pub(super) fn forward_from(
    statistics: &[(Vec<f64>, Vec<f64>)],
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    options: &Options,
) -> Result<(CpuStorage, Saved)> {
    let channels = check(x, residual, options.groups)?;
    let eps = options.eps;
    if !(eps > 0.0 && eps.is_finite()) {
        bail!("{NAME}: eps is {eps}; expected a positive number, usually 1e-5")
    }
    let (gamma, beta) = (parameter("gamma", gamma, channels)?, parameter("beta", beta, channels)?);
    let (gamma, beta) = (Dense::<f32>::new(NAME, &gamma)?, Dense::<f32>::new(NAME, &beta)?);
    let groups: Vec<_> = statistics.iter().map(|(mean, var)| Normalizer::new(mean, var, &gamma, &beta, eps)).collect();
    let x = activation(NAME, "x", x)?;
    let residual = residual.map(|r| activation(NAME, "residual", r)).transpose()?;
    let y = match x.dtype() {
        DType::BF16 => apply::<bf16>(&x, residual.as_ref(), options.relu, &groups)?,
        _ => apply::<f32>(&x, residual.as_ref(), options.relu, &groups)?,
    };
    Ok((y, Saved { options: options.clone(), groups }))
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
    let x = owned(x, &[y, &dy, gamma])?;
    let (sums, dy) = backward_sums(saved, &x, y, dy, residual)?;
    let dx = backward_apply(saved, x, &dy, gamma, residual, &saved.all_sums(&sums)?)?;
    let (dgamma, dbeta) = parameter_gradients(&sums)?;
    Ok(Backward { dx, dgamma, dbeta, dresidual: residual.then_some(dy) })
}

/// The first half of [`backward`]: sums over this rank's rows for each group, and dy, masked by the ReLU (over its memory) if
/// there is both a residual and a ReLU.
///
/// # Errors
/// As [`backward`].
pub fn backward_sums(saved: &Saved, x: &Tensor, y: &Tensor, dy: Tensor, residual: bool) -> Result<(Vec<Sums>, Tensor)> {
    saved.fits("x", x, x)?;
    saved.fits("y", y, x)?;
    saved.fits("dy", &dy, x)?;
    let x = activation(NAME, "x", x)?;
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
    if !(saved.options.relu && residual) {
        let dy = dy.contiguous()?;
        let sums = saved.sums(&Dense::<T>::new(NAME, &dy)?, &Dense::new(NAME, x)?, !residual);
        return Ok((sums, dy));
    }
    let dy = owned(dy, &[x, y])?;
    let y = y.contiguous()?;
    let (x, y) = (Dense::<T>::new(NAME, x)?, Dense::<T>::new(NAME, &y)?);
    let part = x.len() / saved.groups.len();
    let sums = change(NAME, &dy, |dy: &mut [T]| {
        let arrays = dy.chunks_exact_mut(part).zip(y.chunks_exact(part)).zip(x.chunks_exact(part));
        let groups = saved.groups.iter().zip(arrays);
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
    if sums.len() != saved.groups.len() {
        bail!("{NAME}: {} sums for {} groups", sums.len(), saved.groups.len())
    }
    let gamma_values = parameter("gamma", gamma, last(&x))?;
    let gradients = saved.input_gradients(&Dense::new(NAME, &gamma_values)?, !residual, Some(sums));
    let x = owned(x, &[dy, gamma])?;
    let dy = dy.contiguous()?;
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

impl Saved {
    /// An error in words unless `t` has the shape and type of `x`, and x the channels and groups of the forward pass.
    fn fits(&self, name: &str, t: &Tensor, x: &Tensor) -> Result<()> {
        let channels = check(x, None, self.groups.len())?;
        if t.dims() != x.dims() || t.dtype() != x.dtype() {
            bail!("{NAME}: {name} is {:?} {:?}, x {:?} {:?}", t.dtype(), t.dims(), x.dtype(), x.dims())
        }
        if channels != self.groups[0].mean.len() {
            bail!("{NAME}: x has {channels} channels, the forward pass had {}", self.groups[0].mean.len())
        }
        Ok(())
    }

    pub(super) fn relu(&self) -> bool {
        self.options.relu
    }

    /// Sums of each group, with dy unmasked by y; `recompute`: it must still go through the ReLU, if there is one.
    pub(super) fn sums<T: Element>(&self, dy: &[T], x: &[T], recompute: bool) -> Vec<Sums> {
        let part = x.len() / self.groups.len();
        let groups = self.groups.iter().zip(dy.chunks_exact(part).zip(x.chunks_exact(part)));
        let incoming = if self.relu() && recompute { Incoming::Recompute } else { Incoming::Masked };
        groups.map(|(norm, (dy, x))| cpu::backward_sums(incoming(dy), x, norm)).collect()
    }

    /// A group's sums over all ranks.
    pub(super) fn all_sums(&self, sums: &[Sums]) -> Result<Vec<Sums>> {
        match &self.options.ranks {
            Some(ranks) => sum_ranks(&**ranks, sums),
            None => Ok(sums.to_vec()),
        }
    }

    /// How each group's x becomes its gradient; `recompute` as in [`Self::sums`], no sums where the statistics are constants.
    pub(super) fn input_gradients(&self, gamma: &[f32], recompute: bool, sums: Option<&[Sums]>) -> Vec<InputGradient> {
        let of = |i: usize| sums.map(|sums| &sums[i]);
        let relu = self.relu() && recompute;
        self.groups.iter().enumerate().map(|(i, norm)| InputGradient::new(relu, gamma, norm, of(i))).collect()
    }
}

fn last(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(0)
}

fn parameter(name: &str, t: &Tensor, channels: usize) -> Result<Tensor> {
    per_channel(name, t, channels)?;
    input(NAME, name, t)
}
