//! Laying one table over another, and single keys from the command line.

use toml::{Table, Value};

use crate::error::bad_input;

/// Lays `over` on `base`: tables are merged key by key, anything else is replaced.
pub fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Applies one `section.key=value`. The value is read as TOML; what is not TOML is taken as a string.
///
/// A part of the key that is a number is a place in a list: `augment.views.1.solarize=0.2`.
///
/// # Errors
/// If there is no `=`, no `.`, or the key runs through something that is not a section.
pub fn set(table: &mut Table, assignment: &str) -> anyhow::Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        bad_input!("--set {assignment}: expected section.key=value, such as optim.lr=0.3")
    };
    let value = toml::from_str::<Table>(&format!("value = {}", text.trim()))
        .ok()
        .and_then(|mut table| if table.len() == 1 { table.remove("value") } else { None })
        .unwrap_or_else(|| Value::String(text.trim().to_string()));
    set_value(table, key.trim(), value)
}

/// Puts `value` at the dotted `key`.
///
/// # Errors
/// As [`set`].
pub fn set_value(table: &mut Table, key: &str, value: Value) -> anyhow::Result<()> {
    let parts: Vec<&str> = key.split('.').collect();
    let [section, inner @ .., last] = parts.as_slice() else {
        bad_input!("--set {key}: a key is section.key, such as optim.lr")
    };
    if parts.iter().any(|part| part.is_empty()) {
        bad_input!("--set {key}: a key is section.key, such as optim.lr");
    }
    let mut place = table.entry(*section).or_insert_with(|| Table::new().into());
    for part in inner {
        place = match (place, part.parse::<usize>()) {
            (Value::Array(list), Ok(i)) => {
                let len = list.len();
                match list.get_mut(i) {
                    Some(item) => item,
                    None => bad_input!("--set {key}: the list has {len} entries, there is no entry {i}"),
                }
            }
            (Value::Table(table), _) => table.entry(*part).or_insert_with(|| Table::new().into()),
            _ => bad_input!("--set {key}: {part} is inside something that is not a section"),
        };
    }
    match (place, last.parse::<usize>()) {
        (Value::Table(table), _) => {
            table.insert((*last).to_string(), value);
        }
        (Value::Array(list), Ok(i)) if i < list.len() => list[i] = value,
        _ => bad_input!("--set {key}: {last} is inside something that is not a section"),
    }
    Ok(())
}

/// The dotted keys in which two tables differ, in order, with both values as TOML; `-` where one has none.
pub fn changed_keys(old: &Table, new: &Table) -> Vec<(String, String, String)> {
    let mut changed = Vec::new();
    compare("", &Value::Table(old.clone()), &Value::Table(new.clone()), &mut changed);
    changed
}

fn compare(path: &str, old: &Value, new: &Value, changed: &mut Vec<(String, String, String)>) {
    let (Value::Table(a), Value::Table(b)) = (old, new) else {
        if old != new {
            changed.push((path.to_string(), old.to_string(), new.to_string()));
        }
        return;
    };
    let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
    keys.sort();
    let nothing = Value::String("-".into());
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&path, a.get(key).unwrap_or(&nothing), b.get(key).unwrap_or(&nothing), changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn values_from_the_command_line_are_toml_or_strings() {
        let mut t = table("[augment]\nviews = [{}, { blur = 0.1 }]");
        for assignment in [
            "optim.lr=0.3",
            "optim.name=lars",
            "method.projector=[64, 32]",
            "report.images=false",
            "augment.views.1.blur=1.0",
            "data.path=a b/c=d",
            "data.test=1 # 2",
        ] {
            set(&mut t, assignment).unwrap();
        }
        assert_eq!(
            t,
            table(
                r#"
                [optim]
                lr = 0.3
                name = "lars"
                [method]
                projector = [64, 32]
                [report]
                images = false
                [augment]
                views = [{}, { blur = 1.0 }]
                [data]
                path = "a b/c=d"
                test = 1
                "#
            )
        );
    }

    #[test]
    fn a_malformed_assignment_is_told() {
        for (assignment, word) in [("lr", "section.key=value"), ("lr=1", "section.key"), ("a..b=1", "section.key")] {
            let message = set(&mut Table::new(), assignment).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        let mut t = table("[augment]\nviews = [{}]");
        let message = set(&mut t, "augment.views.3.blur=1").unwrap_err().to_string();
        assert!(message.contains("has 1 entries, there is no entry 3"), "{message}");
    }

    #[test]
    fn differences_are_named_by_key() {
        let changed = changed_keys(&table("[a]\nx = 1\ny = 2\n[b]\nz = 1"), &table("[a]\nx = 1\ny = 3\n[c]\nw = 'q'"));
        let keys: Vec<_> = changed.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys, ["a.y", "b", "c"]);
    }
}
