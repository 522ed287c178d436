//! What the report tells, gathered while the run goes on.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::log::{Row, metrics};
use crate::machine::{self, count};
use crate::monitor::{Health, MOST_ROWS, keys};
use crate::report::{self, Note, NoteLevel, ReportData, Status, Summary, ViewRow, upper_first};
use crate::{Baselines, Evaluation, Prepared, RunDir, preview};

/// Images shown with their views.
const VIEW_ROWS: usize = 8;

/// The parts of the report that outlive a step.
pub(crate) struct Story {
    title: String,
    started: Instant,
    views: Vec<ViewRow>,
    /// All rows of metrics.
    pub(crate) rows: Vec<Row>,
    /// The latest evaluation.
    pub(crate) evaluation: Option<Evaluation>,
    /// What the monitors saw.
    pub(crate) health: Health,
    /// Images that could not be decoded.
    pub(crate) skipped: u64,
}

impl Story {
    pub(crate) fn new(run: &Prepared, dir: &RunDir, rows: Vec<Row>) -> Self {
        let title = dir.root().file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
        let views = match run.recipe.report.images {
            true => {
                preview::view_rows(run.splits.train.as_ref(), &run.recipe.augment, run.recipe.trainer.seed, VIEW_ROWS)
            }
            false => Vec::new(),
        };
        let warmup = (run.recipe.optim.warmup_epochs * run.steps_per_epoch as f64) as u64;
        Self {
            title,
            started: Instant::now(),
            views,
            health: Health::new(run.total_steps(), warmup, &rows),
            rows,
            evaluation: None,
            skipped: 0,
        }
    }

    /// Writes the report as the run stands.
    pub(crate) fn write(&self, run: &Prepared, dir: &RunDir, status: Status) -> Result<()> {
        report::write(&dir.report(), &self.data(run, status)?)
    }

    fn data(&self, run: &Prepared, status: Status) -> Result<ReportData> {
        let (method, paper) = run.entry.paper.split_once(" (").unwrap_or((run.entry.paper, ""));
        let evaluation = self.evaluation.clone().unwrap_or_default();
        Ok(ReportData {
            title: self.title.clone(),
            method: method.to_string(),
            paper: paper.trim_end_matches(')').to_string(),
            summary: self.summary(run, &status),
            status,
            written: written(),
            series: metrics::series(&self.rows),
            steps_per_epoch: Some(run.steps_per_epoch),
            embedding_dim: self.health.shape().map(|[_, d]| d),
            embedding_rows: self.health.shape().map(|[n, _]| n.min(MOST_ROWS)),
            trivial_loss: self.rows.iter().rev().find_map(|row| row.get(keys::TRIVIAL)?.as_f64()),
            collapsed_since: self.health.collapsed_since().filter(|_| self.health.stuck_since().is_none()),
            stuck_since: self.health.stuck_since(),
            views: self.views.clone(),
            neighbors: evaluation.neighbors,
            map: evaluation.map,
            class_names: run.splits.bank().classes().to_vec(),
            images_hidden: !run.recipe.report.images,
            skipped_images: self.skipped,
            notes: self.notes(),
            facts: facts(run),
            machine: machine::describe(),
            recipe: run.recipe.to_toml()?,
        })
    }

    fn summary(&self, run: &Prepared, status: &Status) -> Summary {
        let last = |key: &str| self.rows.iter().rev().find_map(|row| row.get(key)?.as_f64());
        let best = self.rows.iter().filter_map(|row| row.get("knn_top1")?.as_f64()).max_by(f64::total_cmp);
        let speeds: Vec<f64> = self.rows.iter().filter_map(|row| row.get("images_per_second")?.as_f64()).collect();
        let images_per_second = (!speeds.is_empty()).then(|| speeds.iter().sum::<f64>() / speeds.len() as f64);
        let remaining = match status {
            Status::Running { step, total } => {
                images_per_second.map(|speed| (total - step) as f64 * run.recipe.trainer.batch_size as f64 / speed)
            }
            _ => None,
        };
        let baselines = Baselines::find(&self.rows);
        Summary {
            knn_k: run.recipe.trainer.knn_k,
            knn: last("knn_top1"),
            best_knn: best,
            raw_knn: baselines.map(|b| b.raw),
            random_knn: baselines.map(|b| b.random),
            loss: last("loss"),
            alignment: last("alignment"),
            uniformity: last("uniformity"),
            embedding_std: last("embedding_std"),
            images_per_second,
            elapsed_seconds: Some(self.started.elapsed().as_secs_f64()),
            remaining_seconds: remaining,
            ..Summary::default()
        }
    }

    fn notes(&self) -> Vec<Note> {
        let level = |text: &str| if text.starts_with("recovered") { NoteLevel::Info } else { NoteLevel::Warning };
        let note = |text: &String| Note::new(level(text), upper_first(text) + ".");
        let mut notes: Vec<Note> = self.health.told().iter().map(note).collect();
        let std = self.rows.iter().rev().find_map(|row| row.get("embedding_std")?.as_f64());
        if let (Some(std), Some([_, d]), true) = (std, self.health.shape(), notes.is_empty()) {
            let uniform = 1.0 / (d.max(1) as f64).sqrt();
            if std > 0.5 * uniform {
                let text = format!("The embeddings use their space: std {std:.4}, {uniform:.4} on a uniform sphere.");
                notes.push(Note::new(NoteLevel::Good, text));
            } else {
                let text = format!("The embeddings are narrow: std {std:.4}, {uniform:.4} on a uniform sphere.");
                notes.push(Note::new(NoteLevel::Info, text));
            }
        }
        notes
    }
}

fn facts(run: &Prepared) -> Vec<(String, String)> {
    let mut facts = vec![
        ("data".to_string(), run.recipe.data.path.clone()),
        ("training images".to_string(), count(run.splits.train.len())),
    ];
    if let Some(test) = &run.splits.test {
        facts.push(("test images".to_string(), count(test.len())));
    }
    facts.extend(run.splits.notes.iter().map(|note| ("split".to_string(), note.clone())));
    facts.push((
        "backbone".to_string(),
        format!("{}, {} features", run.recipe.backbone.name, run.method.backbone().out_dim()),
    ));
    facts.push(("trainable parameters".to_string(), count(run.method.params().trainable_values())));
    facts
}

/// The time in words: UTC, to the minute.
fn written() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (days, minute) = ((seconds / 86_400) as i64, seconds % 86_400 / 60);
    // Days to a date of the Gregorian calendar, years beginning in March (Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minute / 60, minute % 60)
}
