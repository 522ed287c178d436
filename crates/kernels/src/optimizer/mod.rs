//! Optimizer steps in place: one pass over weight, gradient and momentum buffer, without temporaries.
//!
//! Each function changes one variable (and its buffer); which parameters decay or adapt is the caller's business. f32 and
//! f64 variables work, all tensors of a call being of one type and shape. Results are the same for any thread count.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor, Var, WithDType, bail};

use cpu::{Real, Rule};

/// The settings of one [`sgd_step`].
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

/// The settings of one [`lars_step`].
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
/// `buffer` is the momentum's, zeros before the first step (PyTorch then starts with `b = g`, which is the same); it may
/// be left out when `momentum` is 0.
///
/// # Errors
/// If shapes or types differ, `momentum` has no buffer, or a tensor is not a contiguous f32 or f64 one on the CPU.
pub fn sgd_step(w: &Var, g: &Tensor, buffer: Option<&Var>, step: &SgdStep) -> Result<()> {
    let &SgdStep { lr, momentum, weight_decay, nesterov } = step;
    let rule = Rule { decay: weight_decay, scale: 1.0, momentum, nesterov, inside: 1.0, outside: lr };
    update("sgd", w, g, buffer, momentum, |_: ()| rule)
}

/// One step of LARS (arXiv:1708.03888) with the order of operations of the official Barlow Twins code.
///
/// ```text
/// dp = g + wd w;  dp *= q;  b = mu b + dp;  w -= lr b     or, with the rate inside,  b = mu b + lr q dp;  w -= b
/// ```
///
/// See [`Ratio`] for q. Norms are summed in f64. A parameter that neither decays nor adapts has a decay of 0 and no eta.
///
/// # Errors
/// As [`sgd_step`].
pub fn lars_step(w: &Var, g: &Tensor, buffer: Option<&Var>, step: &LarsStep) -> Result<()> {
    let &LarsStep { lr, momentum, weight_decay, eta, ratio, clip, lr_in_momentum } = step;
    let (inside, outside) = if lr_in_momentum { (lr, 1.0) } else { (1.0, lr) };
    let rule = move |scale, decay| Rule { decay, scale, momentum, nesterov: false, inside, outside };
    let Some(eta) = eta else { return update("lars", w, g, buffer, momentum, |_: ()| rule(1.0, weight_decay)) };
    let limit = |q: f64| if clip { (q / lr).min(1.0) } else { q };
    let rule = |[w, g, both]: [f64; 3]| match ratio {
        Ratio::Joint if w > 0.0 && both > 0.0 => rule(limit(eta * w / both), weight_decay),
        Ratio::Joint => rule(1.0, weight_decay),
        Ratio::Sum if w > 0.0 && g > 0.0 => rule(limit(eta * w / (g + weight_decay * w + 1e-8)), weight_decay),
        Ratio::Sum => rule(1.0, 0.0),
    };
    update("lars", w, g, buffer, momentum, Norms { decay: weight_decay, rule })
}

/// Moves `target` towards `online`: `target = tau target + (1 - tau) online` (BYOL, MoCo).
///
/// # Errors
/// As [`sgd_step`]; also if `tau` is outside [0, 1] or the two share memory.
pub fn ema_step(target: &Var, online: &Tensor, tau: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&tau) {
        bail!("ema: tau must be in [0, 1], is {tau}")
    }
    check("ema", "online", target, online)?;
    target.inplace_op2(&online.contiguous()?, &Ema { tau })
}

/// Whether every value of a floating-point tensor is finite.
///
/// # Errors
/// If Candle cannot read or convert it.
pub fn is_finite(t: &Tensor) -> Result<bool> {
    let t = match t.dtype() {
        DType::F32 | DType::F64 => t.contiguous()?,
        _ => t.to_dtype(DType::F32)?.contiguous()?,
    };
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(v)) => Ok(!cpu::any_non_finite(span("is_finite", v, layout)?)),
        Storage::Cpu(CpuStorage::F64(v)) => Ok(!cpu::any_non_finite(span("is_finite", v, layout)?)),
        _ => bail!("is_finite runs on the CPU only in this build"),
    }
}

/// What a rule needs to see before it is fixed.
trait MakeRule {
    fn make<T: Real>(&self, w: &[T], g: &[T]) -> Rule;
}

/// No norms: the rule is known.
impl<F: Fn(()) -> Rule> MakeRule for F {
    fn make<T: Real>(&self, _: &[T], _: &[T]) -> Rule {
        self(())
    }
}

/// The norms of w, g and g + decay w.
struct Norms<F> {
    decay: f64,
    rule: F,
}

