//! The file of a sweep: which keys take which values, over which recipe.

use anyhow::Result;
use serde::Deserialize;
use toml::{Table, Value};

use crate::trainer::BadInput;

/// What a sweep varies. Keys are those of recipes, as `section.key`.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Above the table and the picture.
    pub title: String,
    /// What the paper found, for the reader.
    pub note: String,
    /// The name or file of the recipe that variants start from, unless they name one of their own.
    pub recipe: Option<String>,
    /// A run for each.
    pub seeds: Vec<u64>,
    /// The key of `metrics.jsonl` whose last value is compared.
    pub metric: String,
    /// Values for all runs.
    pub set: Vec<(String, Value)>,
    /// Values that are combined with each other, by key.
    pub grid: Vec<(String, Vec<Value>)>,
    /// Alternatives with names, each combined with the grid; at least one, which has no name in a sweep without any.
    pub variants: Vec<Variant>,
    /// The picture's axis.
    pub plot: Option<Plot>,
}

/// One alternative.
#[derive(Clone, Debug, Default)]
pub struct Variant {
    /// What it is called in the table.
    pub name: String,
    /// The recipe it starts from.
    pub recipe: String,
    /// Its values.
    pub set: Vec<(String, Value)>,
}

/// The axis along which results are drawn as lines; without one they are bars.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plot {
    /// A key of the grid, with numbers as values.
    pub x: String,
    /// Whether the axis goes by powers of ten.
    #[serde(default)]
    pub log: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    recipe: Option<String>,
    #[serde(default)]
    note: String,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    #[serde(default = "knn")]
    metric: String,
    #[serde(default)]
    set: Table,
    #[serde(default)]
    grid: Table,
    #[serde(default)]
    variants: Vec<FileVariant>,
    plot: Option<Plot>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileVariant {
    name: String,
    recipe: Option<String>,
    #[serde(default)]
    set: Table,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

fn knn() -> String {
    "knn_top1".into()
}

impl Sweep {
    /// Reads a sweep from the text of its file; `name` stands in errors.
    ///
    /// # Errors
    /// [`BadInput`] with a sentence that names the key.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        Self::checked(text).map_err(|problem| BadInput(format!("sweep {name}: {problem}")).into())
    }

    fn checked(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let line = line.map_or(String::new(), |line| format!(" (line {line})"));
            format!("{}{line}", error.message().replace('\n', " ").trim())
        })?;
        if file.seeds.is_empty() {
            return Err("seeds is empty; give at least one, such as seeds = [0, 1]".into());
        }
        if let Some(twice) = file.seeds.iter().enumerate().find(|(i, seed)| file.seeds[..*i].contains(seed)) {
            return Err(format!("seeds has {} twice", twice.1));
        }
        let set = keys("[set]", file.set)?;
        let grid = grid(file.grid)?;
        let variants = variants(file.variants, file.recipe.as_deref(), &grid)?;
        if let Some((key, _)) = set.iter().find(|(key, _)| grid.iter().any(|(other, _)| other == key)) {
            return Err(format!("{key} is in [set] and in [grid]; keep one"));
        }
        let seeded = |key: &str| key == "trainer.seed";
        if set.iter().map(|(key, _)| key).chain(grid.iter().map(|(key, _)| key)).any(|key| seeded(key)) {
            return Err("trainer.seed is set by seeds = [..]; take it out".into());
        }
        if let Some(plot) = &file.plot {
            let Some((_, values)) = grid.iter().find(|(key, _)| *key == plot.x) else {
                return Err(format!("[plot] x = \"{}\" is not a key of [grid]", plot.x));
            };
            if let Some(odd) = values.iter().find(|value| number(value).is_none()) {
                return Err(format!("[plot] x = \"{}\" takes numbers, [grid] has {odd} for it", plot.x));
            }
        }
        Ok(Self {
            title: file.title,
            note: file.note.trim().to_string(),
            recipe: file.recipe,
            seeds: file.seeds,
            metric: file.metric,
            set,
            grid,
            variants,
            plot: file.plot,
        })
    }
}

fn grid(table: Table) -> Result<Vec<(String, Vec<Value>)>, String> {
    keys("[grid]", table)?
        .into_iter()
        .map(|(key, value)| match value {
            Value::Array(values) if !values.is_empty() => Ok((key, values)),
            Value::Array(_) => {
                Err(format!("[grid] {key} is empty; give the values that runs take, such as [0.1, 0.5]"))
            }
            value => Err(format!("[grid] {key} = {value} is not a list; write [{value}], or move it to [set]")),
        })
        .collect()
}

fn variants(
    given: Vec<FileVariant>,
    recipe: Option<&str>,
    grid: &[(String, Vec<Value>)],
) -> Result<Vec<Variant>, String> {
    if given.is_empty() {
        let recipe = recipe.ok_or("recipe is missing; name one, such as recipe = \"simclr/quickstart\"")?;
        return Ok(vec![Variant { recipe: recipe.into(), ..Variant::default() }]);
    }
    let mut variants: Vec<Variant> = Vec::new();
    for one in given {
        let name = one.name;
        if name.trim().is_empty() || variants.iter().any(|other| other.name == name) {
            return Err(format!("[[variants]] name = \"{name}\": each variant has a name of its own"));
        }
        let place = format!("[[variants]] {name}");
        let recipe = one.recipe.or(recipe.map(Into::into));
        let recipe = recipe.ok_or_else(|| format!("{place} has no recipe, and there is none for all"))?;
        let set = keys(&place, one.set)?;
        if let Some((key, _)) = set.iter().find(|(key, _)| grid.iter().any(|(other, _)| other == key)) {
            return Err(format!("{key} is in {place} and in [grid]; keep one"));
        }
        variants.push(Variant { name, recipe, set });
    }
    Ok(variants)
}

/// The values of a table by dotted key, whether written as `"optim.lr" = 1`, `optim.lr = 1` or in a table of their own.
fn keys(place: &str, table: Table) -> Result<Vec<(String, Value)>, String> {
    fn walk(path: &str, table: Table, out: &mut Vec<(String, Value)>) {
        for (key, value) in table {
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            match value {
                Value::Table(table) => walk(&path, table, out),
                value => out.push((path, value)),
            }
        }
    }
    let mut out = Vec::new();
    walk("", table, &mut out);
    match out.iter().find(|(key, _)| !key.contains('.') || key.split('.').any(str::is_empty)) {
        Some((key, _)) => Err(format!("{place} {key}: a key is section.key, such as \"optim.lr\"")),
        None => Ok(out),
    }
}

/// A number of TOML; of a list of widths the last.
pub(super) fn number(value: &Value) -> Option<f64> {
    let value = value.as_array().and_then(|list| list.last()).unwrap_or(value);
    value.as_float().or(value.as_integer().map(|n| n as f64))
}
