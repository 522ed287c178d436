//! Optimizer steps in place, over all tensors of a model in one call: one pass over weights, gradients and momentum
//! buffers, without temporaries, after one that looks whether the gradients are finite (LARS: and measures norms).
//!
//! Which parameters decay or adapt is the caller's business. f32 and f64 variables work, all tensors of a call being of
//! one type and on one device. Results are the same for any thread count.
//!
//! On a GPU a step is started and not waited for: a gradient that is not finite stops it, and all that come after, out there. The
//! weights stay as they were before the bad step, and [`fault`] tells of it when the caller has a reason to wait.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;
mod taken;
#[cfg(test)]
pub(crate) mod tests;

use candle_core::{DType, Device, Result, Tensor, Var, bail};

use cpu::{Look, Rule, Seen};
use taken::{Element, Read, Taken};

#[cfg(feature = "cuda")]
use crate::cuda::Gpu;

/// One tensor of a step.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a, S> {
    /// What errors call it.
    pub name: &'a str,
    /// The weight, changed in place.
    pub weight: &'a Var,
    /// Its gradient, of the weight's shape and type.
    pub gradient: &'a Tensor,
    /// The momentum buffer, changed in place: zeros before the first step. May be left out when momentum is 0.
    pub buffer: Option<&'a Var>,
    /// The settings for this tensor.
    pub step: S,
}

/// The settings of one tensor in [`sgd_steps`].
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Momentum factor mu.
    pub momentum: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Whether the step looks ahead along the buffer.
    pub nesterov: bool,
}

/// How LARS measures the update that it scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// `q = eta |w| / |g + wd w|`, and 1 where a norm is zero: the papers' codes (SimCLR, BYOL, Barlow Twins).
    Joint,
    /// `q = eta |w| / (|g| + wd |w| + 1e-8)`; where a norm is zero, neither ratio nor decay: Lightning Bolts, lightly,
    /// solo-learn.
    Sum,
}

/// The settings of one tensor in [`lars_steps`].
#[derive(Clone, Copy, Debug)]
pub struct LarsStep {
    /// Learning rate.
    pub lr: f64,
    /// Momentum factor mu.
    pub momentum: f64,
    /// Weight decay, added to the gradient before the ratio is applied.
    pub weight_decay: f64,
    /// Trust coefficient eta; `None` for a parameter that is not adapted: q is 1.
    pub eta: Option<f64>,
    /// Which norm the ratio divides by.
    pub ratio: Ratio,
    /// Whether q becomes `min(q / lr, 1)`, so that the layer's rate is never above `lr` (LARC).
    pub clip: bool,
    /// Whether the learning rate goes into the momentum buffer (SimCLR) or is applied after it.
    pub lr_in_momentum: bool,
}

/// One step of SGD as `torch.optim.SGD` takes it (dampening 0).
///
/// ```text
/// g += wd w;  b = mu b + g;  w -= lr b     or, with nesterov,  w -= lr (g + mu b)
/// ```
///
/// PyTorch starts with `b = g`, which is the same as our zeros. Returns the index of the first item whose gradient holds a
/// NaN or an infinity, in which case nothing has been changed; on a GPU always `None`, see [`fault`]. While the call runs, no other thread
/// may read the weights.
///
/// # Errors
/// By the item's name: if shapes or types differ, momentum has no buffer, two of the tensors share memory or are on different
/// devices, or one is not a contiguous f32 or f64 one. Nothing has been changed then.
pub fn sgd_steps(items: &[Item<SgdStep>]) -> Result<Option<usize>> {
    check_all("sgd", items, |step| step.momentum)?;
    #[cfg(feature = "cuda")]
    if let Some((gpu, dtype)) = on_gpu("sgd", items)? {
        return cuda::update(&gpu, "sgd", dtype, items).map(|()| None);
    }
    let plan = |step: &SgdStep| {
        let &SgdStep { lr, momentum, weight_decay, nesterov } = step;
        let rule = Rule { decay: weight_decay, scale: 1.0, momentum, nesterov, inside: 1.0, outside: lr };
        (Look::Gradient, move |_: Seen| rule)
    };
    update("sgd", items, plan)
}

/// One step of LARS (arXiv:1708.03888) with the order of operations of the official Barlow Twins code.
///
/// ```text
/// dp = g + wd w;  dp *= q;  b = mu b + dp;  w -= lr b     or, with the rate inside,  b = mu b + lr q dp;  w -= b
/// ```
///
/// See [`Ratio`] for q. Norms are summed in f64. A parameter that neither decays nor adapts has a decay of 0 and no eta.
/// Returns what [`sgd_steps`] does, under the same conditions.
///
/// # Errors
/// As [`sgd_steps`].
pub fn lars_steps(items: &[Item<LarsStep>]) -> Result<Option<usize>> {
    check_all("lars", items, |step| step.momentum)?;
    #[cfg(feature = "cuda")]
    if let Some((gpu, dtype)) = on_gpu("lars", items)? {
        return cuda::update(&gpu, "lars", dtype, items).map(|()| None);
    }
    let plan = |step: &LarsStep| {
        let step = *step;
        let look = match step.ratio {
            _ if step.eta.is_none() => Look::Gradient,
            Ratio::Joint => Look::Together { decay: step.weight_decay },
            Ratio::Sum => Look::Apart,
        };
        (look, move |seen| lars_rule(&step, seen))
    };
    update("lars", items, plan)
}