impl<F: Fn([f64; 3]) -> Rule> MakeRule for Norms<F> {
    fn make<T: Real>(&self, w: &[T], g: &[T]) -> Rule {
        (self.rule)(cpu::norms(w, g, self.decay))
    }
}

fn update(
    op: &'static str,
    w: &Var,
    g: &Tensor,
    buffer: Option<&Var>,
    momentum: f64,
    rule: impl MakeRule,
) -> Result<()> {
    check(op, "gradient", w, g)?;
    match buffer {
        Some(buffer) => check(op, "buffer", w, buffer)?,
        None if momentum != 0.0 => bail!("{op}: a momentum of {momentum} needs a buffer"),
        None => (),
    }
    // Both are written, so both locks are taken for writing: the same tensor twice would wait for itself.
    if buffer.is_some_and(|b| b.id() == w.id()) {
        bail!("{op}: a weight cannot be its own momentum buffer")
    }
    w.inplace_op2(&g.contiguous()?, &Update { op, buffer, rule })
}

fn check(op: &str, name: &str, w: &Var, other: &Tensor) -> Result<()> {
    if w.dims() != other.dims() || w.dtype() != other.dtype() {
        let (shape, dtype) = (w.dims(), w.dtype());
        bail!("{op}: the {name} is {:?} {:?}, the variable {shape:?} {dtype:?}", other.dims(), other.dtype())
    }
    Ok(())
}

/// The part of a storage that a contiguous layout covers.
fn span<'a, T>(op: &str, values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("{op}: a tensor is not contiguous"),
    }
}

fn span_mut<'a, T>(op: &str, values: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut values[start..end]),
        None => bail!("{op}: a variable is not contiguous"),
    }
}

/// One weight's step; the buffer's guard is taken inside the weight's, so that one loop writes both.
struct Update<'a, R> {
    op: &'static str,
    buffer: Option<&'a Var>,
    rule: R,
}

impl<R: MakeRule> Update<'_, R> {
    fn run<T: Real + WithDType>(
        &self,
        w: &mut [T],
        g: &[T],
        values: impl Fn(&mut CpuStorage) -> Option<&mut Vec<T>>,
    ) -> Result<()> {
        let rule = self.rule.make(w, g);
        let Some(buffer) = self.buffer else {
            cpu::apply(&rule, w, g, None);
            return Ok(());
        };
        let op = self.op;
        buffer.inplace_op1(&Inner(RefCell::new(|storage: &mut CpuStorage, layout: &Layout| {
            let Some(values) = values(storage) else { bail!("{op}: the buffer is of another type") };
            cpu::apply(&rule, w, g, Some(span_mut(op, values, layout)?));
            Ok(())
        })))
    }
}

impl<R: MakeRule> InplaceOp2 for Update<'_, R> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, w: &mut CpuStorage, lw: &Layout, g: &CpuStorage, lg: &Layout) -> Result<()> {
        let op = self.op;
        match (w, g) {
            (CpuStorage::F32(w), CpuStorage::F32(g)) => self.run(span_mut(op, w, lw)?, span(op, g, lg)?, |s| match s {
                CpuStorage::F32(v) => Some(v),
                _ => None,
            }),
            (CpuStorage::F64(w), CpuStorage::F64(g)) => self.run(span_mut(op, w, lw)?, span(op, g, lg)?, |s| match s {
                CpuStorage::F64(v) => Some(v),
                _ => None,
            }),
            _ => bail!("{op} takes f32 or f64 variables"),
        }
    }
}

/// A closure as an in-place op on the second variable.
struct Inner<F>(RefCell<F>);

impl<F: FnMut(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Inner<F> {
    fn name(&self) -> &'static str {
        "momentum-buffer"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match self.0.try_borrow_mut() {
            Ok(mut f) => f(storage, layout),
            Err(_) => bail!("momentum-buffer: entered twice"),
        }
    }
}

struct Ema {
    tau: f64,
}

impl InplaceOp2 for Ema {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn cpu_fwd(&self, target: &mut CpuStorage, lt: &Layout, online: &CpuStorage, lo: &Layout) -> Result<()> {
        match (target, online) {
            (CpuStorage::F32(t), CpuStorage::F32(o)) => {
                cpu::ema(span_mut("ema", t, lt)?, span("ema", o, lo)?, self.tau)
            }
            (CpuStorage::F64(t), CpuStorage::F64(o)) => {
                cpu::ema(span_mut("ema", t, lt)?, span("ema", o, lo)?, self.tau)
            }
            _ => bail!("ema takes f32 or f64 variables"),
        }
        Ok(())
    }
}
