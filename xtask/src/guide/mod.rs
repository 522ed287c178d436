//! The user's guide: the pages of `docs` as a book, with every link checked.

mod html;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::markdown::{folder, is_local, resolve, targets};
use crate::process::{cargo, metadata, root, run};

/// The program that makes the book, and its version.
const MDBOOK: &str = "0.5.4";

/// Builds the book into `target/guide` and fails when a link in it leads nowhere.
pub(crate) fn build() -> Result<()> {
    let mdbook = mdbook()?;
    let (pages, out) = (root().join("target/guide-pages"), root().join("target/guide"));
    copy(&root().join("docs"), &pages, &repository()?)?;
    run(Command::new(mdbook).arg("build").arg(&pages).arg("--dest-dir").arg(&out))?;
    let dead = html::dead_links(&out)?;
    dead.iter().for_each(|link| println!("{link}"));
    if !dead.is_empty() {
        bail!("guide: {} links lead nowhere", dead.len());
    }
    println!("guide: {}", out.join("index.html").display());
    Ok(())
}

/// The program: what is installed in that version, or one built into `target/tools` once.
fn mdbook() -> Result<PathBuf> {
    let tools = root().join("target/tools");
    let own = tools.join("bin").join(format!("mdbook{}", std::env::consts::EXE_SUFFIX));
    for program in [PathBuf::from("mdbook"), own.clone()] {
        let version = Command::new(&program).arg("--version").output();
        if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("mdbook v{MDBOOK}")) {
            return Ok(program);
        }
    }
    eprintln!("mdbook {MDBOOK} is built once, into {}", tools.display());
    // Unoptimized: it takes a third of the time to build, and makes this book in seconds.
    let what = ["install", "mdbook", "--version", MDBOOK, "--locked", "--debug", "--force"];
    let slim = ["--no-default-features", "--features", "search"];
    let target = tools.join("build");
    run(cargo().args(what).args(slim).arg("--root").arg(&tools).arg("--target-dir").arg(&target))?;
    let _ = fs::remove_dir_all(target);
    Ok(own)
}

/// Where the repository can be read, as the manifest says.
fn repository() -> Result<String> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let address = packages.filter_map(|package| package["repository"].as_str()).next();
    Ok(address.context("no package names its repository")?.to_string())
}

/// Copies the folder of pages; what a page links to outside of it becomes a link to the repository.
fn copy(from: &Path, to: &Path, repository: &str) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        fs::create_dir_all(to.join(&inner))?;
        for entry in fs::read_dir(from.join(&inner)).with_context(|| format!("cannot list {}", from.display()))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                let text = fs::read_to_string(from.join(&path))?;
                fs::write(to.join(&path), outward(&path.to_string_lossy().replace('\\', "/"), &text, repository))?;
            } else {
                fs::copy(from.join(&path), to.join(&path))?;
            }
        }
    }
    Ok(())
}

/// The page `path` (below `docs`) with links out of `docs` turned into addresses.
fn outward(path: &str, text: &str, repository: &str) -> String {
    let here = format!("docs/{}", folder(path));
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut changed = line.to_string();
        for target in targets(line).filter(|target| is_local(target)) {
            let outside = resolve(&here, target).filter(|file| !file.starts_with("docs/"));
            if let Some(file) = outside {
                changed = changed.replace(&format!("]({target})"), &format!("]({repository}/blob/main/{file})"));
            }
        }
        out.push_str(&changed);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_pages_lead_to_the_repository() {
        let text = "[a](../data.md) [b](../../README.md#x) and [c](https://example.org) `[d](../../e)`\n";
        let expected =
            "[a](../data.md) [b](https://r/blob/main/README.md#x) and [c](https://example.org) `[d](../../e)`\n";
        assert_eq!(outward("guide/page.md", text, "https://r"), expected);
        assert_eq!(outward("page.md", "[a](guide/b.md)\n", "https://r"), "[a](guide/b.md)\n");
    }
}
