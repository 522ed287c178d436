//! What serde says about a recipe, in the user's words.

/// Names that people use, and ours.
const SYNONYMS: &[(&str, &str)] = &[
    ("learning_rate", "lr"),
    ("base_lr", "lr"),
    ("wd", "weight_decay"),
    ("decay", "weight_decay"),
    ("optimizer", "name"),
    ("bs", "batch_size"),
    ("batch", "batch_size"),
    ("temp", "temperature"),
    ("tau", "temperature"),
    ("t", "temperature"),
    ("num_workers", "workers"),
    ("max_epochs", "epochs"),
    ("lambd", "lambda"),
    ("arch", "name"),
    ("crop", "crop_scale"),
    ("root", "path"),
    ("dir", "path"),
    ("size", "image_size"),
];

/// The sentence for serde's `message` about the section `[section]`.
pub(super) fn key(section: &str, message: &str) -> String {
    let (what, place) = match message.split_once("\nin `") {
        Some((what, rest)) => (what.trim(), Some(rest.trim_end().trim_end_matches('`'))),
        None => (message.trim(), None),
    };
    let at = |key: &str| match place {
        Some(place) => format!("{section}.{place}.{key}"),
        None => format!("{section}.{key}"),
    };
    let mut names = what.split('`').skip(1).step_by(2);
    if what.starts_with("unknown field") {
        let field = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        let inside = place.map_or(section.to_string(), |place| format!("{section}.{place}"));
        return match closest(field, &known) {
            Some(near) => format!("{} is not a key of [{inside}]; did you mean {}?", at(field), at(near)),
            None => format!("{} is not a key of [{inside}]; its keys are {}", at(field), known.join(", ")),
        };
    }
    if what.starts_with("missing field") {
        return format!("{} is missing", at(names.next().unwrap_or_default()));
    }
    let place = place.map_or(format!("[{section}]"), |place| format!("{section}.{place}"));
    if what.starts_with("unknown variant") {
        let value = names.next().unwrap_or_default();
        let known: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
        return format!("{place} = \"{value}\" is not a choice; there are {}", known.join(", "));
    }
    match what.rsplit_once("expected ") {
        Some((found, expected)) if what.starts_with("invalid") => {
            let found = found.split_once(": ").map_or(found, |(_, found)| found).trim_end_matches(", ");
            format!("{place} is {found}, expected {}", plain_type(expected))
        }
        _ if what.contains('`') || what.contains('.') => what.to_string(),
        _ => format!("{place}: {what}"),
    }
}

/// The sentence about a section that a recipe does not have.
pub(super) fn unknown_section(name: &str, sections: &[&str]) -> String {
    match closest(name, sections) {
        Some(near) => format!("[{name}] is not a section; did you mean [{near}]?"),
        None => format!("[{name}] is not a section; the sections are {}", sections.join(", ")),
    }
}

fn plain_type(rust: &str) -> String {
    match rust.trim() {
        "f64" | "f32" => "a number".into(),
        "usize" | "u64" | "u32" | "u8" => "a whole number, 0 or more".into(),
        "i64" | "i32" => "a whole number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, such as [512, 128]".into(),
        other => other.into(),
    }
}

/// The name among `known` that was probably meant.
fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let meant = SYNONYMS.iter().find(|(other, ours)| *other == name && known.contains(ours));
    if let Some((_, ours)) = meant {
        return known.iter().find(|known| *known == ours).copied();
    }
    let scored = known.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_key_and_what_to_do() {
        for (message, sentence) in [
            (
                "unknown field `learning_rate`, expected one of `lr`, `name`",
                "optim.learning_rate is not a key of [optim]; did you mean optim.lr?",
            ),
            (
                "unknown field `momentm`, expected one of `lr`, `momentum`",
                "optim.momentm is not a key of [optim]; did you mean optim.momentum?",
            ),
            (
                "unknown field `zzz`, expected one of `lr`, `name`",
                "optim.zzz is not a key of [optim]; its keys are lr, name",
            ),
            ("unknown field `z`, expected `x`\nin `v`\n", "optim.v.z is not a key of [optim.v]; its keys are x"),
            ("invalid type: string \"a\", expected f64\nin `lr`\n", "optim.lr is string \"a\", expected a number"),
            (
                "invalid value: integer `-1`, expected usize\nin `n`\n",
                "optim.n is integer `-1`, expected a whole number, 0 or more",
            ),
            (
                "unknown variant `c`, expected `a` or `b`\nin `e`\n",
                "optim.e = \"c\" is not a choice; there are \"a\", \"b\"",
            ),
            ("missing field `n`", "optim.n is missing"),
        ] {
            assert_eq!(key("optim", message), sentence);
        }
        assert_eq!(unknown_section("optm", &["optim", "data"]), "[optm] is not a section; did you mean [optim]?");
    }
}
