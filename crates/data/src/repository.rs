//! Data sets of a hub: `owner/name[@revision][/subfolder]`, downloaded into the cache that other tools use.

use std::path::{Path, PathBuf};

use diptych_hub::{Hub, HubError, Policy};

use crate::list::{display, plural};
use crate::shards::{self, Kind, find, store};
use crate::{DataError, Reading, Splits};

/// What a user wrote after `hf://`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    /// `datasets/owner/name`.
    repository: String,
    revision: String,
    /// Without slashes at its ends; empty for all.
    folder: &'a str,
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix("datasets/").unwrap_or(text).trim_end_matches('/');
        let (owner, rest) = text.split_once('/')?;
        let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision, folder) = match name.split_once('@') {
            None => (name, "main".to_owned(), rest),
            // The hub's own branches have slashes: refs/convert/parquet, refs/pr/1.
            Some((name, "refs")) => {
                let (kind, rest) = rest.split_once('/')?;
                let (last, folder) = rest.split_once('/').unwrap_or((rest, ""));
                (name, format!("refs/{kind}/{last}"), folder)
            }
            Some((name, revision)) => (name, revision.to_owned(), rest),
        };
        let whole = [owner, name, &revision].iter().all(|part| !part.is_empty());
        whole.then(|| Self { repository: format!("datasets/{owner}/{name}"), revision, folder })
    }
}

/// Opens the data set at an address, from the hub and with the policy that the environment says. The second part is the files that are
/// trained on.
///
/// # Errors
/// If the address is malformed, the hub or the cache does not have what is needed, or the files cannot be opened.
pub(crate) fn open(address: &str, reading: Reading) -> Result<(Splits, Vec<PathBuf>), DataError> {
    let hub = Hub::from_env().map_err(|error| of_hub(address, &error))?.with_progress(true);
    open_at(&hub, address, Policy::from_env(), reading, store::cache_folder())
}

fn of_hub(address: &str, error: &HubError) -> DataError {
    DataError::Invalid(format!("data hf://{}: {error}", display(address.as_bytes())))
}

fn open_at(
    hub: &Hub,
    text: &str,
    policy: Policy,
    reading: Reading,
    cache: Option<PathBuf>,
) -> Result<(Splits, Vec<PathBuf>), DataError> {
    let shown = format!("hf://{}", display(text.as_bytes()));
    let invalid = |problem: String| DataError::Invalid(format!("data {shown}: {problem}"));
    let Some(address) = Address::parse(text) else {
        return Err(invalid("write hf://owner/name, hf://owner/name@revision or hf://owner/name/subfolder".into()));
    };
    let listing = hub.list(&address.repository, &address.revision, policy).map_err(|error| of_hub(text, &error))?;
    let under = |name: &&String| {
        address.folder.is_empty()
            || name.strip_prefix(address.folder).is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
    };
    let all: Vec<&String> = listing.files.iter().filter(under).collect();
    let of = |kind| -> Vec<String> {
        all.iter().filter(|name| Kind::of(Path::new(name)) == Some(kind)).map(|name| (*name).clone()).collect()
    };
    let parquets = of(Kind::Parquet);
    let names = if parquets.is_empty() { of(Kind::Tar) } else { parquets };
    if names.is_empty() {
        let converted = address.revision.starts_with("refs/");
        let advice = if converted {
            "give another revision or folder".to_owned()
        } else {
            let name = address.repository.trim_start_matches("datasets/");
            format!("try hf://{name}@refs/convert/parquet, where hubs keep a conversion")
        };
        let count = all.len();
        return Err(invalid(format!("none of its {count} {} is a .parquet or .tar: {advice}", plural(count, "file"))));
    }
    one_configuration(&names, address.folder).map_err(invalid)?;

    let inside = |name: &String| name.strip_prefix(address.folder).unwrap_or(name).trim_start_matches('/').to_owned();
    let shorts: Vec<String> = names.iter().map(inside).collect();
    let found = find::by_split(&shown, names.iter().map(PathBuf::from).collect(), &shorts);
    let mut folders = Vec::new();
    let mut fetch = |names: Vec<PathBuf>| -> Result<Vec<PathBuf>, DataError> {
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let name = name.to_string_lossy();
            // By the commit, so that all files are of one state of the repository, however long it takes.
            let path = hub
                .resolve(&address.repository, &listing.commit, &name, policy)
                .map_err(|error| of_hub(text, &error))?;
            folders.extend(path.parent().map(Path::to_owned));
            files.push(path);
        }
        Ok(files)
    };
    let (train, test) = (fetch(found.train)?, fetch(found.test)?);
    folders.dedup();
    let mut notes = found.notes;
    let commit: String = listing.commit.chars().take(12).collect();
    notes.push(format!("{shown}: commit {commit}"));
    if !listing.complete {
        let known = shorts.len();
        notes.push(format!(
            "{shown}: {known} {} in the cache, and no list says whether that is all",
            plural(known, "file")
        ));
    }
    let trained = train.clone();
    let splits = shards::open_splits(&shown, find::Found { train, test, notes }, &folders, reading, cache)?;
    Ok((splits, trained))
}

