//! The house rules of docs/architecture.md, as failures.
//!
//! Each rule is a function from something small (a source file, a manifest, a page) to what it finds wrong, so that
//! its test can feed it a broken example. A finding says where, what, why, and what to do.

mod code;
mod kernels;
mod manifests;
mod source;
mod text;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, root};
use source::Source;

/// One broken rule at one place.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

/// Checks the whole tree; prints what it finds and fails when that is anything.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let files = files(&root)?;
    let mut findings = manifests::check(&process::metadata(&["--no-deps"])?, &root);
    let mut sources = Vec::new();
    for path in &files {
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(text::check(path, &text, |link| root.join(link).exists()));
        findings.extend(kernels::check(path, &text));
        if path.ends_with(".rs") {
            sources.push(Source::new(path, &text));
        }
    }
    source::mark_test_modules(&mut sources);
    findings.extend(sources.iter().flat_map(code::check));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{}:{}: {}", finding.path, finding.line, finding.message);
    }
    if !findings.is_empty() {
        bail!("tidy: {} broken rules (docs/architecture.md explains them)", findings.len());
    }
    println!("tidy: {} files, no broken rule", files.len());
    Ok(())
}

/// Everything git knows or would add, as paths relative to the root with `/`.
fn files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot start git, which tidy asks for the list of files")?;
    if !output.status.success() {
        bail!("git cannot list the files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let list = String::from_utf8_lossy(&output.stdout);
    let mut files: Vec<String> = list.split('\0').filter(|path| !path.is_empty()).map(String::from).collect();
    files.sort();
    files.dedup();
    Ok(files)
}
