//! Links in Markdown: what they point to, and from where.

/// What stands in the parentheses of `[text](target)`, outside of `code`.
pub(crate) fn targets(line: &str) -> impl Iterator<Item = &str> {
    let outside_code = |before: &str| before.matches('`').count().is_multiple_of(2) || before.ends_with('`');
    let pieces = line.match_indices("](").filter(move |(start, _)| outside_code(&line[..*start]));
    pieces.filter_map(|(start, _)| {
        let rest = &line[start + 2..];
        rest.split([')', ' ']).next()
    })
}

/// Whether a link leads to a file of this repository.
pub(crate) fn is_local(target: &str) -> bool {
    !(target.is_empty() || target.starts_with('#') || target.contains("://") || target.starts_with("mailto:"))
}

/// `folder/link` without `.` and `..`; `None` when it leaves the root.
pub(crate) fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The folder of a path with `/`; empty at the root.
pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
