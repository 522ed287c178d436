//! The runs of a sweep: every variant at every point of the grid with every seed.

use std::collections::BTreeSet;

use anyhow::Result;
use toml::{Table, Value};

use super::Sweep;
use super::file::{Variant, number};
use crate::trainer::{BadInput, Recipe, recipe};
use crate::{recipes, training};

/// What the command line changes in all runs.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Assignments as `section.key=value`.
    pub set: Vec<String>,
    /// Passes over the training images; a longer warm-up shrinks with them.
    pub epochs: Option<u64>,
    /// Seeds instead of the sweep's.
    pub seeds: Option<Vec<u64>>,
}

/// One run to make.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The setting it belongs to: runs of one setting differ in their seed only.
    pub setting: usize,
    /// The variant's name; empty in a sweep without variants.
    pub variant: String,
    /// The values of the grid's keys, in the grid's order.
    pub values: Vec<Value>,
    /// Where it lies on the picture's axis.
    pub x: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// The recipe, complete.
    pub recipe: Recipe,
    /// The name of its folder.
    pub folder: String,
}

impl Planned {
    /// What tells its setting from the others, such as `no predictor, tau = 0.99`.
    pub fn label(&self, sweep: &Sweep) -> String {
        let values = sweep
            .grid
            .iter()
            .zip(&self.values)
            .map(|((key, _), value)| format!("{} = {}", short(sweep, key), plain(value)));
        let parts: Vec<String> =
            Some(self.variant.clone()).filter(|name| !name.is_empty()).into_iter().chain(values).collect();
        if parts.is_empty() { "as the recipe says".into() } else { parts.join(", ") }
    }
}

/// A key's last part, or all of it where two of the grid end alike.
pub(super) fn short<'a>(sweep: &Sweep, key: &'a str) -> &'a str {
    let last = |key: &'a str| key.rsplit('.').next().unwrap_or(key);
    let alike = sweep.grid.iter().filter(|(other, _)| other.rsplit('.').next() == Some(last(key))).count();
    if alike > 1 { key } else { last(key) }
}

/// A value without TOML's quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

impl Sweep {
    /// Itself with other values for all runs.
    ///
    /// # Errors
    /// [`BadInput`] if an assignment is none, or its key is one that the sweep varies.
    pub fn with(mut self, overrides: &Overrides) -> Result<Self> {
        let mut set = Vec::new();
        for assignment in &overrides.set {
            // The recipe's own rules say what key and value are.
            recipe::set(&mut Table::new(), assignment)?;
            let (key, text) = assignment.split_once('=').unwrap_or((assignment, ""));
            let mut holder = Table::new();
            recipe::set(&mut holder, &format!("a.value={text}"))?;
            let value = holder.get("a").and_then(|a| a.get("value")).cloned();
            set.extend(value.map(|value| (key.trim().to_string(), value)));
        }
        if let Some(epochs) = overrides.epochs {
            set.push(("trainer.epochs".into(), Value::Integer(i64::try_from(epochs).unwrap_or(i64::MAX))));
        }
        for (key, value) in set {
            let varies = self.variants.iter().flat_map(|variant| &variant.set).any(|(other, _)| *other == key);
            if varies || self.grid.iter().any(|(other, _)| *other == key) {
                return Err(BadInput(format!("--set {key}: the sweep varies this key itself")).into());
            }
            if key == "trainer.seed" {
                return Err(BadInput("--set trainer.seed: use --seeds, such as --seeds 0,1,2".into()).into());
            }
            self.set.retain(|(other, _)| *other != key);
            self.set.push((key, value));
        }
        if let Some(seeds) = &overrides.seeds {
            self.seeds.clear();
            for seed in seeds {
                if self.seeds.contains(seed) {
                    return Err(BadInput(format!("--seeds has {seed} twice")).into());
                }
                self.seeds.push(*seed);
            }
        }
        Ok(self)
    }

    /// The runs in the order in which they are made: all settings with the first seed, then with the next.
    ///
    /// # Errors
    /// [`BadInput`] if one of the recipes is none; nothing has been computed then.
    pub fn plan(&self, name: &str) -> Result<Vec<Planned>> {
        let points = self.points();
        let mut folders = BTreeSet::new();
        let mut runs = Vec::new();
        for &seed in &self.seeds {
            let settings = self.variants.iter().flat_map(|variant| points.iter().map(move |point| (variant, point)));
            for (setting, (variant, values)) in settings.enumerate() {
                let x = self.plot.as_ref().and_then(|plot| {
                    let at = self.grid.iter().position(|(key, _)| *key == plot.x)?;
                    number(&values[at])
                });
                let mut run = Planned {
                    setting,
                    variant: variant.name.clone(),
                    values: values.clone(),
                    x,
                    seed,
                    recipe: self.recipe_of(variant, values, seed).map_err(|error| {
                        let place = if variant.name.is_empty() {
                            String::new()
                        } else {
                            format!(" [[variants]] {}:", variant.name)
                        };
                        BadInput(format!("sweep {name}:{place} {error:#}"))
                    })?,
                    folder: String::new(),
                };
                let slug = slug(&run.label(self));
                run.folder = format!("{slug}_seed-{seed}");
                if !folders.insert(run.folder.clone()) {
                    run.folder = format!("{slug}_{setting}_seed-{seed}");
                    folders.insert(run.folder.clone());
                }
                runs.push(run);
            }
        }
        Ok(runs)
    }

    /// Every combination of the grid's values, the last key's changing fastest.
    fn points(&self) -> Vec<Vec<Value>> {
        self.grid.iter().fold(vec![Vec::new()], |points, (_, values)| {
            points
                .iter()
                .flat_map(|point| values.iter().map(|value| point.iter().cloned().chain([value.clone()]).collect()))
                .collect()
        })
    }

    fn recipe_of(&self, variant: &Variant, values: &[Value], seed: u64) -> Result<Recipe> {
        let mut table = recipes::find(&variant.recipe)?;
        let grid = self.grid.iter().zip(values).map(|((key, _), value)| (key, value));
        let own = self.set.iter().chain(&variant.set).map(|(key, value)| (key, value));
        for (key, value) in own.chain(grid) {
            recipe::set_value(&mut table, key, value.clone())?;
        }
        let seed = i64::try_from(seed).unwrap_or(i64::MAX);
        recipe::set_value(&mut table, "trainer.seed", Value::Integer(seed))?;
        let mut recipe = Recipe::resolve(&variant.recipe, table)?;
        training::shorten_warmup(&mut recipe);
        // The method's own keys are checked here too, not when the run's turn comes.
        training::resolved_method(&recipe.to_table()?, &recipe)?;
        Ok(recipe)
    }
}

/// A name for a folder: letters, digits and `.=-`, the rest as one `-`.
fn slug(label: &str) -> String {
    let mut out = String::new();
    for c in label.replace(" = ", "=").to_lowercase().chars() {
        if c.is_ascii_alphanumeric() || "=.".contains(c) {
            out.push(c);
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    let out = out.trim_matches(|c| "-.".contains(c));
    out[..out.len().min(80)].to_string()
}
