//! One rank of a run: the steps, in the same order on every rank.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use diptych_augment::PixelFormat;
use diptych_data::{Loader, LoaderConfig, Planned};
use diptych_kernels::device::Uploader;
use diptych_methods::{Pass, Step, pass};
use diptych_nn::Batch;

use super::feed::Feed;
use super::record::{Record, Taken};
use super::{Outcome, Shared, Watch, scalar, workers};
use crate::monitor::{bad_gradient, bad_gradient_among, bad_loss};
use crate::{Checkpoints, OrBadInput, Position, Prepared, RunDir};

/// Why the steps ended.
pub(super) enum End {
    Done,
    Signal(u8),
    Stop(String),
}

/// What changes on a rank while a run goes on, beside the method and the optimizer.
pub(super) struct Session<'a> {
    shared: &'a Shared,
    position: Position,
    /// The first step of which the device was not asked whether it went well.
    unread: u64,
    /// What rank 0 keeps of the run.
    record: Option<Record>,
}

impl<'a> Session<'a> {
    /// Brings the rank to where the run stands.
    pub(super) fn begin(
        run: &mut Prepared,
        dir: &RunDir,
        resume: bool,
        watch: &Watch,
        shared: &'a Shared,
    ) -> Result<Self> {
        let checkpoints = Checkpoints::new(&dir.checkpoints(), run.recipe.trainer.keep_checkpoints);
        let mut position = Position { step: 0, data: run.splits.train.fingerprint(), best: None };
        let mut found = None;
        if resume {
            found = checkpoints.restore(run.method.as_ref(), run.optimizer.as_mut(), position.data).or_bad_input()?;
            if let Some((restored, _)) = &found {
                position = restored.clone();
            }
        }
        // A process may have had another run before this one.
        diptych_optim::forget_fault(&run.device)?;
        // Nothing is written before all have read.
        run.comm.barrier()?;
        let record = match run.comm.rank() {
            0 => Some(Record::begin(run, dir, checkpoints, (resume, found), &position, watch)?),
            _ => None,
        };
        Ok(Self { shared, unread: position.step, position, record })
    }

    /// Takes the steps that are left.
    pub(super) fn run(mut self, run: &mut Prepared, watch: &Watch) -> Result<Outcome> {
        let end = self.steps(run, watch);
        match self.record {
            Some(record) => record.conclude(run, &self.position, end),
            None => Ok(match end? {
                End::Done => Outcome::Done(crate::Evaluation::default()),
                End::Signal(code) => Outcome::Interrupted(code),
                End::Stop(reason) => Outcome::Stopped(reason),
            }),
        }
    }

    fn steps(&mut self, run: &mut Prepared, watch: &Watch) -> Result<End> {
        let mut feed = self.feed(run, self.loader_config(run))?;
        if let Some(record) = &mut self.record {
            record.tell(run, &self.position)?;
        }
        if self.position.step == 0 && run.method.surveys() {
            self.survey(run)?;
        }
        if let Some(record) = &mut self.record {
            record.start_clock(&self.position);
            if self.position.step == run.total_steps() {
                // A run that was killed between its last checkpoint and its last report.
                record.evaluate(run, &mut self.position)?;
            }
        }
        while let Some(batch) = feed.next() {
            if let Some(record) = &mut self.record {
                record.note_skipped(feed.take_skipped())?;
            }
            if let Some(end) = self.step(run, &batch?, feed.wait_seconds(), watch)? {
                return Ok(end);
            }
        }
        Ok(End::Done)
    }

    /// Shows the method the first epoch, before it learns from it.
    fn survey(&self, run: &mut Prepared) -> Result<()> {
        let config = LoaderConfig { end: Some(run.steps_per_epoch), ..self.loader_config(run) };
        let mut feed = self.feed(run, config)?;
        while let Some(batch) = feed.next() {
            for part in batch?.parts(run.division.parts().count())? {
                run.method.survey(&part)?;
            }
        }
        Ok(())
    }

