//! A run from a recipe, as `train` and `sweep` make it.

use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::trainer::{
    BadInput, OrBadInput, Outcome, Prepared, Recipe, RunDir, Watch, fit, prepare_on as prepare_ranks, recipe,
};

/// Keys that may differ between a run and its continuation: they do not change what it computes.
const FREE_KEYS: &[&str] = &["trainer.device", "trainer.log_every", "data.workers", "data.cache_mib", "report.images"];

/// Opens the data and builds the networks of a recipe; `name` stands in errors.
///
/// # Errors
/// [`BadInput`] with a sentence that names the recipe and the key.
pub fn prepare(name: &str, recipe: Recipe) -> Result<Prepared> {
    prepare_on(name, recipe, 1)
}

/// [`prepare`] for a run whose batches are shared by `ranks` ranks.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_on(name: &str, recipe: Recipe, ranks: usize) -> Result<Prepared> {
    prepare_ranks(recipe, ranks).map_err(|error| BadInput(format!("recipe {name}: {error:#}")).into())
}

/// Trains into `dir`, whose folders exist: from its newest checkpoint if `resume`, else from the start, with the recipe
/// kept beside the run.
///
/// # Errors
/// If the data, the disk or a tensor operation fails.
pub fn train(run: &mut Prepared, dir: &RunDir, resume: bool, watch: &Watch) -> Result<Outcome> {
    if !resume {
        dir.write_recipe(&run.recipe.to_toml()?)?;
    }
    fit(run, dir, resume, watch)
}

/// A recipe's warm-up belongs to its number of epochs: one that takes more than half of a shortened run becomes a tenth of
/// it. Returns whether it did.
pub fn shorten_warmup(recipe: &mut Recipe) -> bool {
    let epochs = recipe.trainer.epochs as f64;
    let long = recipe.optim.warmup_epochs > epochs / 2.0;
    if long {
        recipe.optim.warmup_epochs = epochs / 10.0;
    }
    long
}

/// The recipe that a run keeps, as a table.
///
/// # Errors
/// [`BadInput`] if it can't be read.
pub fn kept(dir: &RunDir) -> Result<Table> {
    let path = dir.recipe();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display())).or_bad_input()?;
    toml::from_str(&text).with_context(|| format!("{} is not TOML", path.display())).or_bad_input()
}

/// Refuses a continuation of the run in `root` by another recipe than it has; keys that change no result may differ.
///
/// # Errors
/// [`BadInput`] that names the keys.
pub fn refuse_changes(root: &Path, kept: &Recipe, wanted: &Recipe) -> Result<()> {
    let (mut old, mut new) = (kept.to_table()?, wanted.to_table()?);
    // What the method fills in by itself is not in a recipe that has not been built yet.
    for table in [&mut old, &mut new] {
        table.insert("method".into(), resolved_method(table, kept)?);
    }
    let refused: Vec<String> = recipe::changed_keys(&old, &new)
        .iter()
        .filter(|(key, ..)| !FREE_KEYS.contains(&key.as_str()))
        .map(|(key, old, new)| format!("{key} (the run has {old}, now {new})"))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let keys = refused.join(", ");
    Err(BadInput(format!("--resume {}: the recipe has changed in {keys}; start a new run for that", root.display()))
        .into())
}

/// A `[method]` section as its method completes it.
///
/// # Errors
/// [`BadInput`] with the method's own sentence.
pub fn resolved_method(table: &Table, recipe: &Recipe) -> Result<Value> {
    let mut table = table.get("method").and_then(Value::as_table).cloned().unwrap_or_default();
    let name = table.remove("name").unwrap_or_else(|| recipe.method_name().into());
    let features = recipe.backbone.architecture(recipe.augment.size).or_bad_input()?.out_dim();
    if let Some(entry) = name.as_str().and_then(crate::methods::find) {
        // The first line only: the tensor library adds a backtrace where the environment asks for one.
        let sentence = |text: String| BadInput(format!("method: {}", text.lines().next().unwrap_or_default()));
        table = (entry.resolve)(table, features).map_err(|error| sentence(error.to_string()))?;
    }
    table.insert("name".into(), name);
    Ok(table.into())
}
