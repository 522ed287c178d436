//! The loop.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use candle_core::Tensor;
use diptych_backbones::{Input, describe, pretrained};
use diptych_data::{Cached, Dataset, Loader, LoaderConfig, Skipped};
use diptych_methods::{Forward, Step};
use diptych_nn::{Batch, backward};
use serde_json::Value;

use crate::log::{EventWriter, MetricsLog, Progress, Row, Tick, metrics, replace_file};
use crate::monitor::{bad_gradient, bad_loss};
use crate::recipe::OnCollapse;
use crate::report::Status;
use crate::story::Story;
use crate::{Checkpoints, Evaluation, OrBadInput, Position, Prepared, RunDir, Signals, baselines, evaluate};

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

/// Trains `run` in `dir`, from its newest checkpoint if `resume`.
///
/// # Errors
/// If the data, the disk or a tensor operation fails. The checkpoints written so far stay.
pub fn fit(run: &mut Prepared, dir: &RunDir, resume: bool, watch: &Watch) -> Result<Outcome> {
    let mut session = Session::begin(run, dir, resume, watch)?;
    let end = session.run(run, watch);
    session.progress.finish();
    let (status, outcome) = match end? {
        End::Done => {
            let evaluation = session.story.evaluation.clone().unwrap_or_default();
            (Status::Finished { step: session.position.step }, Outcome::Done(evaluation))
        }
        End::Signal(code) => {
            let reason = format!("interrupted; continue with --resume --out {}", dir.root().display());
            (session.stopped(run, reason), Outcome::Interrupted(code))
        }
        End::Stop(reason) => (session.stopped(run, reason.clone()), Outcome::Stopped(reason)),
    };
    session.story.write(run, dir, status)?;
    Ok(outcome)
}

enum End {
    Done,
    Signal(u8),
    Stop(String),
}

/// What changes while a run goes on, beside the method and the optimizer.
struct Session {
    dir: RunDir,
    checkpoints: Checkpoints,
    position: Position,
    metrics: MetricsLog,
    events: EventWriter,
    progress: Progress,
    story: Story,
    train: Arc<dyn Dataset>,
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

impl Session {
    fn begin(run: &mut Prepared, dir: &RunDir, resume: bool, watch: &Watch) -> Result<Self> {
        let checkpoints = Checkpoints::new(&dir.checkpoints(), run.recipe.trainer.keep_checkpoints);
        let mut position = Position { step: 0, data: run.splits.train.fingerprint(), best: None };
        let (mut resumed, mut problems) = (None, Vec::new());
        if resume {
            let found =
                checkpoints.restore(run.method.as_ref(), run.optimizer.as_mut(), position.data).or_bad_input()?;
            if let Some((restored, unreadable)) = found {
                (position, problems) = (restored, unreadable);
                resumed = Some(position.step);
            }
            metrics::cut_back_to(&dir.metrics(), position.step)?;
            crate::log::tensorboard::cut_back_to(&dir.events(), position.step)?;
        }
        let cache = run.recipe.data.cache_mib << 20;
        let train = run.splits.train.clone();
        let train: Arc<dyn Dataset> = if cache > 0 { Arc::new(Cached::new(train, cache)) } else { train };
        let rows = metrics::read(&dir.metrics())?;
        let mut session = Self {
            checkpoints,
            metrics: MetricsLog::open(&dir.metrics())?,
            events: EventWriter::create(&dir.events(), now())?,
            progress: Progress::new(position.step, run.total_steps(), run.recipe.trainer.epochs, watch.quiet),
            story: Story::new(run, dir, rows),
            train,
            told_test_skips: resume && dir.skipped().exists(),
            since: Since { at: Instant::now(), step: position.step, waited: 0.0 },
            dir: dir.clone(),
            position,
        };
        problems.iter().for_each(|problem| session.progress.println(&format!("skipped {problem}")));
        match resumed {
            Some(step) => session.progress.println(&format!("resumed at step {step}")),
            None if resume => session.progress.println("no checkpoint yet; starting from step 0"),
            None => {}
        }
        if session.position.step == 0 && run.splits.labeled() {
            let baselines = baselines(run)?;
            session.progress.println(&baselines.to_string());
            session.write(baselines.row())?;
        }
        Ok(session)
    }

