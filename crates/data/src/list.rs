//! The image files under a folder: in a fixed order, links followed once, everything else counted.
//!
//! Real folders are walked first, then links to folders, then links to files, so that an image reachable both ways is
//! found under its real path, once, and a link that leads back up ends there. Hidden files and folders, and what is no
//! regular file (pipes, sockets), are passed over.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::DataError;

/// The endings that count as images, for messages; [`is_image`] compares without regard to case.
pub(crate) const ENDINGS: &str = ".jpg .jpeg .png .webp .bmp .tif .tiff .gif";

/// Whether the ending of `path` is one of an image format that we read.
pub(crate) fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|ending| is_image_ending(ending.as_encoded_bytes()))
}

/// Whether an ending, without its dot, is one of an image format that we read.
pub(crate) fn is_image_ending(ending: &[u8]) -> bool {
    ENDINGS.split(' ').any(|known| ending.eq_ignore_ascii_case(&known.as_bytes()[1..]))
}

/// Whether a file name marks a hidden file.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// The bytes of a relative path with `/` between its parts, on every system.
pub(crate) fn path_bytes(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(part.as_os_str().as_encoded_bytes());
    }
    bytes
}

/// Bytes of a path as text on one line: what is not UTF-8, and control characters, become escapes such as `\xff`.
pub(crate) fn display(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// One image file.
#[derive(Debug, PartialEq)]
pub(crate) struct File {
    /// The path under the folder that was listed.
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// What lies under a folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The image files, sorted by the bytes of their paths.
    pub(crate) files: Vec<File>,
    /// How many files of each other ending there are.
    other: BTreeMap<String, usize>,
    hidden: usize,
    broken_links: usize,
    repeated_links: usize,
    unreadable: Vec<String>,
}

impl Listing {
    /// What was passed over, such as `2 files without an image ending (.txt 2), 1 hidden`; empty if nothing was.
    pub(crate) fn passed_over(&self) -> String {
        let mut parts = Vec::new();
        let others: usize = self.other.values().sum();
        if others > 0 {
            let mut kinds: Vec<_> = self.other.iter().collect();
            kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let more = if kinds.len() > 5 { ", ..." } else { "" };
            let kinds: Vec<_> = kinds.iter().take(5).map(|(ending, count)| format!("{ending} {count}")).collect();
            parts.push(format!("{others} {} ({}{more})", plural(others, "other file"), kinds.join(", ")));
        }
        for (count, what) in [
            (self.hidden, "hidden"),
            (self.broken_links, "broken links"),
            (self.repeated_links, "links to what is already there"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if let Some(first) = self.unreadable.first() {
            let count = self.unreadable.len();
            parts.push(format!("{count} unreadable {} ({first})", plural(count, "folder")));
        }
        parts.join(", ")
    }

    fn count_other(&mut self, path: &Path) {
        let ending = path
            .extension()
            .map_or("no ending".into(), |e| format!(".{}", display(e.as_encoded_bytes()).to_lowercase()));
        *self.other.entry(ending).or_default() += 1;
    }
}

/// `word` with an s unless `count` is 1.
pub(crate) fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// A folder to visit: its path under the root, and the same place with every link resolved.
struct Folder {
    path: PathBuf,
    real: PathBuf,
}

/// Lists the images under `root`, however deep.
///
/// # Errors
/// If `root` itself cannot be listed; folders below it that cannot are counted instead.
pub(crate) fn list(root: &Path) -> Result<Listing, DataError> {
    let real = root.canonicalize().map_err(|source| DataError::io("list", root, source))?;
    std::fs::read_dir(&real).map_err(|source| DataError::io("list", root, source))?;
    let mut listing = Listing::default();
    let mut visited = HashSet::from([real.clone()]);
    let mut links = Vec::new();
    let mut file_links = Vec::new();

    walk(root, Folder { path: PathBuf::new(), real }, &mut visited, &mut links, &mut listing);
    while !links.is_empty() {
        let mut round = std::mem::take(&mut links);
        round.sort_by_cached_key(|path: &PathBuf| path_bytes(path));
        for path in round {
            let place = root.join(&path);
            let (Ok(real), Ok(target)) = (place.canonicalize(), place.metadata()) else {
                listing.broken_links += 1;
                continue;
            };
            if target.is_file() {
                file_links.push((path, real, target.len()));
            } else if !target.is_dir() {
                listing.count_other(&path);
            } else if visited.insert(real.clone()) {
                walk(root, Folder { path, real }, &mut visited, &mut links, &mut listing);
            } else {
                listing.repeated_links += 1;
            }
        }
    }

    let mut targets = HashSet::new();
    file_links.sort_by_cached_key(|(path, ..)| path_bytes(path));
    for (path, real, size) in file_links {
        let listed = is_image(&real)
            && !real.file_name().is_some_and(is_hidden)
            && real.parent().is_some_and(|folder| visited.contains(folder));
        if !is_image(&path) {
            listing.count_other(&path);
        } else if listed || !targets.insert(real) {
            listing.repeated_links += 1;
        } else {
            listing.files.push(File { path, size });
        }
    }
    listing.files.sort_by_cached_key(|file| path_bytes(&file.path));
    Ok(listing)
}

/// Whether there is an image under `root`, however deep; looks no further than the first.
pub(crate) fn any_image(root: &Path) -> bool {
    let mut visited = HashSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.canonicalize().is_ok_and(|real| visited.insert(real)) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_hidden(&entry.file_name()) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if is_image(&path) && path.is_file() {
                return true;
            }
        }
    }
    false
}

/// Adds the files under `start` that are reached without a link; links are put off.
fn walk(root: &Path, start: Folder, visited: &mut HashSet<PathBuf>, links: &mut Vec<PathBuf>, listing: &mut Listing) {
    let mut folders = vec![start];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(root.join(&folder.path)) {
            Ok(entries) => entries,
            Err(error) => {
                listing.unreadable.push(format!("{}: {error}", display(&path_bytes(&folder.path))));
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = folder.path.join(&name);
            if is_hidden(&name) {
                listing.hidden += 1;
                continue;
            }
            let Ok(kind) = entry.file_type() else {
                listing.count_other(&path);
                continue;
            };
            if kind.is_symlink() {
                links.push(path);
            } else if kind.is_dir() {
                let real = folder.real.join(&name);
                if visited.insert(real.clone()) {
                    folders.push(Folder { path, real });
                }
            } else if kind.is_file() && is_image(&path) {
                listing.files.push(File { path, size: entry.metadata().map_or(0, |data| data.len()) });
            } else {
                listing.count_other(&path);
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn touch(root: &Path, path: impl AsRef<Path>) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }

    fn paths(listing: &Listing) -> Vec<String> {
        listing.files.iter().map(|file| display(&path_bytes(&file.path))).collect()
    }

    #[test]
    fn files_are_sorted_by_the_bytes_of_their_paths() {
        let root = tempfile::tempdir().unwrap();
        for path in ["b/1.png", "a/2.JPG", "a.b/1.jpeg", "Z.gif", "a/10.webp", "é.tif", "a/x/y/z.bmp", "f.tiff"] {
            touch(root.path(), path);
        }
        let expected = ["Z.gif", "a.b/1.jpeg", "a/10.webp", "a/2.JPG", "a/x/y/z.bmp", "b/1.png", "f.tiff", "é.tif"];
        assert_eq!(paths(&list(root.path()).unwrap()), expected);
    }

    #[test]
    fn what_is_no_image_is_counted() {
        let root = tempfile::tempdir().unwrap();
        for path in ["1.png", "a.txt", "b.TXT", "c", ".hidden.png", ".git/x.png", "d/.DS_Store"] {
            touch(root.path(), path);
        }
        std::process::Command::new("mkfifo").arg(root.path().join("pipe.png")).status().unwrap();
        let listing = list(root.path()).unwrap();
        assert_eq!(paths(&listing), ["1.png"]);
        assert_eq!(listing.passed_over(), "4 other files (.txt 2, .png 1, no ending 1), 3 hidden");
    }

    #[test]
    fn links_are_followed_once() {
        let root = tempfile::tempdir().unwrap();
        let apart = tempfile::tempdir().unwrap();
        touch(root.path(), "b/1.png");
        touch(apart.path(), "2.png");
        touch(apart.path(), "blob");
        symlink(root.path(), root.path().join("b/loop")).unwrap();
        symlink("../b", root.path().join("b/self")).unwrap();
        symlink(root.path().join("b"), root.path().join("a")).unwrap();
        symlink(apart.path(), root.path().join("c")).unwrap();
        symlink(apart.path(), root.path().join("d")).unwrap();
        // A link beside the file it leads to, two links to one file elsewhere, one to nowhere.
        symlink("1.png", root.path().join("b/again.png")).unwrap();
        symlink(apart.path().join("blob"), root.path().join("e.png")).unwrap();
        symlink(apart.path().join("blob"), root.path().join("f.png")).unwrap();
        symlink("nowhere", root.path().join("g.png")).unwrap();
        // The linked folder leads back to the root.
        symlink(root.path().parent().unwrap(), apart.path().join("up")).ok();
        std::fs::remove_file(apart.path().join("up")).unwrap();
        symlink(root.path(), apart.path().join("back")).unwrap();
        let listing = list(root.path()).unwrap();
        assert_eq!(paths(&listing), ["b/1.png", "c/2.png", "e.png"]);
        assert_eq!((listing.repeated_links, listing.broken_links), (7, 1));
    }

    #[test]
    fn names_need_not_be_utf8() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), OsStr::from_bytes(b"caf\xe9/1.png"));
        touch(root.path(), OsStr::from_bytes(b"caf\xe8/2\n.png"));
        assert_eq!(paths(&list(root.path()).unwrap()), ["caf\\xe8/2\\n.png", "caf\\xe9/1.png"]);
    }
}
