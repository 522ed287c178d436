//! The card beside an exported file: what the backbone is, how it was made, how good it is, and how to load it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use diptych_backbones::pretrained;
use diptych_hub::sha256;
use diptych_trainer::{OrBadInput, RunDir};
use serde_json::Value;

use crate::weights::Weights;

/// The best and the last of a measure over a run's evaluations, with the epochs at which they were taken.
#[derive(Clone, Debug, PartialEq)]
struct Measure {
    best: (f64, f64),
    last: (f64, f64),
}

/// The text of a card in Markdown, for the file `out` with the weights that `source` (a run directory or a file) names; `usage` says how to load it.
///
/// # Errors
/// If `out`, or the run's recipe or metrics, cannot be read.
pub fn card(weights: &Weights, source: &str, out: &Path, format: &str, usage: &str) -> Result<String> {
    let (architecture, transform) = (&weights.architecture, &weights.transform);
    let file = out.file_name().map_or_else(|| out.display().to_string(), |name| name.to_string_lossy().into_owned());
    let run = if Path::new(source).is_dir() { Some(RunDir::open(Path::new(source))?) } else { None };
    let recipe = match &run {
        Some(run) => std::fs::read_to_string(run.recipe()).context("recipe.toml can't be read").or_bad_input()?,
        None => String::new(),
    };
    let table: toml::Table = toml::from_str(&recipe).context("recipe.toml is not TOML").or_bad_input()?;
    let said = |section: &str, key: &str| {
        let value = table.get(section).and_then(|section| section.get(key))?;
        Some(value.as_str().map_or_else(|| value.to_string(), String::from))
    };
    let form = if format == "onnx" { "as an ONNX graph".to_string() } else { format!("with {format}'s names") };
    let mut text = format!("# {file}\n\nA vision backbone {form}.\n\n| | |\n| --- | --- |\n");
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {} |", value.replace('|', "\\|"));
    };
    line(
        "network",
        format!(
            "{}, width {}, {} stem, {} channels in, {} numbers out",
            weights.config.name,
            weights.config.width,
            architecture.stem.name(),
            architecture.channels,
            architecture.out_dim()
        ),
    );
    line(
        "images",
        format!(
            "{} pixels, scaled to [0, 1], less {}, by {}",
            transform.size,
            list(&transform.mean),
            list(&transform.std)
        ),
    );
    match &run {
        Some(_) => {
            line("method", said("method", "name").unwrap_or_default());
            line("data", said("data", "path").unwrap_or_default());
            for (what, section, key) in [
                ("epochs", "trainer", "epochs"),
                ("batch size", "trainer", "batch_size"),
                ("optimizer", "optim", "name"),
                ("learning rate", "optim", "lr"),
            ] {
                said(section, key).into_iter().for_each(|value| line(what, value));
            }
        }
        None => {
            let from = pretrained::resolve(source).and_then(|path| pretrained::metadata(&path));
            let from = from.ok().and_then(|metadata| metadata.get("imported_from").cloned());
            let name = source.rsplit('/').next().unwrap_or(source);
            line(
                "weights",
                from.map_or_else(|| name.to_string(), |from| format!("{name}, from a checkpoint of {from}")),
            );
        }
    }
    line("SHA-256", sha256(out).or_bad_input()?);
    text.push_str("\n## Results\n\n");
    let measures = match &run {
        Some(run) => measures(&std::fs::read_to_string(run.metrics()).unwrap_or_default()),
        None => BTreeMap::new(),
    };
    if measures.is_empty() {
        text.push_str("None were recorded with these weights.\n");
    } else {
        text.push_str("Measured during the run on its test split, without augmentation; fractions of 1.\n\n");
        text.push_str("| measure | last | epoch | best | epoch |\n| --- | --- | --- | --- | --- |\n");
        for (name, Measure { best, last }) in measures {
            let _ = writeln!(text, "| {name} | {:.4} | {} | {:.4} | {} |", last.0, last.1, best.0, best.1);
        }
    }
    let _ = write!(text, "\n## Use\n\n{usage}");
    if run.is_some() {
        let _ = write!(text, "\n## Recipe\n\nAll settings of the run:\n\n```toml\n{}\n```\n", recipe.trim());
    }
    Ok(text)
}

/// The accuracies (`knn_top1`, `linear_top1`, ...) in a run's metrics, a JSON object a line.
fn measures(metrics: &str) -> BTreeMap<String, Measure> {
    let mut all: BTreeMap<String, Measure> = BTreeMap::new();
    for row in metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let epoch = row["epoch"].as_f64().unwrap_or_default();
        let entries = row.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("_top1"));
        for (key, value) in entries.filter_map(|(key, value)| Some((key, value.as_f64()?))) {
            let now = (value, epoch);
            let measure = all.entry(key.clone()).or_insert(Measure { best: now, last: now });
            measure.last = now;
            if value > measure.best.0 {
                measure.best = now;
            }
        }
    }
    all
}

/// Numbers, divided by commas.
fn list(values: &[f32]) -> String {
    values.iter().map(f32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_and_the_best_are_told_apart() {
        let text = "{\"epoch\": 1, \"knn_top1\": 0.5, \"loss\": 2}\nnot JSON\n{\"epoch\": 2, \"knn_top1\": 0.75}\n{\"epoch\": 3, \"knn_top1\": 0.625}\n";
        let all = measures(text);
        assert_eq!(all.len(), 1);
        assert_eq!(all["knn_top1"], Measure { best: (0.75, 2.0), last: (0.625, 3.0) });
    }
}
