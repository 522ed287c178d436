//! Every published recipe, merged and resolved, against what was published (`published.toml`).

use diptych::recipes;
use diptych::trainer::Recipe;
use toml::{Table, Value};

const PUBLISHED: &str = include_str!("published.toml");
/// Recipes that repeat nobody's numbers.
const OUR_OWN: &[&str] = &["simclr/images", "simclr/channels"];

/// What a run of this recipe would be made of: its merged sections with the method's table filled in, and what follows from them.
fn seen(name: &str) -> anyhow::Result<Table> {
    let recipe = Recipe::resolve(name, recipes::find(name)?)?;
    let mut table = recipe.to_table()?;
    let entry = diptych::methods::find(recipe.method_name()).expect("a method of the registry");
    let mut method = recipe.method.clone();
    method.remove("name");
    let features = recipe.backbone.architecture(recipe.augment.size)?.out_dim();
    table.insert("method".into(), (entry.resolve)(method, features)?.into());
    table.insert("effective_lr".into(), recipe.optim.effective_lr(recipe.trainer.batch_size).into());
    let views = recipe.augment.views();
    table.insert("views".into(), Value::Integer(views.len() as i64));
    let views = views.iter().enumerate().map(|(i, view)| Ok((i.to_string(), Table::try_from(view)?.into())));
    table.insert("view".into(), Value::Table(views.collect::<anyhow::Result<_>>()?));
    Ok(table)
}

/// The keys at which `seen` has not what `published` has.
fn differences(path: &str, published: &Value, seen: Option<&Value>, found: &mut Vec<String>) {
    match (published, seen) {
        (Value::Table(published), Some(Value::Table(seen))) => {
            for (key, value) in published {
                differences(&format!("{path}.{key}"), value, seen.get(key), found);
            }
        }
        (Value::Array(published), Some(Value::Array(seen))) if published.len() == seen.len() => {
            for (i, (value, seen)) in published.iter().zip(seen).enumerate() {
                differences(&format!("{path}.{i}"), value, Some(seen), found);
            }
        }
        (published, Some(seen)) if same(published, seen) => {}
        (published, Some(seen)) => found.push(format!("{path}: {published} was published, the recipe has {seen}")),
        (published, None) => found.push(format!("{path}: {published} was published, the recipe has nothing")),
    }
}

/// Whole and other numbers are compared as numbers; six digits, since some are kept in 32 bits.
fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * a.abs(),
        _ => a == b,
    }
}

fn compare(name: &str, mut published: Table, seen: &Table) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(shared) = published.remove("each_view") {
        for (i, view) in seen["view"].as_table().expect("views by their number") {
            differences(&format!("{name}: view.{i}"), &shared, Some(view), &mut found);
        }
    }
    differences(&format!("{name}: "), &published.into(), Some(&seen.clone().into()), &mut found);
    found
}

#[test]
fn recipes_have_the_published_values() -> anyhow::Result<()> {
    let mut found = Vec::new();
    for (name, published) in toml::from_str::<Table>(PUBLISHED)? {
        let Value::Table(published) = published else { panic!("{name} must be a table") };
        found.extend(compare(&name, published, &seen(&name)?));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn no_published_recipe_is_missing() -> anyhow::Result<()> {
    let published: Table = toml::from_str(PUBLISHED)?;
    for (name, _) in recipes::ALL {
        let is_own = name.ends_with("/quickstart") || OUR_OWN.contains(name);
        assert_ne!(is_own, published.contains_key(*name), "{name}");
    }
    assert!(published.keys().all(|name| recipes::ALL.iter().any(|(known, _)| known == name)));
    Ok(())
}

/// Every section names what decides a result, so that a key can't be forgotten in one recipe alone.
#[test]
fn published_values_are_complete() -> anyhow::Result<()> {
    for (name, published) in toml::from_str::<Table>(PUBLISHED)? {
        for (section, keys) in [
            ("optim", &["name", "momentum", "weight_decay", "schedule", "warmup_epochs"][..]),
            ("trainer", &["epochs", "batch_size", "bn_groups"]),
            ("backbone", &["name", "stem"]),
            ("each_view", &["flip", "jitter", "brightness", "contrast", "saturation", "hue", "grayscale"]),
        ] {
            let table = published.get(section).and_then(Value::as_table).unwrap_or_else(|| panic!("{name}: {section}"));
            assert!(keys.iter().all(|key| table.contains_key(*key)), "{name}: {section} needs {keys:?}");
        }
        assert!(["effective_lr", "views", "method"].iter().all(|key| published.get(key).is_some()), "{name}");
    }
    Ok(())
}

/// The comparison itself: another number, a missing key, a view that differs.
#[test]
fn a_difference_is_told() -> anyhow::Result<()> {
    let name = "byol/imagenet_resnet50";
    let seen = seen(name)?;
    let text = "effective_lr = 3.3\noptim.gamma = 0.1\nmethod.tau = 0.996\neach_view.blur = 1.0\nview.0.hue = 0.1";
    let found = compare(name, toml::from_str(text)?, &seen);
    assert_eq!(found.len(), 3, "{found:?}");
    for word in ["view.1.blur", "effective_lr: 3.3", "optim.gamma"] {
        assert!(found.iter().any(|difference| difference.contains(word)), "{word}: {found:?}");
    }
    Ok(())
}