    fn run(&mut self, run: &mut Prepared, watch: &Watch) -> Result<End> {
        let total = run.total_steps();
        let mut loader = Loader::new(self.train.clone(), self.loader_config(run)).or_bad_input()?;
        self.story.write(run, &self.dir, Status::Running { step: self.position.step, total })?;
        if self.position.step == 0 && run.method.surveys() {
            self.survey(run)?;
        }
        self.since = Since { at: Instant::now(), step: self.position.step, waited: 0.0 };
        if self.position.step == total {
            // A run that was killed between its last checkpoint and its last report.
            self.evaluate(run)?;
        }
        while let Some(batch) = loader.next() {
            self.note_skipped(loader.take_skipped())?;
            let mut batch = batch.context("the data can't be read")?;
            batch.views = batch.views.to_dtype(run.recipe.trainer.precision.dtype())?;
            if let Some(reason) = self.step(run, &batch, loader.wait_seconds())? {
                return Ok(End::Stop(reason));
            }
            if let Some(reason) = self.after_step(run, watch)? {
                return Ok(reason);
            }
        }
        Ok(End::Done)
    }

    /// Shows the method the first epoch, before it learns from it.
    fn survey(&self, run: &mut Prepared) -> Result<()> {
        let config = LoaderConfig { end: Some(run.steps_per_epoch), ..self.loader_config(run) };
        for batch in Loader::new(self.train.clone(), config).or_bad_input()? {
            let mut batch = batch.context("the data can't be read")?;
            batch.views = batch.views.to_dtype(run.recipe.trainer.precision.dtype())?;
            run.method.survey(&batch)?;
        }
        Ok(())
    }

    fn loader_config(&self, run: &Prepared) -> LoaderConfig {
        let recipe = &run.recipe;
        LoaderConfig {
            batch_size: recipe.trainer.batch_size,
            seed: recipe.trainer.seed,
            workers: workers(recipe.data.workers),
            recipe: recipe.augment.clone(),
            max_error_share: recipe.data.max_error_share,
            start: self.position.step,
            end: Some(run.total_steps()),
            ..LoaderConfig::default()
        }
    }

