//! Whatever stands in a recipe file or after `--set` is refused in one line or makes a whole recipe: nothing panics.
//!
//! About a second each; `BOLERO_RANDOM_SEED`, which a failure prints, repeats it.

use diptych_methods::REGISTRY;
use diptych_trainer::{Recipe, recipe};
use toml::Table;

/// Values that a key may be given: sound for some keys, wrong for most.
const VALUES: [&str; 30] = [
    "0",
    "1",
    "-1",
    "2",
    "64",
    "0.5",
    "1e308",
    "-1e-308",
    "nan",
    "inf",
    "9223372036854775807",
    "-9223372036854775808",
    "true",
    "\"\"",
    "\"auto\"",
    "\"sgd\"",
    "\"lars\"",
    "\"resnet18\"",
    "\"bf16\"",
    "[]",
    "[1]",
    "[64, 32]",
    "[0.1, 0.9]",
    "[1, \"a\", []]",
    "[{}, {}]",
    "[{}, { size = 0 }]",
    "{}",
    "{ a = 1 }",
    "1979-05-27",
    "'''\n'''",
];

fn tables(name: &str) -> Table {
    toml::from_str(&format!("[method]\nname = {name:?}")).expect("a name in quotes")
}

/// Every `section.key` of the method's merged recipe.
fn keys(method: &str) -> Vec<String> {
    let merged = Recipe::resolve(method, tables(method)).unwrap_or_else(|error| panic!("{method}: {error:#}"));
    let merged = Table::try_from(&merged).unwrap_or_else(|error| panic!("{method}: {error}"));
    let of_section = |(section, values): (&String, &toml::Value)| {
        let keys = values.as_table().into_iter().flat_map(|table| table.keys());
        keys.map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    merged.iter().flat_map(of_section).collect()
}

/// Resolves the table; what it refuses, it refuses in one line that names the recipe. Returns whether it was sound.
fn judge(table: Table) -> bool {
    match Recipe::resolve("fuzzed", table) {
        Ok(recipe) => {
            let again = Table::try_from(&recipe).expect("a recipe is a table");
            let resolved = Recipe::resolve("fuzzed", again).expect("what was merged stays sound");
            assert_eq!(resolved.augment.views.len(), recipe.augment.views.len());
            true
        }
        Err(error) => {
            let sentence = format!("{error:#}");
            assert!(sentence.starts_with("recipe fuzzed: ") && !sentence.contains('\n'), "{sentence}");
            false
        }
    }
}

#[test]
fn any_text_is_refused_or_resolved() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        if let Ok(table) = toml::from_str(&String::from_utf8_lossy(bytes)) {
            judge(table);
        }
    });
}

#[test]
fn any_settings_are_refused_or_resolved() {
    let methods: Vec<(&str, Vec<String>)> = REGISTRY.iter().map(|entry| (entry.name, keys(entry.name))).collect();
    bolero::check!().with_type::<(u8, Vec<(u8, u8)>)>().for_each(|(method, settings)| {
        let (name, keys) = &methods[usize::from(*method) % methods.len()];
        let mut table = tables(name);
        for (key, value) in settings.iter().take(4) {
            let (key, value) = (&keys[usize::from(*key) % keys.len()], VALUES[usize::from(*value) % VALUES.len()]);
            let _ = recipe::set(&mut table, &format!("{key}={value}"));
        }
        judge(table);
    });
}

/// One key at a time, all of them with all values: some are sound, most are not.
#[test]
fn every_key_is_judged() {
    let (mut sound, mut all) = (0, 0);
    for method in ["simclr", "byol"] {
        for key in keys(method) {
            for value in VALUES {
                let mut table = tables(method);
                recipe::set(&mut table, &format!("{key}={value}")).expect("the key is section.key");
                sound += usize::from(judge(table));
                all += 1;
            }
        }
    }
    assert!(sound * 20 > all && sound * 2 < all, "{sound} of {all} settings are sound");
}
