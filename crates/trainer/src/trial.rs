//! What a step will cost, measured on a copy of the method before the run.

use std::sync::Arc;
use std::time::Instant;

use diptych_comm::{Collective, Local};
use diptych_methods::Parts;
use diptych_nn::{Batch, Init, Views, activation_bytes, backward};

use crate::{Prepared, setup};

/// The measured cost of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    /// Seconds of forward and backward for a whole batch, all ranks on this machine.
    pub seconds: f64,
    /// Bytes of the activations that backward passes keep at once: of one part of each rank's rows.
    pub activations: u64,
}

/// Runs a few images through a fresh copy of the method, so that the run's own state does not move.
///
/// # Errors
/// If a tensor operation fails.
pub(crate) fn trial(run: &Prepared) -> anyhow::Result<Trial> {
    let (recipe, division, device) = (&run.recipe, &run.division, &run.device);
    let comm: Arc<dyn Collective> = Arc::new(Local);
    // In whole groups of batch statistics, two images each at least.
    let (whole, at_once, groups) = (recipe.trainer.batch_size, division.rows_at_once(), division.groups_of_rank());
    let mut method = setup::build_method(recipe, run.entry, &comm, groups, device, run.splits.train.len(), 1)?;
    let mut images = at_once.min(4.max(2 * groups));
    let mut warm = false;
    let channels = run.splits.train.format().channels;
    loop {
        let views = recipe
            .augment
            .views()
            .iter()
            .zip(0u64..)
            .map(|(view, at)| Init::Normal(1.0).draw(&[images, view.size, view.size, channels], at, "trial", device))
            .collect::<candle_core::Result<_>>()?;
        let views = Views(views).to(&run.device, recipe.trainer.precision.dtype())?;
        let batch = Batch { views, labels: None, index: (0..images as u32).collect() };
        let started = Instant::now();
        let (forward, bytes) = activation_bytes(|| method.forward(&batch));
        let forward = forward?;
        device.synchronize()?;
        let there = started.elapsed().as_secs_f64();
        backward(&forward.loss.total)?;
        device.synchronize()?;
        let seconds = started.elapsed().as_secs_f64();
        // A GPU loads its kernels when they are first used, and tries out algorithms for each shape.
        if !device.is_cpu() && !std::mem::replace(&mut warm, true) {
            continue;
        }
        // A handful of images says little about a large batch; go on while it is cheap.
        if images < at_once.min(64) && seconds < 0.5 {
            images = (images * 4).min(at_once);
            warm = false;
            continue;
        }
        // With chunks under one loss, every image goes forward twice.
        let twice = matches!(division.parts(), Parts::Cache(2..));
        let seconds = if twice { seconds + there } else { seconds };
        let activations = bytes as f64 / images as f64 * (at_once * division.ranks()) as f64;
        return Ok(Trial { seconds: seconds / images as f64 * whole as f64, activations: activations as u64 });
    }
}
