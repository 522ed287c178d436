//! Which files a repository has: asked for once, and kept beside them, so that a data set is the same without a network.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::transfer::is_plain;

/// The files of a repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision stood for.
    pub commit: String,
    /// Paths in the repository, sorted. They are as the hub says them: a name that [`resolve`](crate::resolve) refuses may be among them.
    pub files: Vec<String>,
    /// Whether these are all files. Without a network and an earlier list, they are those that other tools have left in the cache.
    pub complete: bool,
}

impl Listing {
    /// From the hub's answer; `None` if it is no list of files.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let commit = value["sha"].as_str().filter(|commit| is_plain(commit))?.to_owned();
        let names =
            value["siblings"].as_array()?.iter().map(|sibling| sibling["rfilename"].as_str().map(str::to_owned));
        let mut files = names.collect::<Option<Vec<String>>>()?;
        files.sort_unstable();
        Some(Self { commit, files, complete: true })
    }

    /// In the hub's own words.
    fn to_json(&self) -> String {
        let names: Vec<Value> = self.files.iter().map(|name| json!({ "rfilename": name })).collect();
        json!({ "sha": self.commit, "siblings": names }).to_string()
    }

    /// Reads a list that was kept.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        Self::from_json(&std::fs::read_to_string(path).ok()?)
    }

    /// Keeps the list: whole, or not at all.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        // As readable as the files that it lists.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(self.to_json().as_bytes())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// The files that lie in a snapshot's folder; `None` if there are none.
    pub(crate) fn of_snapshot(folder: &Path, commit: &str) -> Option<Self> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(inside) = folders.pop() {
            for entry in std::fs::read_dir(folder.join(&inside)).into_iter().flatten().flatten() {
                let path = inside.join(entry.file_name());
                // A file is a link to its content; a link to a folder is not the hub's.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if entry.path().is_file() {
                    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
                    files.push(parts.join("/"));
                }
            }
        }
        files.sort_unstable();
        (!files.is_empty()).then(|| Self { commit: commit.into(), files, complete: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        let list = Listing { commit: "abc".into(), files: vec!["a/\"b".into(), "c".into()], complete: true };
        list.save(&path).unwrap();
        assert_eq!(Listing::load(&path), Some(list));
        for bad in
            ["", "{}", "[]", r#"{"sha": "../x", "siblings": []}"#, r#"{"sha": "a", "siblings": [{"name": "x"}]}"#]
        {
            assert_eq!(Listing::from_json(bad), None, "{bad}");
        }
    }
}
