//! Rules on packages: who may import whom, and that each can be taken alone.

use std::path::Path;

use serde_json::Value;

use super::Finding;

/// The layers, lowest first. A crate imports lower layers only, never its own.
///
/// `random` is at the bottom because augment, nn, data and methods all draw from one source; `eval` is below `trainer`
/// because the loop asks evaluations for numbers, and evaluations need no loop.
const LAYERS: [&[&str]; 8] = [
    &["diptych-random"],
    &["diptych-kernels", "diptych-comm", "diptych-hub", "diptych-augment"],
    &["diptych-nn"],
    &["diptych-backbones", "diptych-heads", "diptych-losses", "diptych-optim", "diptych-metrics"],
    &["diptych-data", "diptych-methods"],
    &["diptych-eval"],
    &["diptych-trainer"],
    &["diptych", "diptych-bench"],
];

/// Packages outside of the layers, which no crate imports: the tests may import all, xtask none.
const OUTSIDE: [&str; 2] = ["diptych-tests", "xtask"];

/// Dependencies that belong to named packages only, and why.
const RESERVED: [(&str, &[&str], &str); 4] = [
    ("hf-hub", &["diptych-hub"], "files of a hub come through diptych_hub::resolve"),
    ("signal-hook", &["diptych-trainer"], "signals are the trainer's"),
    ("indicatif", &["diptych-trainer", "diptych"], "a library does not draw on the user's terminal"),
    ("clap", &["diptych", "diptych-bench", "xtask"], "only programs have a command line"),
];

/// Checks every package of `cargo metadata --no-deps`.
pub(crate) fn check(metadata: &Value, root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let path = manifest.strip_prefix(root).unwrap_or(manifest).to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(manifest).unwrap_or_default();
        // Development dependencies are free: they are not part of what a user builds.
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|dependency| dependency["kind"] != "dev") {
            let dependency = dependency["name"].as_str().unwrap_or_default();
            let message = layer(name, dependency).or_else(|| reserved(name, dependency));
            findings.extend(message.map(|message| Finding::new(&path, line_of(&text, dependency), message)));
        }
        let folder = manifest.parent().unwrap_or(root);
        let readme = folder.join("README.md").is_file();
        findings.extend(publishable(package, readme).into_iter().map(|message| Finding::new(&path, 1, message)));
        if !inherits_lints(&text) {
            let message = "does not inherit the workspace's lints; add `[lints]` with `workspace = true`";
            findings.push(Finding::new(&path, 1, message));
        }
    }
    findings
}

fn line_of(text: &str, dependency: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(dependency)).map_or(1, |i| i + 1)
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// May `name` import `dependency`?
fn layer(name: &str, dependency: &str) -> Option<String> {
    if OUTSIDE.contains(&dependency) {
        return Some(format!("{name} imports {dependency}, which is a tool of the workspace and imported by no crate"));
    }
    if !dependency.starts_with("diptych") {
        return None;
    }
    if name == "xtask" {
        return Some(format!(
            "xtask imports {dependency}; it must work when a crate is broken: start the binary instead"
        ));
    }
    if name == "diptych-tests" {
        return None;
    }
    match (layer_of(name), layer_of(dependency)) {
        (Some(mine), Some(its)) if its < mine => None,
        (Some(mine), Some(its)) => Some(format!(
            "{name} (layer {mine}) imports {dependency} (layer {its}), but a crate imports lower layers only; \
             move what both need further down"
        )),
        (None, _) => Some(format!("{name} has no layer; give it one in LAYERS of xtask/src/tidy/manifests.rs")),
        (_, None) => Some(format!("{dependency} has no layer; give it one in LAYERS of xtask/src/tidy/manifests.rs")),
    }
}