    fn feed(&self, run: &Prepared, config: LoaderConfig) -> Result<Feed> {
        let (train, known) = (self.shared.train.clone(), self.shared.unreadable.clone());
        let (device, dtype) = (run.device.clone(), run.recipe.trainer.precision.dtype());
        // The GPU makes views of 8-bit RGB; those of other pictures are made here and go there.
        if device.is_cpu() || train.format() != PixelFormat::RGB {
            let loader = Loader::with_known(train, config, known).or_bad_input()?;
            return Ok(Feed::Host { loader, device, dtype });
        }
        let recipes = config.recipe.views();
        let loader = Loader::finishing(train, config, known, Planned).or_bad_input()?;
        Ok(Feed::Device { loader, uploader: Box::new(Uploader::new(&device)?), recipes, dtype })
    }

    fn loader_config(&self, run: &Prepared) -> LoaderConfig {
        let recipe = &run.recipe;
        LoaderConfig {
            batch_size: recipe.trainer.batch_size,
            rank: run.comm.rank(),
            ranks: run.comm.size(),
            seed: recipe.trainer.seed,
            workers: (workers(recipe.data.workers) / run.comm.size()).max(1),
            recipe: recipe.augment.clone(),
            max_error_share: recipe.data.max_error_share,
            sampling: recipe.data.sampling,
            start: self.position.step,
            end: Some(run.total_steps()),
            ..LoaderConfig::default()
        }
    }

    /// One step, and what follows it. Where its numbers are not finite the run ends, and nothing but running statistics has changed.
    fn step(&mut self, run: &mut Prepared, batch: &Batch, waited: f64, watch: &Watch) -> Result<Option<End>> {
        let index = self.position.step;
        let at = Step {
            index,
            total: run.total_steps(),
            epoch: index / run.steps_per_epoch,
            steps_per_epoch: run.steps_per_epoch,
        };
        run.method.before_step(at)?;
        let Pass { mut forward, gradients } =
            pass(run.method.as_mut(), batch, run.division.parts(), run.comm.as_ref())?;
        let due = index == 0 || (index + 1).is_multiple_of(run.recipe.trainer.log_every) || index + 1 == at.total;
        let signal = watch.signals.exit_code();
        // To read a number of a GPU is to wait for it, so it is read where something depends on it.
        let reads = due || run.device.is_cpu() || signal.is_some() || Record::keeps(run, index + 1);
        let loss = if reads { scalar(&forward.loss.total)? } else { f64::NAN };
        if let Some(reason) = bad_loss(index, loss).filter(|_| reads) {
            return Ok(Some(End::Stop(reason)));
        }
        let Some(gradients) = gradients else { bail!("step {index} has a loss and no gradients") };
        let lr = run.schedule.at(index);
        if let Some(name) = run.optimizer.step(run.method.params(), &gradients, lr)? {
            return Ok(Some(End::Stop(bad_gradient(index, &name))));
        }
        if reads {
            let first = std::mem::replace(&mut self.unread, index + 1);
            if let Some(name) = diptych_optim::fault(&run.device)? {
                return Ok(Some(End::Stop(bad_gradient_among(first, index, &name))));
            }
        }
        drop(gradients);
        run.method.after_step(at)?;
        self.position.step += 1;
        if due {
            // The monitors' numbers are those of the whole batch.
            for z in &mut forward.embeddings {
                *z = run.comm.all_gather(z)?;
            }
        }
        let wish = match &mut self.record {
            Some(record) => {
                let taken = Taken { at, loss, lr, forward: &forward, waited };
                record.follow(run, &mut self.position, due.then_some(&taken), signal)?
            }
            None => None,
        };
        agree(run, wish)
    }
}

/// Lets every rank know whether rank 0 wants to end.
fn agree(run: &Prepared, wish: Option<End>) -> Result<Option<End>> {
    if run.comm.size() == 1 {
        return Ok(wish);
    }
    const STOP: u32 = 1000;
    let code = match &wish {
        None => 0,
        Some(End::Signal(code)) => u32::from(*code),
        Some(End::Stop(_) | End::Done) => STOP,
    };
    let code = run.comm.broadcast(&Tensor::new(code, &Device::Cpu)?, 0)?.to_scalar::<u32>()?;
    Ok(match (wish, code) {
        (Some(own), _) => Some(own),
        (None, 0) => None,
        (None, STOP) => Some(End::Stop("rank 0 has ended the run".into())),
        (None, code) => Some(End::Signal(code as u8)),
    })
}
