//! What one run left in its folder.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::trainer::log::{metrics, replace_file};
use crate::trainer::{Baselines, RunDir};

/// How a run ended, as its folder's `outcome.json` says; a run without that file has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether it took all its steps.
    pub finished: bool,
    /// Why it stopped, if it did.
    pub reason: String,
}

impl End {
    /// How the run in `dir` ended; `None` if it has not.
    ///
    /// # Errors
    /// If the file is there and can't be read.
    pub fn read(dir: &RunDir) -> Result<Option<Self>> {
        let path = dir.root().join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged; remove it", path.display()))
    }

    /// Writes it down.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, dir: &RunDir) -> Result<()> {
        let path = dir.root().join(FILE);
        replace_file(&path, (serde_json::to_string(self)? + "\n").as_bytes())
            .with_context(|| format!("{} can't be written", path.display()))
    }
}

const FILE: &str = "outcome.json";

/// The numbers of a run that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The compared metric's last value, if it was ever measured.
    pub value: Option<f64>,
    /// The step at which the collapse began that it ended in.
    pub collapsed_since: Option<u64>,
    /// The last spread of the embeddings: their std over 1/sqrt(D).
    pub spread: Option<f64>,
    /// Mean speed.
    pub images_per_second: Option<f64>,
    /// The last logged step.
    pub step: u64,
    /// Why it stopped before its end; empty if it did not.
    pub stopped: String,
    /// kNN accuracy of the backbone before training.
    pub random_knn: Option<f64>,
}

impl Outcome {
    /// Reads the metrics of a run that ended so.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn read(dir: &RunDir, end: &End, metric: &str) -> Result<Self> {
        let rows = metrics::read(&dir.metrics())?;
        let last = |key: &str| rows.iter().rev().find_map(|row| row.get(key)?.as_f64()).filter(|n| n.is_finite());
        let shape = rows.iter().find_map(|row| row.get("embedding_shape")?.as_array().cloned());
        let dims = shape.and_then(|shape| shape.get(1)?.as_f64());
        let watched = rows.iter().rev().find(|row| row.contains_key("embedding_std"));
        let speeds: Vec<f64> = rows.iter().filter_map(|row| row.get("images_per_second")?.as_f64()).skip(1).collect();
        Ok(Self {
            value: last(metric),
            collapsed_since: watched.and_then(|row| row.get("collapsed_since")?.as_u64()),
            spread: last("embedding_std").zip(dims).map(|(std, dims)| std * dims.sqrt()),
            images_per_second: (!speeds.is_empty()).then(|| speeds.iter().sum::<f64>() / speeds.len() as f64),
            step: last("step").unwrap_or(0.0) as u64,
            stopped: if end.finished { String::new() } else { end.reason.clone() },
            random_knn: Baselines::find(&rows).map(|baselines| baselines.random),
        })
    }

    /// What is wrong with it, in a word or two; empty if nothing is.
    pub fn remark(&self) -> String {
        match self.collapsed_since {
            Some(step) => format!("collapsed at step {step}"),
            None if !self.stopped.is_empty() => format!("stopped at step {}", self.step),
            None => String::new(),
        }
    }
}