fn lars_rule(step: &LarsStep, seen: Seen) -> Rule {
    let &LarsStep { lr, momentum, weight_decay, eta, ratio, clip, lr_in_momentum } = step;
    let (inside, outside) = if lr_in_momentum { (lr, 1.0) } else { (1.0, lr) };
    let rule = |scale, decay| Rule { decay, scale, momentum, nesterov: false, inside, outside };
    let Some(eta) = eta else { return rule(1.0, weight_decay) };
    let limit = |q: f64| if clip { (q / lr).min(1.0) } else { q };
    let Seen { weight, gradient } = seen;
    match ratio {
        Ratio::Joint if weight > 0.0 && gradient > 0.0 => rule(limit(eta * weight / gradient), weight_decay),
        Ratio::Joint => rule(1.0, weight_decay),
        Ratio::Sum if weight > 0.0 && gradient > 0.0 => {
            rule(limit(eta * weight / (gradient + weight_decay * weight + 1e-8)), weight_decay)
        }
        Ratio::Sum => rule(1.0, 0.0),
    }
}

/// Moves each target towards its online tensor: `target = tau target + (1 - tau) online` (BYOL, MoCo), for pairs
/// `(name, target, online)`. On a GPU nothing moves after a bad step ([`fault`]).
///
/// # Errors
/// As [`sgd_steps`]; also if `tau` is outside [0, 1].
pub fn ema_steps(pairs: &[(&str, &Var, &Tensor)], tau: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&tau) {
        bail!("ema: tau must be in [0, 1], is {tau}")
    }
    for (name, target, online) in pairs {
        check("ema", name, "online tensor", target, online)?;
    }
    let dtype = dtype("ema", pairs.iter().map(|(name, target, _)| (*name, *target)))?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = pairs.first().and_then(|(_, target, _)| Gpu::of(target)) {
        return cuda::ema(&gpu, dtype, pairs, tau);
    }
    match dtype {
        DType::F64 => ema::<f64>(pairs, tau),
        _ => ema::<f32>(pairs, tau),
    }
}

fn ema<T: Element>(pairs: &[(&str, &Var, &Tensor)], tau: f64) -> Result<()> {
    let online: Vec<_> = pairs.iter().map(|(.., online)| online.contiguous()).collect::<Result<_>>()?;
    let mut targets = Vec::new();
    for (name, target, _) in pairs {
        targets.push(Taken::<T>::take("ema", name, target)?);
    }
    let mut read = Vec::new();
    for ((name, ..), online) in pairs.iter().zip(&online) {
        read.push(Read::<T>::new("ema", name, online)?);
    }
    let mut jobs = Vec::new();
    for (target, online) in targets.iter_mut().zip(&read) {
        jobs.push((target.values(), online.values()?));
    }
    cpu::ema(jobs, tau);
    Ok(())
}

/// The name of the tensor whose gradient was the first to hold a NaN or an infinity in a step on this device: the first such tensor of the
/// first such step.
///
/// On a GPU, where [`sgd_steps`] and [`lars_steps`] do not wait for the answer. From that step on they and [`ema_steps`] have changed nothing
/// there, until [`forget_fault`] is called. This waits for the device; call it where you wait anyway. `None` on the CPU, always.
///
/// # Errors
/// If the device fails.
pub fn fault(device: &Device) -> Result<Option<String>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::fault(&Gpu::new(device)),
        _ => Ok(None),
    }
}

/// Lets steps change tensors again after a [`fault`].
///
/// # Errors
/// If the device fails.
pub fn forget_fault(device: &Device) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::forget_fault(&Gpu::new(device)),
        _ => Ok(()),
    }
}

/// The index of the first tensor that holds a NaN or an infinity. On a GPU this waits for the device.
///
/// # Errors
/// If a tensor is not of a floating-point type, or two are on different devices.
pub fn first_non_finite(tensors: &[&Tensor]) -> Result<Option<usize>> {
    let mut bad = None;
    // f64 ones keep their range; all others fit f32.
    for double in [false, true] {
        let (mut indices, mut own) = (Vec::new(), Vec::new());
        for (i, tensor) in tensors.iter().enumerate().filter(|(_, t)| (t.dtype() == DType::F64) == double) {
            let tensor = if double { (*tensor).clone() } else { tensor.to_dtype(DType::F32)? };
            indices.push(i);
            own.push(tensor.contiguous()?);
        }
        let found = if double { non_finite::<f64>(&own)? } else { non_finite::<f32>(&own)? };
        bad = match (bad, found.map(|i| indices[i])) {
            (Some(a), Some(b)) => Some(usize::min(a, b)),
            (a, b) => a.or(b),
        };
    }
    Ok(bad)
}

