//! The table of a sweep: one row a setting, over its seeds.

use super::plan::{Planned, plain, short};
use super::{Outcome, Sweep};
use crate::trainer::report::{Figure, Group, percent, value};

/// One setting and its runs.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the picture.
    pub label: String,
    /// The variant's name.
    pub variant: String,
    /// The grid's values.
    pub values: Vec<String>,
    /// Where it lies on the picture's axis.
    pub x: Option<f64>,
    /// Folder and outcome of the run of each seed; no outcome of one that has not ended.
    pub runs: Vec<(String, Option<Outcome>)>,
}

impl Row {
    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter_map(|(_, outcome)| outcome.as_ref())
    }

    fn group(&self, name: String) -> Group {
        let results = self.outcomes().filter_map(|outcome| outcome.value).collect();
        Group { name, x: self.x, results, remark: self.remark() }
    }

    /// The mean of the results; none without one.
    pub fn mean(&self) -> Option<f64> {
        self.group(String::new()).mean()
    }

    /// Their deviation over n - 1; none of a single one.
    pub fn deviation(&self) -> Option<f64> {
        self.group(String::new()).deviation()
    }

    /// A mean over runs of another number.
    pub(super) fn average(&self, of: fn(&Outcome) -> Option<f64>) -> Option<f64> {
        let all: Vec<f64> = self.outcomes().filter_map(of).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }

    /// `collapsed`, `1 of 2 collapsed`, `stopped`.
    pub fn remark(&self) -> String {
        let count = self.outcomes().count();
        let share = |what: &str, n: usize| match n {
            0 => None,
            n if n == count => Some(what.to_string()),
            n => Some(format!("{n} of {count} {what}")),
        };
        let collapsed = self.outcomes().filter(|outcome| outcome.collapsed_since.is_some()).count();
        let stopped = self.outcomes().filter(|o| o.collapsed_since.is_none() && !o.stopped.is_empty()).count();
        share("collapsed", collapsed).or_else(|| share("stopped", stopped)).unwrap_or_default()
    }

    /// What went wrong in each of its runs: `collapsed at step 40, no`.
    pub(super) fn trouble(&self) -> String {
        if self.outcomes().all(|outcome| outcome.remark().is_empty()) {
            return "no".into();
        }
        let word =
            |outcome: &Outcome| Some(outcome.remark()).filter(|remark| !remark.is_empty()).unwrap_or("no".into());
        self.outcomes().map(word).collect::<Vec<_>>().join("; ")
    }
}

/// All settings of a sweep.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was varied.
    pub sweep: Sweep,
    /// The seeds that were run.
    pub seeds: Vec<u64>,
    /// One for each setting.
    pub rows: Vec<Row>,
}

impl Summary {
    /// The table of these runs, some of which may not have ended.
    pub fn new(sweep: &Sweep, runs: &[(Planned, Option<Outcome>)]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut seeds: Vec<u64> = Vec::new();
        for (run, outcome) in runs {
            if !seeds.contains(&run.seed) {
                seeds.push(run.seed);
            }
            if rows.len() <= run.setting {
                rows.push(Row {
                    label: run.label(sweep),
                    variant: run.variant.clone(),
                    values: run.values.iter().map(plain).collect(),
                    x: run.x,
                    runs: Vec::new(),
                });
            }
            rows[run.setting].runs.push((run.folder.clone(), outcome.clone()));
        }
        Self { sweep: sweep.clone(), seeds, rows }
    }

    /// How many runs have ended.
    pub fn ended(&self) -> usize {
        self.rows.iter().map(|row| row.outcomes().count()).sum()
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.rows.iter().map(|row| row.runs.len()).sum()
    }

    /// The metric in words.
    pub fn metric(&self) -> String {
        match self.sweep.metric.as_str() {
            "knn_top1" => "kNN accuracy".into(),
            "linear_top1" => "linear accuracy".into(),
            other => other.replace('_', " "),
        }
    }

    /// A value of the metric as text.
    pub fn text(&self, number: f64) -> String {
        if self.is_share() { percent(number) } else { value(number) }
    }

    fn is_share(&self) -> bool {
        self.sweep.metric.ends_with("_top1")
    }

    /// Mean kNN accuracy of the backbones before training.
    pub fn random_knn(&self) -> Option<f64> {
        let all: Vec<f64> = self.rows.iter().flat_map(Row::outcomes).filter_map(|outcome| outcome.random_knn).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }

    /// The picture.
    pub fn figure(&self) -> Figure {
        let axis = self.sweep.plot.as_ref();
        let groups = self.rows.iter().map(|row| {
            // Along an axis, one line for what is the same but for x.
            let others =
                self.sweep.grid.iter().zip(&row.values).filter(|((key, _), _)| axis.is_some_and(|plot| *key != plot.x));
            let others = others.map(|((key, _), value)| format!("{} = {value}", short(&self.sweep, key)));
            let parts: Vec<String> =
                Some(row.variant.clone()).filter(|name| !name.is_empty()).into_iter().chain(others).collect();
            row.group(if axis.is_some() { parts.join(", ") } else { row.label.clone() })
        });
        let random = self.random_knn().filter(|_| self.sweep.metric == "knn_top1");
        Figure {
            title: self.sweep.title.clone(),
            y: self.metric(),
            percent: self.is_share(),
            x: axis.map(|plot| (plot.x.clone(), plot.log)),
            groups: groups.collect(),
            references: random.map(|random| ("random backbone".to_string(), random)).into_iter().collect(),
        }
    }

    /// The table's head and its rows as texts, and whether a row's runs went wrong.
    pub fn cells(&self) -> (Vec<String>, Vec<(Vec<String>, bool)>) {
        let names = self.sweep.variants.iter().any(|variant| !variant.name.is_empty());
        let mut head: Vec<String> = names.then(|| "variant".to_string()).into_iter().collect();
        head.extend(self.sweep.grid.iter().map(|(key, _)| short(&self.sweep, key).to_string()));
        if head.is_empty() {
            head.push("setting".into());
        }
        head.extend(self.seeds.iter().map(|seed| format!("seed {seed}")));
        head.extend(["mean", "deviation", "spread", "collapsed?", "images/s"].map(String::from));
        let dash = || "–".to_string();
        let rows = self.rows.iter().map(|row| {
            let mut cells: Vec<String> = names.then(|| row.variant.clone()).into_iter().collect();
            cells.extend(row.values.iter().cloned());
            if cells.is_empty() {
                cells.push(row.label.clone());
            }
            for (_, outcome) in &row.runs {
                let value = outcome.as_ref().and_then(|outcome| outcome.value);
                cells.push(value.map_or_else(dash, |value| self.text(value)));
            }
            cells.push(row.mean().map_or_else(dash, |mean| self.text(mean)));
            cells.push(row.deviation().map_or_else(dash, |deviation| self.text(deviation)));
            cells.push(row.average(|o| o.spread).map_or_else(dash, |spread| format!("{:.0} %", 100.0 * spread)));
            cells.push(if row.outcomes().next().is_some() { row.trouble() } else { dash() });
            cells.push(row.average(|o| o.images_per_second).map_or_else(dash, |speed| format!("{speed:.0}")));
            (cells, !row.remark().is_empty())
        });
        (head, rows.collect())
    }
}