fn reserved(name: &str, dependency: &str) -> Option<String> {
    if name == "diptych-augment" && dependency.starts_with("candle") {
        return Some(format!("diptych-augment imports {dependency}, but it sees pixels, never tensors"));
    }
    let (_, owners, why) = RESERVED.into_iter().find(|(crate_name, ..)| *crate_name == dependency)?;
    (!owners.contains(&name))
        .then(|| format!("{name} imports {dependency}, which is for {} only: {why}", owners.join(", ")))
}

/// Can the package be published and taken alone?
fn publishable(package: &Value, readme: bool) -> Vec<String> {
    let mut messages = Vec::new();
    for field in ["description", "license", "repository", "rust_version"] {
        if package[field].as_str().is_none_or(str::is_empty) {
            messages.push(format!("the package has no `{field}`; a registry and its readers need it"));
        }
    }
    if !readme {
        messages.push("no README.md beside it; write what it is, an example, and who it is for".into());
    }
    if !package["publish"].is_null() {
        messages.push("`publish` is restricted, but every package can be taken alone; delete the line".into());
    }
    messages
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.next() == Some("workspace = true")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lower_layers_are_allowed() {
        assert_eq!(layer("diptych-nn", "diptych-kernels"), None);
        assert_eq!(layer("diptych-trainer", "diptych-eval"), None);
        assert_eq!(layer("diptych-augment", "diptych-random"), None);
        assert_eq!(layer("diptych-tests", "diptych"), None);
        assert_eq!(layer("diptych-nn", "candle-core"), None);
    }

    #[test]
    fn upward_and_sideways_imports_are_caught() {
        for (name, dependency) in [
            ("diptych-nn", "diptych-heads"),
            ("diptych-eval", "diptych-trainer"),
            ("diptych-methods", "diptych-data"),
            ("diptych-kernels", "diptych-kernels"),
            ("xtask", "diptych-nn"),
            ("diptych-nn", "diptych-tests"),
            ("diptych-new", "diptych-nn"),
            ("diptych", "diptych-new"),
        ] {
            assert!(layer(name, dependency).is_some(), "{name} -> {dependency}");
        }
    }

    #[test]
    fn reserved_dependencies_are_caught() {
        assert!(reserved("diptych-data", "hf-hub").is_some() && reserved("diptych-hub", "hf-hub").is_none());
        assert!(reserved("diptych", "signal-hook").is_some() && reserved("diptych-trainer", "signal-hook").is_none());
        assert!(
            reserved("diptych-augment", "candle-core").is_some() && reserved("diptych-nn", "candle-core").is_none()
        );
    }

    #[test]
    fn what_a_registry_needs_is_asked_for() {
        let whole =
            json!({ "description": "d", "license": "MIT", "repository": "r", "rust_version": "1.95", "publish": null });
        assert_eq!(publishable(&whole, true), Vec::<String>::new());
        assert_eq!(publishable(&whole, false).len(), 1);
        let broken = json!({ "description": "", "repository": "r", "rust_version": "1.95", "publish": [] });
        assert_eq!(publishable(&broken, true).len(), 3);
    }

    #[test]
    fn lints_must_be_inherited() {
        assert!(inherits_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nname = \"a\"\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
    }

    /// The whole check over a planted package: one finding, at the line of the import.
    #[test]
    fn a_planted_import_is_reported_at_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("Cargo.toml");
        std::fs::write(&manifest, "[lints]\nworkspace = true\n[dependencies]\ndiptych-trainer.workspace = true\n")
            .unwrap();
        std::fs::write(folder.path().join("README.md"), "# a").unwrap();
        let metadata = json!({ "packages": [{
            "name": "diptych-nn", "manifest_path": manifest, "description": "d", "license": "MIT", "repository": "r",
            "rust_version": "1.95", "publish": null,
            "dependencies": [{ "name": "diptych-trainer", "kind": null }, { "name": "diptych-optim", "kind": "dev" }],
        }] });
        let findings = check(&metadata, folder.path());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("Cargo.toml", 4));
    }
}