fn non_finite<T: Element>(tensors: &[Tensor]) -> Result<Option<usize>> {
    #[cfg(feature = "cuda")]
    if let Some((gpu, first)) = tensors.first().and_then(|first| Some((Gpu::of(first)?, first))) {
        return cuda::non_finite(&gpu, first.dtype(), tensors);
    }
    let read = tensors.iter().map(|t| Read::<T>::new("first_non_finite", "a tensor", t)).collect::<Result<Vec<_>>>()?;
    let values = read.iter().map(Read::values).collect::<Result<Vec<_>>>()?;
    Ok(cpu::any_non_finite(&values))
}

/// Both passes over the tensors of a step; `plan` says what to look at and what to make of it.
fn update<S, F: Fn(Seen) -> Rule>(
    op: &'static str,
    items: &[Item<S>],
    plan: impl Fn(&S) -> (Look, F),
) -> Result<Option<usize>> {
    match dtype(op, items.iter().map(|item| (item.name, item.weight)))? {
        DType::F64 => update_as::<f64, S, F>(op, items, plan),
        _ => update_as::<f32, S, F>(op, items, plan),
    }
}

fn update_as<T: Element, S, F: Fn(Seen) -> Rule>(
    op: &'static str,
    items: &[Item<S>],
    plan: impl Fn(&S) -> (Look, F),
) -> Result<Option<usize>> {
    let gradients: Vec<_> = items.iter().map(|item| item.gradient.contiguous()).collect::<Result<_>>()?;
    let (mut weights, mut buffers, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        weights.push(Taken::<T>::take(op, item.name, item.weight)?);
        buffers.push(item.buffer.map(|b| Taken::<T>::take(op, item.name, b)).transpose()?);
    }
    // After the weights: a gradient that shares a weight's memory is found empty.
    for (item, gradient) in items.iter().zip(&gradients) {
        read.push(Read::<T>::new(op, item.name, gradient)?);
    }
    let gradients: Vec<&[T]> = read.iter().map(Read::values).collect::<Result<_>>()?;
    let plans: Vec<_> = items.iter().map(|item| plan(&item.step)).collect();
    let looks: Vec<_> =
        plans.iter().zip(&mut weights).zip(&gradients).map(|(((look, _), w), g)| (*look, &*w.values(), *g)).collect();
    let seen = if plans.iter().all(|(look, _)| *look == Look::Gradient) {
        match cpu::any_non_finite(&gradients) {
            None => vec![Seen::default(); items.len()],
            Some(bad) => return Ok(Some(bad)),
        }
    } else {
        match cpu::look(&looks) {
            Ok(seen) => seen,
            Err(bad) => return Ok(Some(bad)),
        }
    };
    drop(looks);
    let mut jobs = Vec::new();
    for (i, (w, b)) in weights.iter_mut().zip(&mut buffers).enumerate() {
        let b = b.as_mut().map(Taken::values).unwrap_or_default();
        jobs.push(cpu::Item { rule: plans[i].1(seen[i]), w: w.values(), g: gradients[i], b });
    }
    cpu::apply(jobs);
    Ok(None)
}

/// The GPU and the type of the tensors of a step, where it is on one.
#[cfg(feature = "cuda")]
fn on_gpu<S>(op: &str, items: &[Item<S>]) -> Result<Option<(Gpu, DType)>> {
    let Some(gpu) = items.first().and_then(|item| Gpu::of(item.weight)) else { return Ok(None) };
    Ok(Some((gpu, dtype(op, items.iter().map(|item| (item.name, item.weight)))?)))
}

/// The shapes and types of every item, and a buffer wherever there is momentum.
fn check_all<S>(op: &str, items: &[Item<S>], momentum: impl Fn(&S) -> f64) -> Result<()> {
    for Item { name, weight, gradient, buffer, step } in items {
        check(op, name, "gradient", weight, gradient)?;
        match (buffer, momentum(step)) {
            (Some(buffer), _) => check(op, name, "buffer", weight, buffer)?,
            (None, mu) if mu != 0.0 => bail!("{name}: {op}: a momentum of {mu} needs a buffer"),
            (None, _) => (),
        }
    }
    Ok(())
}

fn check(op: &str, name: &str, what: &str, w: &Var, other: &Tensor) -> Result<()> {
    if w.dims() != other.dims() || w.dtype() != other.dtype() {
        let (shape, dtype) = (w.dims(), w.dtype());
        bail!("{name}: {op}: the {what} is {:?} {:?}, the variable {shape:?} {dtype:?}", other.dims(), other.dtype())
    }
    Ok(())
}

/// The one type of all variables: f32 or f64.
fn dtype<'a>(op: &str, mut variables: impl Iterator<Item = (&'a str, &'a Var)>) -> Result<DType> {
    let Some((_, first)) = variables.next() else { return Ok(DType::F32) };
    let dtype = first.dtype();
    if !matches!(dtype, DType::F32 | DType::F64) {
        bail!("{op} takes f32 or f64 variables, not {dtype:?}")
    }
    match variables.find(|(_, other)| other.dtype() != dtype) {
        None => Ok(dtype),
        Some((name, other)) => bail!("{name}: {op}: is {:?}, the tensors before it {dtype:?}", other.dtype()),
    }
}
