//! Watching for what spoils a run: numbers that are not finite, and embeddings that collapse.
//!
//! `measure` takes the numbers of a step's embeddings, `collapse` judges them in sequence, `sentence` says it in words.

mod collapse;
mod measure;
mod sentence;
#[cfg(test)]
mod tests;

use anyhow::Result;
use candle_core::DType;
use diptych_methods::Forward;
use serde_json::Value;

use crate::log::Row;
use collapse::{Collapse, Kind, Look, News};
use measure::Measures;

pub(crate) use measure::MOST_ROWS;

/// What is wrong with a step's loss, in a sentence; `None` if nothing is.
pub(crate) fn bad_loss(step: u64, loss: f64) -> Option<String> {
    (!loss.is_finite()).then(|| format!("the loss is {loss} at step {step}; {HELP}"))
}

/// That the optimizer met a gradient that is not finite, in a sentence.
pub(crate) fn bad_gradient(step: u64, name: &str) -> String {
    format!("the gradient of {name} is not finite at step {step}; {HELP}")
}

/// The same of a GPU, which is asked once in a while: in one of the steps from `first` to `last`. No weight has changed since.
pub(crate) fn bad_gradient_among(first: u64, last: u64, name: &str) -> String {
    if first == last {
        return bad_gradient(last, name);
    }
    format!(
        "the gradient of {name} was not finite in one of the steps {first} to {last}; no weight has changed since; {HELP}"
    )
}

const HELP: &str = "a lower optim.lr or a longer warm-up usually helps";

/// Keys of a row of metrics that monitors write, beside those that a method names itself.
pub(crate) mod keys {
    pub(crate) const STD: &str = "embedding_std";
    pub(crate) const RANK: &str = "embedding_rank";
    pub(crate) const ALIGNMENT: &str = "embedding_alignment";
    pub(crate) const UNIFORMITY: &str = "embedding_uniformity";
    pub(crate) const POSITIVE: &str = "positive_cosine";
    pub(crate) const NEGATIVE: &str = "negative_cosine";
    pub(crate) const TRIVIAL: &str = "trivial_loss";
    /// `[N, D]`, in the first row only.
    pub(crate) const SHAPE: &str = "embedding_shape";
    /// The step at which the collapse began, in the rows for which it goes on.
    pub(crate) const COLLAPSED: &str = "collapsed_since";
}

/// The health of a run, as far as its logged steps tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    collapse: Collapse,
    /// N and D of the embeddings.
    shape: Option<[usize; 2]>,
    latest: Option<Measures>,
    /// What was said about collapses, in order.
    told: Vec<String>,
}

impl Health {
    /// The health of a run of `total` steps that warms up for `warmup` of them, from the rows it has so far: a resumed
    /// run judges as one that was never stopped.
    pub(crate) fn new(total: u64, warmup: u64, rows: &[Row]) -> Self {
        let mut health = Self { collapse: Collapse::new(total, warmup), ..Self::default() };
        for row in rows {
            health.shape = health.shape.or_else(|| shape(row));
            if let (Some(shape), Some(measures)) = (health.shape, Measures::of_row(row)) {
                let number = |key: &str| row.get(key).and_then(Value::as_f64);
                let step = row.get("step").and_then(Value::as_u64).unwrap_or_default();
                let look = Look { step, loss: number("loss"), trivial: number(keys::TRIVIAL), measures, shape };
                health.judge(&look);
            }
        }
        health
    }

    /// Measures a step's embeddings and judges them; its numbers go into `row`. A sentence if there is news to tell.
    pub(crate) fn look(&mut self, row: &mut Row, loss: f64, forward: &Forward) -> Result<Option<String>> {
        let step = row.get("step").and_then(Value::as_u64).unwrap_or_default();
        for (name, value) in &forward.monitors {
            row.insert((*name).into(), value.to_dtype(DType::F64)?.to_scalar::<f64>()?.into());
        }
        if let Some(trivial) = forward.trivial_loss {
            row.insert(keys::TRIVIAL.into(), trivial.into());
        }
        let Some((shape, measures)) = Measures::of(&forward.embeddings)? else { return Ok(None) };
        measures.fill(row);
        if self.shape.is_none() {
            row.insert(keys::SHAPE.into(), shape.to_vec().into());
        }
        self.shape = Some(shape);
        let news = self.judge(&Look { step, loss: Some(loss), trivial: forward.trivial_loss, measures, shape });
        if let Some(since) = self.collapsed_since() {
            row.insert(keys::COLLAPSED.into(), since.into());
        }
        Ok(news)
    }

    fn judge(&mut self, look: &Look) -> Option<String> {
        self.latest = Some(look.measures);
        let (text, line) = match self.collapse.look(look)? {
            News::Collapsed { kind, since } => {
                let text = sentence::collapsed(kind, since, look);
                (text.clone(), format!("warning: {text}"))
            }
            News::Recovered { since } => {
                let text = sentence::recovered(since, look.step);
                (text.clone(), text)
            }
        };
        self.told.push(text);
        Some(line)
    }

    /// The step at which the collapse began that the run is in.
    pub(crate) fn collapsed_since(&self) -> Option<u64> {
        self.collapse.since()
    }

    /// The step since which the loss, if no more than that, has been stuck at its trivial value.
    pub(crate) fn stuck_since(&self) -> Option<u64> {
        self.collapsed_since().filter(|_| self.collapse.kind() == Some(Kind::Trivial))
    }

    /// Why a run that is to stop at a collapse stops now: what was told, without the usual causes.
    pub(crate) fn reason(&self) -> Option<String> {
        self.collapsed_since()?;
        self.told.last().map(|text| text.split(sentence::CAUSES).next().unwrap_or_default().to_owned())
    }

    /// What was said about collapses, in order.
    pub(crate) fn told(&self) -> &[String] {
        &self.told
    }

    /// N and D of the embeddings, once one was seen.
    pub(crate) fn shape(&self) -> Option<[usize; 2]> {
        self.shape
    }

    /// The latest spread of the embeddings, as a share of that on a sphere which they fill evenly.
    pub(crate) fn spread(&self) -> Option<f64> {
        Some(self.latest?.std * (self.shape?[1] as f64).sqrt())
    }
}

/// The shape that a run's first row of measures names.
fn shape(row: &Row) -> Option<[usize; 2]> {
    let numbers = row.get(keys::SHAPE)?.as_array()?;
    let number = |at: usize| usize::try_from(numbers.get(at)?.as_u64()?).ok();
    Some([number(0)?, number(1)?])
}
