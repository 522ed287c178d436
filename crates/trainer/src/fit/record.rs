//! What rank 0 keeps of a run: metrics, events, evaluations, checkpoints, weights, the report, and the line in the terminal.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use diptych_backbones::{Input, describe, pretrained};
use diptych_data::Skipped;
use diptych_methods::{Forward, Step};
use serde_json::Value;

use super::session::End;
use super::{Outcome, Watch, now, scalar};
use crate::evaluate::look;
use crate::log::{EventWriter, MetricsLog, Progress, Row, Tick, metrics, replace_file, tensorboard};
use crate::recipe::OnCollapse;
use crate::report::Status;
use crate::story::Story;
use crate::{Checkpoints, Position, Prepared, RunDir, baselines};

/// What is written of a run, and the means to write it.
pub(super) struct Record {
    dir: RunDir,
    checkpoints: Checkpoints,
    metrics: MetricsLog,
    events: EventWriter,
    progress: Progress,
    story: Story,
    /// Whether test images that can't be decoded are in the log already; they are the same at each evaluation.
    told_test_skips: bool,
    since: Since,
}

/// What has passed since the last row of metrics.
struct Since {
    at: Instant,
    step: u64,
    waited: f64,
}

/// The numbers of a step.
pub(super) struct Taken<'a> {
    pub(super) at: Step,
    pub(super) loss: f64,
    pub(super) lr: f64,
    pub(super) forward: &'a Forward,
    /// Seconds that this rank has waited for data so far.
    pub(super) waited: f64,
}

impl Record {
    /// Opens the files of a run that stands at `position`. With `resume` they are cut back to it; beside it stands what the search for a
    /// checkpoint has found, with the files that were passed over.
    pub(super) fn begin(
        run: &Prepared,
        dir: &RunDir,
        checkpoints: Checkpoints,
        (resume, found): (bool, Option<(Position, Vec<String>)>),
        position: &Position,
        watch: &Watch,
    ) -> Result<Self> {
        if resume {
            metrics::cut_back_to(&dir.metrics(), position.step)?;
            tensorboard::cut_back_to(&dir.events(), position.step)?;
        }
        let rows = metrics::read(&dir.metrics())?;
        let mut record = Self {
            checkpoints,
            metrics: MetricsLog::open(&dir.metrics())?,
            events: EventWriter::create(&dir.events(), now())?,
            progress: Progress::new(position.step, run.total_steps(), run.recipe.trainer.epochs, watch.quiet),
            story: Story::new(run, dir, rows),
            told_test_skips: resume && dir.skipped().exists(),
            since: Since { at: Instant::now(), step: position.step, waited: 0.0 },
            dir: dir.clone(),
        };
        match found {
            Some((_, problems)) => {
                problems.iter().for_each(|problem| record.progress.println(&format!("skipped {problem}")));
                record.progress.println(&format!("resumed at step {}", position.step));
            }
            None if resume => record.progress.println("no checkpoint yet; starting from step 0"),
            None => {}
        }
        if position.step == 0 && run.splits.labeled() {
            let baselines = baselines(run)?;
            record.progress.println(&baselines.to_string());
            record.write(baselines.row())?;
        }
        Ok(record)
    }

    /// Writes the report of a run that goes on.
    pub(super) fn tell(&self, run: &Prepared, position: &Position) -> Result<()> {
        self.story.write(run, &self.dir, Status::Running { step: position.step, total: run.total_steps() })
    }

    /// Measures speed from now on.
    pub(super) fn start_clock(&mut self, position: &Position) {
        self.since = Since { at: Instant::now(), step: position.step, waited: 0.0 };
    }

