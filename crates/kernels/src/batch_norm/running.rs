//! Running statistics, updated in place.

use candle_core::{DType, Result, Tensor, Var, bail};

use super::NAME;
use crate::in_place::change;

/// Moves running statistics towards a batch's: `running = (1 - momentum) running + momentum value`, the variance by its unbiased estimate,
/// as PyTorch does.
///
/// `running_mean`, `running_var`: `[C]`, f32. `mean`, `var` (biased), `rows`: as the forward pass gave them, `[C]` or `[groups, C]`; of several
/// groups the mean is taken, of the variances too. That is what MoCo's `SplitBatchNorm` does (facebookresearch/moco, `moco_cifar10_demo`): it
/// averages running statistics that were updated group by group. (Its group g holds the images n with n mod groups = g, ours consecutive ones.)
///
/// # Errors
/// If a shape does not fit, a tensor is not f32 or on another device, or a variance is that of a single row.
pub fn update_running(
    running_mean: &Var,
    running_var: &Var,
    mean: &Tensor,
    var: &Tensor,
    rows: usize,
    momentum: f64,
) -> Result<()> {
    if rows < 2 {
        bail!("{NAME}: the running variance needs more than one value per channel, the batch has {rows}")
    }
    let unbiased = rows as f64 / (rows - 1) as f64;
    fits(running_mean, mean)?;
    fits(running_var, var)?;
    if mean.dims() != var.dims() {
        bail!("{NAME}: the batch's mean has shape {:?}, its variance {:?}", mean.dims(), var.dims())
    }
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(running_mean) {
        return super::cuda::update_running(&gpu, [running_mean, running_var], [mean, var], momentum, unbiased);
    }
    update(running_mean, mean, momentum, 1.0)?;
    update(running_var, var, momentum, unbiased)
}

fn fits(running: &Var, value: &Tensor) -> Result<()> {
    let channels = running.elem_count();
    let fits = matches!(value.dims(), &[c] | &[_, c] if c == channels);
    if running.rank() != 1 || !fits || value.elem_count() == 0 || running.dtype() != DType::F32 {
        bail!(
            "{NAME}: running statistics are {:?} {:?}, a batch's {:?}; expected [C] in f32, and [C] or [groups, C]",
            running.dtype(),
            running.dims(),
            value.dims()
        )
    }
    Ok(())
}

fn update(running: &Var, value: &Tensor, momentum: f64, scale: f64) -> Result<()> {
    let channels = running.elem_count();
    let values: Vec<f32> = value.flatten_all()?.to_vec1()?;
    let weight = momentum * scale / (values.len() / channels) as f64;
    change(NAME, running.as_tensor(), |running: &mut [f32]| {
        for (c, running) in running.iter_mut().enumerate() {
            let sum: f64 = values.iter().skip(c).step_by(channels).map(|&v| f64::from(v)).sum();
            *running = ((1.0 - momentum) * f64::from(*running) + weight * sum) as f32;
        }
        Ok(())
    })
}
