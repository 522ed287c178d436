//! Links in the pages of a built book: each must lead to a file, and to a place in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::markdown::{folder, is_local, resolve};

/// A page's links, and the places in it that a link can name.
struct Page {
    links: BTreeSet<String>,
    places: BTreeSet<String>,
}

/// Every link of the book in `book` that leads nowhere, as a sentence.
pub(super) fn dead_links(book: &Path) -> Result<Vec<String>> {
    let mut files = BTreeSet::new();
    list(book, "", &mut files)?;
    let mut pages = BTreeMap::new();
    for name in files.iter().filter(|name| name.ends_with(".html")) {
        let text = fs::read_to_string(book.join(name)).with_context(|| format!("cannot read {name}"))?;
        pages.insert(name.clone(), page(&text));
    }
    Ok(check(&files, &pages))
}

fn list(book: &Path, inner: &str, files: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(book.join(inner)).with_context(|| format!("cannot list {}", book.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if inner.is_empty() { name } else { format!("{inner}/{name}") };
        if entry.file_type()?.is_dir() {
            list(book, &path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

fn page(text: &str) -> Page {
    let values = |name: &str| -> BTreeSet<String> {
        let start = format!(" {name}=\"");
        let found = text.match_indices(&start).filter_map(|(at, _)| text[at + start.len()..].split('"').next());
        found.map(|value| value.replace("&amp;", "&")).collect()
    };
    let mut links = values("href");
    links.extend(values("src"));
    Page { links, places: values("id") }
}

fn check(files: &BTreeSet<String>, pages: &BTreeMap<String, Page>) -> Vec<String> {
    let mut dead = Vec::new();
    for (name, page) in pages {
        // Its links are relative to wherever it is shown.
        if name == "404.html" {
            continue;
        }
        for link in &page.links {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let outside = !is_local(link) && !link.starts_with('#');
            if outside || link.starts_with("data:") {
                continue;
            }
            let wanted = match file {
                "" => Some(name.clone()),
                file => resolve(folder(name), file),
            };
            let there = wanted.as_ref().filter(|wanted| files.contains(*wanted));
            match there {
                None => dead.push(format!("{name}: links to {link}, which is not in the book")),
                Some(target) => {
                    let known = pages.get(target).is_none_or(|page| place.is_empty() || page.places.contains(place));
                    if !known {
                        dead.push(format!("{name}: links to {link}, but {target} has no heading #{place}"));
                    }
                }
            }
        }
    }
    dead
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(links: &str) -> Vec<String> {
        let pages = [
            ("guide/a.html", format!("<h1 id=\"top\">A</h1>{links}")),
            ("b.html", "<h2 id=\"part\">B</h2>".to_string()),
        ];
        let mut files: BTreeSet<String> = pages.iter().map(|(name, _)| (*name).to_string()).collect();
        files.insert("images/c.png".into());
        check(&files, &pages.map(|(name, text)| (name.to_string(), page(&text))).into())
    }

    #[test]
    fn links_that_lead_somewhere_are_passed() {
        let links = "<a href=\"../b.html#part\">b</a> <a href=\"#top\">a</a> <img src=\"../images/c.png\"> \
                     <a href=\"https://example.org/x#y\">w</a>";
        assert_eq!(dead(links), Vec::<String>::new());
    }

    #[test]
    fn links_that_lead_nowhere_are_caught() {
        for (link, word) in [
            ("<a href=\"c.html\">", "not in the book"),
            ("<a class=\"x\" href=\"../b.html#other\">", "no heading #other"),
            ("<img src=\"images/c.png\">", "not in the book"),
            ("<a href=\"#nowhere\">", "no heading #nowhere"),
            ("<a href=\"../../b.html\">", "not in the book"),
        ] {
            let found = dead(link);
            assert!(found.len() == 1 && found[0].contains(word), "{link}: {found:?}");
        }
    }
}