/// Folders other than those of splits are configurations: other versions of the same images, which do not add up.
fn one_configuration(names: &[String], folder: &str) -> Result<(), String> {
    let of = |name: &String| -> String {
        let rest = name.strip_prefix(folder).unwrap_or(name).trim_start_matches('/');
        let folders = rest.rsplit_once('/').map_or("", |(folders, _)| folders);
        let parts: Vec<&str> = folders.split('/').filter(|part| *part != "data" && !find::says_split(part)).collect();
        parts.join("/")
    };
    let mut found: Vec<String> = names.iter().map(of).collect();
    found.sort_unstable();
    found.dedup();
    if found.len() < 2 {
        return Ok(());
    }
    let shown: Vec<&str> = found.iter().map(|name| if name.is_empty() { "(none)" } else { name }).take(5).collect();
    Err(format!(
        "it has {} folders of files, which may be versions of the same images ({}{}): name one, as in hf://owner/name/FOLDER",
        found.len(),
        shown.join(", "),
        if found.len() > 5 { ", ..." } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A hub with one repository, whose files are those of `tests/shards` under the names of a hub.
    fn serve() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&stream.unwrap());
            }
        });
        endpoint
    }

    fn answer(mut stream: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let start: usize = lines
            .filter_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.split('-').next()?.parse().ok())
            .last()
            .unwrap_or(0);
        let list = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
            serde_json::json!({ "sha": COMMIT, "siblings": names }).to_string().into_bytes()
        };
        let file =
            |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shards").join(name)).ok();
        let at_commit = format!("/resolve/{COMMIT}/");
        let body = match path.strip_prefix("/api/datasets/owner/") {
            Some("set/revision/main") => Some(list(&[
                "README.md",
                "data/test-00000-of-00001.parquet",
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
            ])),
            Some("tars/revision/v1") => Some(list(&["a/gnu.tar", "b/pax.tar"])),
            Some("bad/revision/main") => Some(list(&["../x.parquet"])),
            Some("texts/revision/main") => Some(list(&["README.md", "a.csv"])),
            Some("short/revision/main") => Some(list(&["data/train-00000-of-00001.parquet", "data/none.parquet"])),
            Some(_) => None,
            None => match path.split(&at_commit).nth(1)? {
                "data/train-00000-of-00002.parquet" | "data/train-00000-of-00001.parquet" => file("groups.parquet"),
                "data/train-00001-of-00002.parquet" => file("zstd.parquet"),
                "data/test-00000-of-00001.parquet" => file("default.parquet"),
                other => file(other.rsplit('/').next()?).filter(|_| other.ends_with(".tar")),
            },
        };
        let Some(body) = body else {
            return write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
        };
        let (etag, total) = (diptych_random::hash(path.as_bytes()), body.len());
        write!(
            stream,
            "HTTP/1.1 206 Part\r\nContent-Length: {}\r\nETag: \"{etag:x}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Range: bytes {start}-{}/{total}\r\nConnection: close\r\n\r\n",
            total - start,
            total - 1
        )
        .ok()?;
        stream.write_all(&body[start..]).ok()
    }

    fn opened(hub: &Hub, text: &str, policy: Policy) -> Result<Splits, String> {
        let indexes = tempfile::tempdir().unwrap();
        open_at(hub, text, policy, Reading::Rgb, Some(indexes.path().into()))
            .map(|(splits, _)| splits)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_name_repository_revision_and_folder() {
        let parsed = |text| {
            let address = Address::parse(text).unwrap();
            (address.repository, address.revision, address.folder)
        };
        let of = |name: &str, revision: &str, folder| (format!("datasets/{name}"), revision.to_owned(), folder);
        assert_eq!(parsed("a/b"), of("a/b", "main", ""));
        assert_eq!(parsed("datasets/a/b/"), of("a/b", "main", ""));
        assert_eq!(parsed("a/b@v1/c/d"), of("a/b", "v1", "c/d"));
        assert_eq!(parsed("a/b@refs/convert/parquet"), of("a/b", "refs/convert/parquet", ""));
        assert_eq!(parsed("a/b@refs/convert/parquet/default"), of("a/b", "refs/convert/parquet", "default"));
        for bad in ["", "a", "a/", "/b", "a/@v", "a/b@", "a/b@refs"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_data_set_is_downloaded_once_and_opened_by_its_splits() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::new(&serve(), cache.path());
        let error = opened(&hub, "owner/set", Policy::Offline).unwrap_err();
        assert!(
            error.contains("data hf://owner/set: the list of files of datasets/owner/set at main is not in the cache"),
            "{error}"
        );
        for policy in [Policy::Online, Policy::Offline] {
            let splits = opened(&hub, "owner/set", policy).unwrap();
            assert_eq!((splits.train.len(), splits.test.unwrap().len(), splits.train.classes().len()), (48, 24, 3));
            assert_eq!(splits.train.name(30), "train-00001-of-00002.parquet[6]");
            assert!(
                splits.notes.iter().any(|note| note == "hf://owner/set: commit 0123456789ab"),
                "{:?}",
                splits.notes
            );
        }
        // Without a hub, what is in the cache is there still; indexes lie elsewhere than among its links.
        let silent = Hub::new("http://127.0.0.1:9", cache.path());
        assert_eq!(opened(&silent, "owner/set/data", Policy::Online).unwrap().train.len(), 48);
        let snapshot = cache.path().join("datasets--owner--set/snapshots").join(COMMIT).join("data");
        assert_eq!(std::fs::read_dir(snapshot).unwrap().count(), 3);
        let one = opened(&hub, "owner/tars@v1/b", Policy::Online).unwrap();
        assert_eq!((one.train.len(), one.train.name(0).starts_with("pax.tar/")), (6, true));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::new(&serve(), cache.path());
        for (address, expected) in [
            ("owner/none", "does not have the list of files of datasets/owner/none at main"),
            ("owner/tars@v1", "it has 2 folders of files, which may be versions of the same images (a, b): name one"),
            ("owner/tars@v1/c", "none of its 0 files is a .parquet or .tar"),
            ("owner/texts", "none of its 2 files is a .parquet or .tar: try hf://owner/texts@refs/convert/parquet"),
            ("owner/bad", "file \"../x.parquet\" is not allowed"),
            ("owner/short/data/none.parquet", "does not have data/none.parquet of datasets/owner/short"),
            ("owner", "write hf://owner/name"),
            ("../x", "is not allowed"),
        ] {
            let error = opened(&hub, address, Policy::Online).unwrap_err();
            assert!(error.contains(expected) && error.starts_with("data hf://") && !error.contains('\n'), "{error}");
        }
        // A list without its files is no data set.
        assert!(opened(&hub, "owner/short", Policy::Offline).unwrap_err().contains("is not in the cache"));
    }
}
