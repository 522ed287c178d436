//! The loop, on one rank or on several.
//!
//! Every rank builds its networks from the same seed, takes the steps of its own rows, and comes out with the same parameters. What is
//! written, printed and evaluated is rank 0's affair (`record`), and so is the wish to stop, which the others hear of after every step.

mod feed;
mod record;
mod session;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use candle_core::Tensor;
use diptych_comm::threads::{self, RankError};
use diptych_data::{Cached, Dataset, Unreadable};
use diptych_nn::Layout;

use crate::setup::Blueprint;
use crate::{Evaluation, Prepared, RunDir, Signals};
use session::Session;

/// How the loop is watched.
#[derive(Debug, Default)]
pub struct Watch {
    /// Wishes to stop.
    pub signals: Signals,
    /// Whether nothing is said while it goes.
    pub quiet: bool,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All steps were taken.
    Done(Evaluation),
    /// A signal came; the state is saved, and this is the exit code.
    Interrupted(u8),
    /// A monitor or a number that is not finite; the sentence says what and at which step.
    Stopped(String),
}

/// Trains `run` in `dir`, from its newest checkpoint if `resume`. Afterwards `run` holds the state at its end.
///
/// A run of several ranks may be resumed on another number of them.
///
/// # Errors
/// If the data, the disk or a tensor operation fails, on whichever rank. The checkpoints written so far stay.
pub fn fit(run: &mut Prepared, dir: &RunDir, resume: bool, watch: &Watch) -> Result<Outcome> {
    let shared = Shared::new(run);
    let ranks = run.division.ranks();
    if ranks == 1 {
        return Session::begin(run, dir, resume, watch, &shared)?.run(run, watch);
    }
    let blueprint = Blueprint::of(run);
    let ended = threads::run(ranks, |comm| {
        let mut own = blueprint.build(&comm)?;
        let outcome = Session::begin(&mut own, dir, resume, watch, &shared)?.run(&mut own, watch)?;
        anyhow::Ok((comm.rank() == 0).then_some((outcome, own)))
    });
    match ended {
        Ok(ranks) => {
            let first = ranks.into_iter().flatten().next();
            let (outcome, trained) = first.context("rank 0 is missing among the ranks that ended")?;
            take_over(run, &trained)?;
            Ok(outcome)
        }
        Err(RankError::Failed { rank: 0, error }) => Err(error),
        Err(RankError::Failed { rank, error }) => Err(error.context(format!("rank {rank}"))),
        Err(other) => Err(anyhow::anyhow!("{other}")),
    }
}

/// Copies parameters, further state and the optimizer's buffers of one rank into the run that started it.
fn take_over(run: &mut Prepared, rank: &Prepared) -> Result<()> {
    let all = |store: &diptych_nn::ParamStore| store.tensors(Layout::Ohwi).map(|tensors| tensors.into_iter().collect());
    run.method.params().load(&all(rank.method.params())?, Layout::Ohwi)?;
    for ((_, store), (_, trained)) in run.method.extra_state().into_iter().zip(rank.method.extra_state()) {
        store.load(&all(trained)?, Layout::Ohwi)?;
    }
    Ok(run.optimizer.restore(&all(rank.optimizer.state())?)?)
}

/// What the ranks of a process have in common.
struct Shared {
    /// The training images, with those that are kept decoded.
    train: Arc<dyn Dataset>,
    /// Which of them can't be decoded.
    unreadable: Unreadable,
}

impl Shared {
    fn new(run: &Prepared) -> Self {
        let (train, cache) = (run.splits.train.clone(), run.recipe.data.cache_mib << 20);
        let unreadable = Unreadable::new(run.recipe.data.max_error_share, train.len());
        let train: Arc<dyn Dataset> = if cache > 0 { Arc::new(Cached::new(train, cache)) } else { train };
        Self { train, unreadable }
    }
}

/// Threads for decoding: as told, or one less than the cores.
pub(crate) fn workers(told: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if told > 0 { told } else { cores.saturating_sub(1).max(1) }
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()?))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