    /// Writes the report of a run that has ended, and says how.
    pub(super) fn conclude(mut self, run: &Prepared, position: &Position, end: Result<End>) -> Result<Outcome> {
        self.progress.finish();
        let stopped = |reason| Status::Stopped { step: position.step, total: run.total_steps(), reason };
        let (status, outcome) = match end? {
            End::Done => {
                let evaluation = self.story.evaluation.clone().unwrap_or_default();
                (Status::Finished { step: position.step }, Outcome::Done(evaluation))
            }
            End::Signal(code) => {
                let reason = format!("interrupted; continue with --resume --out {}", self.dir.root().display());
                (stopped(reason), Outcome::Interrupted(code))
            }
            End::Stop(reason) => (stopped(reason.clone()), Outcome::Stopped(reason)),
        };
        self.story.write(run, &self.dir, status)?;
        Ok(outcome)
    }

    /// Writes the row of a step, with speed and health; a sentence if the run is to stop.
    fn log(&mut self, run: &Prepared, position: &Position, taken: &Taken) -> Result<Option<String>> {
        let (step, epoch, loss) = (position.step, taken.at.epoch, taken.loss);
        let mut row = metrics::row(step, epoch);
        row.insert("loss".into(), loss.into());
        for (name, part) in &taken.forward.loss.parts {
            row.insert(format!("loss_{name}"), scalar(part)?.into());
        }
        row.insert("lr".into(), taken.lr.into());
        let seconds = self.since.at.elapsed().as_secs_f64().max(1e-9);
        let images = (step - self.since.step) as f64 * run.recipe.trainer.batch_size as f64;
        let images_per_second = images / seconds;
        let data_wait_share = ((taken.waited - self.since.waited) / seconds).clamp(0.0, 1.0);
        self.since = Since { at: Instant::now(), step, waited: taken.waited };
        row.insert("images_per_second".into(), images_per_second.into());
        row.insert("views_per_second".into(), (images_per_second * run.recipe.augment.views.len() as f64).into());
        row.insert("data_wait_share".into(), data_wait_share.into());
        let news = self.story.health.look(&mut row, loss, taken.forward)?;
        let spread = self.story.health.spread();
        self.progress.tick(&Tick { step, epoch, loss, images_per_second, data_wait_share, spread });
        self.write(row)?;
        if let Some(sentence) = news {
            self.progress.println(&sentence);
        }
        match (run.recipe.trainer.on_collapse, self.story.health.reason()) {
            (OnCollapse::Stop, Some(reason)) => {
                self.save(run, position)?;
                Ok(Some(reason))
            }
            _ => Ok(None),
        }
    }

    /// Whether the state after this many steps is evaluated.
    fn evaluates(run: &Prepared, step: u64) -> bool {
        let (every, epoch) = (run.recipe.trainer.eval_every, step / run.steps_per_epoch);
        let at_the_end_of_an_epoch =
            every > 0 && step.is_multiple_of(run.steps_per_epoch) && epoch.is_multiple_of(every);
        step == run.total_steps() || at_the_end_of_an_epoch
    }

    /// Whether there is a checkpoint of it.
    fn saves(run: &Prepared, step: u64) -> bool {
        match run.recipe.trainer.checkpoint_every {
            0 => step.is_multiple_of(run.steps_per_epoch),
            every => step.is_multiple_of(every),
        }
    }

    /// Whether anything but numbers is made of the state after this many steps.
    pub(super) fn keeps(run: &Prepared, step: u64) -> bool {
        Self::evaluates(run, step) || Self::saves(run, step)
    }

    /// What follows a step: its row where one is due, evaluation, checkpoint, report, and a look at the signals.
    pub(super) fn follow(
        &mut self,
        run: &Prepared,
        position: &mut Position,
        due: Option<&Taken>,
        signal: Option<u8>,
    ) -> Result<Option<End>> {
        if let Some(taken) = due
            && let Some(reason) = self.log(run, position, taken)?
        {
            return Ok(Some(End::Stop(reason)));
        }
        if Self::evaluates(run, position.step) {
            self.evaluate(run, position)?;
        } else if Self::saves(run, position.step) {
            self.save(run, position)?;
        }
        match signal {
            Some(code) if position.step < run.total_steps() => {
                self.save(run, position)?;
                Ok(Some(End::Signal(code)))
            }
            _ => Ok(None),
        }
    }

