//! The pages on methods, `docs/methods/*.md`, say what the code does: every setting with its default, and commands that work.

use std::path::Path;

use diptych::methods::{Entry, REGISTRY};
use diptych::recipes;
use diptych::trainer::{Recipe, recipe};
use toml::{Table, Value};

fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the page's first table, as (key, default).
fn settings(page: &str) -> Vec<(String, String)> {
    let cell = |cell: &str| cell.trim().trim_matches('`').to_string();
    let rows = page.lines().skip_while(|line| !line.starts_with("| key of `[method]`")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(cell);
            (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
        })
        .collect()
}

/// What the method's table is, left empty, for a backbone of 2048 features.
fn defaults(entry: &Entry) -> Table {
    (entry.resolve)(Table::new(), 2048).unwrap_or_else(|error| panic!("{}: {error}", entry.name))
}

#[test]
fn every_setting_is_listed_with_its_default() {
    for entry in REGISTRY {
        let listed = settings(&page(&format!("methods/{}.md", entry.name)));
        let defaults = defaults(entry);
        let missing: Vec<&String> =
            defaults.keys().filter(|key| !listed.iter().any(|(name, _)| name == *key)).collect();
        assert!(missing.is_empty(), "{}: the page leaves out {missing:?}", entry.name);
        for (key, default) in listed {
            let text = format!("value = {}", default.replace('F', "2048"));
            let table: Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{} {key}: {error}", entry.name));
            assert_eq!(Some(&table["value"]), defaults.get(&key), "{}: the default of {key}", entry.name);
        }
    }
}

/// The words of a command, where single quotes hold one together and `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, piece) in line.split(" #").next().unwrap_or_default().split('\'').enumerate() {
        match i % 2 {
            0 => words.extend(piece.split_whitespace().map(str::to_string)),
            _ => words.push(piece.to_string()),
        }
    }
    words
}

/// Resolves the recipe that `cargo xtask train` would take.
fn follow(line: &str) -> anyhow::Result<()> {
    let words = words(line);
    let mut words = words.iter().skip("cargo xtask train".split(' ').count()).map(String::as_str);
    let Some(name) = words.next().filter(|name| !name.starts_with('-')) else { return Ok(()) };
    let mut table = recipes::find(name)?;
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_default();
        match flag {
            "--set" => recipe::set(&mut table, value)?,
            "--batch-size" => recipe::set(&mut table, &format!("trainer.batch_size={value}"))?,
            other => anyhow::bail!("{other} is no flag that a page uses"),
        }
    }
    let recipe = Recipe::resolve(name, table)?;
    let entry = diptych::methods::find(recipe.method_name()).expect("a method of the registry");
    let features = recipe.backbone.architecture(recipe.augment.size)?.out_dim();
    let mut method = recipe.method.clone();
    method.remove("name");
    (entry.resolve)(method, features)?;
    Ok(())
}

#[test]
fn every_command_can_be_followed() {
    let mut pages = vec![page("methods.md")];
    for entry in REGISTRY {
        let page = page(&format!("methods/{}.md", entry.name));
        let quickstart = format!("cargo xtask train {}/quickstart", entry.name);
        assert!(page.lines().any(|line| line == quickstart), "{}: no command to begin with", entry.name);
        pages.push(page);
    }
    for line in pages.iter().flat_map(|page| page.lines()).filter(|line| line.starts_with("cargo xtask train")) {
        follow(line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    }
}

#[test]
fn every_recipe_is_on_its_page_and_every_page_in_the_index() {
    let index = page("methods.md");
    for (name, _) in recipes::ALL {
        let (method, _) = name.split_once('/').expect("method/name");
        assert!(page(&format!("methods/{method}.md")).contains(&format!("| `{name}` |")), "{name}");
    }
    assert!(REGISTRY.iter().all(|entry| index.contains(&format!("methods/{}.md", entry.name))));
}

/// The reading itself: quotes, comments, a wrong key.
#[test]
fn a_wrong_command_is_told() {
    assert_eq!(words("a 'b c' d   # e 'f'"), ["a", "b c", "d"]);
    let error = follow("cargo xtask train byol/quickstart --set method.tow=0.5").unwrap_err().to_string();
    assert!(error.contains("tow"), "{error}");
    assert_eq!(
        settings("| key of `[method]` | default | |\n| --- |\n| `a` | `\"b\"` | c |\n"),
        [("a".into(), "\"b\"".into())]
    );
    assert!(defaults(&REGISTRY[0]).get("temperature").is_some_and(Value::is_float));
}
