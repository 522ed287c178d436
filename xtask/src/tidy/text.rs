//! Rules on any text file: its length, notes left behind, machine paths, links that lead nowhere.

use super::Finding;
use crate::markdown::{folder, is_local, resolve, targets};

/// Lines that a source file may have; the aim is 400.
const MOST_LINES: usize = 450;

/// Checks one file; `exists` tells whether a path relative to the root is there.
pub(crate) fn check(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = length(path, text);
    findings.extend(notes(path, text));
    findings.extend(machine_paths(path, text));
    if path.ends_with(".md") {
        findings.extend(links(path, text, exists));
    }
    findings
}

fn is_source(path: &str) -> bool {
    [".rs", ".py", ".cu", ".cuh", ".h", ".cpp"].iter().any(|ending| path.ends_with(ending))
}

fn length(path: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().count();
    if !is_source(path) || lines <= MOST_LINES {
        return Vec::new();
    }
    vec![Finding::new(
        path,
        MOST_LINES,
        format!("{lines} lines, which nobody reads in one go; split by subject (aim: 400)"),
    )]
}

fn notes(path: &str, text: &str) -> Vec<Finding> {
    // Written in two halves, so that this file passes its own rule.
    let words = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];
    let lines = text.lines().enumerate().filter(|_| is_source(path) || path.ends_with(".toml"));
    let word_in = |line: &str| words.into_iter().find(|word| super::source::has_word(line, word));
    lines
        .filter_map(|(i, line)| word_in(line).map(|word| (i, word)))
        .map(|(i, word)| Finding::new(path, i + 1, format!("`{word}` is a note to nobody; do it, or open an issue")))
        .collect()
}

fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let machine = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
        concat!("C:", "\\"),
    ];
    let absolute = |line: &str, prefix: &str| {
        line.match_indices(prefix).any(|(start, _)| {
            let before = line[..start].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && !"._-~/}*".contains(c))
        })
    };
    let lines = text.lines().enumerate().filter(|_| !path.ends_with(".svg"));
    lines
        .filter(|(_, line)| machine.iter().any(|prefix| absolute(line, prefix)))
        .map(|(i, _)| {
            Finding::new(path, i + 1, "holds a path of one machine; make it relative, or take it as an argument")
        })
        .collect()
}

fn links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code = false;
    for (i, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        for target in targets(line).filter(|_| !in_code) {
            let file = target.split('#').next().unwrap_or_default();
            if !is_local(target) {
                continue;
            }
            let wanted = resolve(folder(path), file);
            if !wanted.as_deref().is_some_and(&exists) {
                let message = format!("links to {target}, which is not there; correct the link or write the page");
                findings.push(Finding::new(path, i + 1, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_caught() {
        assert_eq!(length("a.rs", &"x\n".repeat(MOST_LINES)).len(), 0);
        assert_eq!(length("a.rs", &"x\n".repeat(MOST_LINES + 1)).len(), 1);
        assert_eq!(length("a.md", &"x\n".repeat(MOST_LINES + 1)).len(), 0);
    }

    #[test]
    fn notes_are_caught_in_sources() {
        let text = format!("a\n// {}: later\n", concat!("FIX", "ME"));
        assert_eq!(notes("a.rs", &text)[0].line, 2);
        assert_eq!(notes("a.md", &text).len(), 0);
        assert_eq!(notes("a.rs", &format!("let a{}b = 1;", concat!("XX", "X"))).len(), 0);
    }

    #[test]
    fn machine_paths_are_caught() {
        let home = concat!("/ho", "me/");
        assert_eq!(machine_paths("a.md", &format!("see {home}me/images"))[0].line, 1);
        assert_eq!(machine_paths("a.rs", &format!("open(\"{home}me\")")).len(), 1);
        assert_eq!(machine_paths("a.md", &format!("https://example.org{home}page")).len(), 0);
    }

    #[test]
    fn links_that_lead_nowhere_are_caught() {
        let exists = |path: &str| matches!(path, "docs/glossary.md" | "README.md");
        let dead = |text: &str| links("docs/a.md", text, exists).len();
        assert_eq!(
            dead("[g](glossary.md) [g](glossary.md#loss) [r](../README.md) [w](https://example.org) [h](#here)"),
            0
        );
        assert_eq!(dead("[g](glosary.md)"), 1);
        assert_eq!(dead("[`code`](missing.md)"), 1);
        assert_eq!(dead("[r](../../README.md)"), 1);
        assert_eq!(dead("`a[i](x)` and\n```\n[g](missing.md)\n```"), 0);
        assert_eq!(links("docs/a.md", "one\n[g](missing.md)", exists)[0].line, 2);
    }
}