    /// Evaluates, logs, saves, and rewrites weights and report.
    pub(super) fn evaluate(&mut self, run: &Prepared, position: &mut Position) -> Result<()> {
        let started = Instant::now();
        let evaluation = look(run, position.step == run.total_steps())?;
        if let (Some(test), false) = (&run.splits.test, self.told_test_skips) {
            self.told_test_skips = true;
            let reason = "left out of the evaluation: it can't be decoded".to_string();
            let left_out = evaluation.skipped.iter().map(|&index| Skipped {
                index,
                name: test.name(index as usize),
                reason: reason.clone(),
            });
            self.note_skipped(left_out.collect())?;
        }
        let mut row = metrics::row(position.step, (position.step - 1) / run.steps_per_epoch);
        for (key, value) in evaluation.numbers() {
            row.insert(key.into(), value.into());
        }
        self.write(row)?;
        self.progress.println(&format!("step {}: {evaluation}", position.step));
        let better = evaluation.knn.is_some_and(|value| position.best.is_none_or(|(_, best)| value > best));
        if better {
            position.best = evaluation.knn.map(|value| (position.step, value));
        }
        let saved = self.save(run, position)?;
        if better {
            self.checkpoints.mark_best(&saved)?;
        }
        self.save_backbone(run, position.step)?;
        self.story.evaluation = Some(evaluation);
        self.tell(run, position)?;
        self.since.at += started.elapsed();
        Ok(())
    }

    /// The weights that evaluation and other programs take.
    fn save_backbone(&self, run: &Prepared, step: u64) -> Result<()> {
        let recipe = &run.recipe;
        let input =
            Input { size: recipe.augment.size, mean: recipe.augment.mean.to_vec(), std: recipe.augment.std.to_vec() };
        let mut metadata = describe(&recipe.backbone, &recipe.backbone.architecture(input.size)?, &input);
        metadata.insert("method".into(), recipe.method_name().into());
        metadata.insert("step".into(), step.to_string());
        let bytes = pretrained::export(&run.method.params().below("backbone."), step, metadata)?;
        let path = self.dir.backbone();
        replace_file(&path, &bytes).with_context(|| format!("{} can't be written", path.display()))
    }

    fn save(&mut self, run: &Prepared, position: &Position) -> Result<PathBuf> {
        let started = Instant::now();
        let path = self.checkpoints.save(run.method.as_ref(), run.optimizer.as_ref(), position)?;
        self.since.at += started.elapsed();
        Ok(path)
    }

    /// A row to the metrics file, the events and the report's curves.
    fn write(&mut self, row: Row) -> Result<()> {
        let step = row.get("step").and_then(Value::as_u64).unwrap_or_default();
        let numbers = row.iter().filter(|(key, _)| *key != "step");
        let scalars: Vec<(&str, f64)> = numbers.filter_map(|(key, v)| Some((key.as_str(), v.as_f64()?))).collect();
        self.events.scalars(step, now(), &scalars)?;
        self.metrics.write(&row)?;
        self.story.rows.push(row);
        Ok(())
    }

    /// Names undecodable images in `skipped.log`.
    pub(super) fn note_skipped(&mut self, skipped: Vec<Skipped>) -> Result<()> {
        if skipped.is_empty() {
            return Ok(());
        }
        self.story.skipped += skipped.len() as u64;
        let path = self.dir.skipped();
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        for one in &skipped {
            writeln!(file, "{}\t{}", one.name, one.reason).with_context(|| format!("{}", path.display()))?;
        }
        if self.story.skipped == skipped.len() as u64 {
            let first = &skipped[0];
            self.progress.println(&format!(
                "warning: {} can't be decoded ({}); see {}",
                first.name,
                first.reason,
                path.display()
            ));
        }
        Ok(())
    }
}