    /// One step; a sentence if its numbers are not finite, in which case nothing but running statistics has changed.
    fn step(&mut self, run: &mut Prepared, batch: &Batch, waited: f64) -> Result<Option<String>> {
        let index = self.position.step;
        let at = Step {
            index,
            total: run.total_steps(),
            epoch: index / run.steps_per_epoch,
            steps_per_epoch: run.steps_per_epoch,
        };
        run.method.before_step(at)?;
        let forward = run.method.forward(batch)?;
        let loss = scalar(&forward.loss.total)?;
        if let Some(reason) = bad_loss(index, loss) {
            return Ok(Some(reason));
        }
        let gradients = backward(&forward.loss.total)?;
        let lr = run.schedule.at(index);
        if let Some(name) = run.optimizer.step(run.method.params(), &gradients, lr)? {
            return Ok(Some(bad_gradient(index, &name)));
        }
        run.method.after_step(at)?;
        self.position.step += 1;
        let due = self.position.step.is_multiple_of(run.recipe.trainer.log_every) || self.position.step == at.total;
        if due || index == 0 {
            let mut row = metrics::row(self.position.step, at.epoch);
            row.insert("loss".into(), loss.into());
            for (name, part) in &forward.loss.parts {
                row.insert(format!("loss_{name}"), scalar(part)?.into());
            }
            row.insert("lr".into(), lr.into());
            if let Some(reason) = self.log_step(run, row, loss, waited, &forward)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Writes the row of a step, with speed and health; a sentence if the run is to stop.
    fn log_step(
        &mut self,
        run: &Prepared,
        mut row: Row,
        loss: f64,
        waited: f64,
        forward: &Forward,
    ) -> Result<Option<String>> {
        let seconds = self.since.at.elapsed().as_secs_f64().max(1e-9);
        let steps = (self.position.step - self.since.step) as f64;
        let images_per_second = steps * run.recipe.trainer.batch_size as f64 / seconds;
        let data_wait_share = ((waited - self.since.waited) / seconds).clamp(0.0, 1.0);
        self.since = Since { at: Instant::now(), step: self.position.step, waited };
        row.insert("images_per_second".into(), images_per_second.into());
        row.insert("views_per_second".into(), (images_per_second * run.recipe.augment.views.len() as f64).into());
        row.insert("data_wait_share".into(), data_wait_share.into());
        let news = self.story.health.look(&mut row, loss, forward)?;
        let epoch = row.get("epoch").and_then(Value::as_u64).unwrap_or_default();
        let (step, spread) = (self.position.step, self.story.health.spread());
        self.progress.tick(&Tick { step, epoch, loss, images_per_second, data_wait_share, spread });
        self.write(row)?;
        if let Some(sentence) = news {
            self.progress.println(&sentence);
        }
        match (run.recipe.trainer.on_collapse, self.story.health.reason()) {
            (OnCollapse::Stop, Some(reason)) => {
                self.save(run)?;
                Ok(Some(reason))
            }
            _ => Ok(None),
        }
    }

    /// What follows a step: evaluation, checkpoint, report, and a look at the signals.
    fn after_step(&mut self, run: &mut Prepared, watch: &Watch) -> Result<Option<End>> {
        let (step, total, trainer) = (self.position.step, run.total_steps(), &run.recipe.trainer);
        let epoch_ends = step.is_multiple_of(run.steps_per_epoch);
        let epoch = step / run.steps_per_epoch;
        let evaluates =
            step == total || (epoch_ends && trainer.eval_every > 0 && epoch.is_multiple_of(trainer.eval_every));
        let saves = match trainer.checkpoint_every {
            0 => epoch_ends,
            every => step.is_multiple_of(every),
        };
        if evaluates {
            self.evaluate(run)?;
        } else if saves {
            self.save(run)?;
        }
        match watch.signals.exit_code() {
            Some(code) if step < total => {
                self.save(run)?;
                Ok(Some(End::Signal(code)))
            }
            _ => Ok(None),
        }
    }

    /// Evaluates, logs, saves, and rewrites weights and report.
    fn evaluate(&mut self, run: &mut Prepared) -> Result<()> {
        let started = Instant::now();
        let evaluation = evaluate(run)?;
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
        let mut row = metrics::row(self.position.step, (self.position.step - 1) / run.steps_per_epoch);
        for (key, value) in evaluation.numbers() {
            row.insert(key.into(), value.into());
        }
        self.write(row)?;
        self.progress.println(&format!("step {}: {evaluation}", self.position.step));
        let better = evaluation.knn.is_some_and(|value| self.position.best.is_none_or(|(_, best)| value > best));
        if better {
            self.position.best = evaluation.knn.map(|value| (self.position.step, value));
        }
        let saved = self.save(run)?;
        if better {
            self.checkpoints.mark_best(&saved)?;
        }
        self.save_backbone(run)?;
        self.story.evaluation = Some(evaluation);
        let status = Status::Running { step: self.position.step, total: run.total_steps() };
        self.story.write(run, &self.dir, status)?;
        self.since.at += started.elapsed();
        Ok(())
    }

    /// The weights that evaluation and other programs take.
    fn save_backbone(&self, run: &Prepared) -> Result<()> {
        let recipe = &run.recipe;
        let input = Input { size: recipe.augment.size, mean: recipe.augment.mean, std: recipe.augment.std };
        let mut metadata = describe(&recipe.backbone, &recipe.backbone.architecture(input.size)?, &input);
        metadata.insert("method".into(), recipe.method_name().into());
        metadata.insert("step".into(), self.position.step.to_string());
        let bytes = pretrained::export(&run.method.params().below("backbone."), self.position.step, metadata)?;
        let path = self.dir.backbone();
        replace_file(&path, &bytes).with_context(|| format!("{} can't be written", path.display()))
    }

    fn save(&mut self, run: &Prepared) -> Result<PathBuf> {
        let started = Instant::now();
        let path = self.checkpoints.save(run.method.as_ref(), run.optimizer.as_ref(), &self.position)?;
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
    fn note_skipped(&mut self, skipped: Vec<Skipped>) -> Result<()> {
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

    fn stopped(&self, run: &Prepared, reason: String) -> Status {
        Status::Stopped { step: self.position.step, total: run.total_steps(), reason }
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
