#![doc = include_str!("../README.md")]

mod checksum;
mod error;
mod listing;
mod name;
mod transfer;

pub use checksum::{sha256, verify};
pub use error::HubError;
pub use listing::Listing;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use transfer::{Client, Problem};

/// The hub that is asked when nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";

/// May the network be used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A file that is not in the cache is downloaded.
    Online,
    /// Only the cache is read; no connection is opened.
    Offline,
}

impl Policy {
    /// `Offline` when `HF_HUB_OFFLINE` is 1, true, yes or on, in any case; else `Online`.
    pub fn from_env() -> Self {
        Self::from_value(std::env::var("HF_HUB_OFFLINE").ok().as_deref())
    }

    fn from_value(value: Option<&str>) -> Self {
        let value = value.unwrap_or_default().trim().to_ascii_lowercase();
        if matches!(value.as_str(), "1" | "true" | "yes" | "on") { Self::Offline } else { Self::Online }
    }
}

/// The path of one file of a repository, from the cache or downloaded into it; the hub is given by the environment.
///
/// `repo` is `owner/name`, or `datasets/owner/name`; `revision` a branch, tag or commit; `file` a path in the repository.
/// A branch that is in the cache is not asked for news.
///
/// # Errors
/// If a name is malformed, the file is not in the cache and the policy is [`Policy::Offline`], the hub has no such file
/// or refuses it, or the download fails.
pub fn resolve(repo: &str, revision: &str, file: &str, policy: Policy) -> Result<PathBuf, HubError> {
    Hub::from_env()?.resolve(repo, revision, file, policy)
}

/// A hub, and the cache of its files.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: Cache,
    token: Option<String>,
    progress: bool,
}

impl Hub {
    /// The hub at `endpoint` with the cache folder `cache` (the one that holds `models--owner--name`), without a token.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Self {
        let endpoint = endpoint.trim_end_matches('/').to_string();
        Self { endpoint, cache: Cache::new(cache.into()), token: None, progress: false }
    }

    /// The hub that `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN` describe; without them the public one, the cache that other
    /// tools use, and the token that they have stored.
    ///
    /// # Errors
    /// If there is neither `HF_HOME` nor a home directory.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()), std::env::home_dir())
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let text = |name| get(name).and_then(|value| value.into_string().ok());
        let shared = || home.map(|home| home.join(".cache").join("huggingface"));
        let folder = get("HF_HOME").map(PathBuf::from).or_else(shared).ok_or(HubError::NoCache)?;
        let hub = Self::new(text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT), folder.join("hub"));
        let token = text("HF_TOKEN").map(|token| token.trim().to_string()).or_else(|| hub.cache.token());
        Ok(hub.with_token(token))
    }

    /// With an access token, for private repositories.
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token.filter(|token| !token.is_empty());
        self
    }

    /// With a line on standard error that says how far a download is, where that is a terminal.
    pub fn with_progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// As the function [`resolve`], at this hub.
    ///
    /// # Errors
    /// As the function [`resolve`].
    pub fn resolve(&self, repo: &str, revision: &str, file: &str, policy: Policy) -> Result<PathBuf, HubError> {
        let (kind, id) = name::check(repo, revision, file)?;
        let description = Repo::with_revision(id.into(), kind, revision.into());
        if let Some(path) = self.cached(&description, revision, file) {
            return Ok(path);
        }
        let wanted = || format!("{file} of {repo} at {revision}");
        if policy == Policy::Offline {
            return Err(HubError::NotCached { wanted: wanted(), cache: self.cache.path().clone() });
        }
        let get = || -> Result<PathBuf, Problem> {
            let client = self.client();
            let kind_folder = if matches!(kind, RepoType::Dataset) { "datasets/" } else { "" };
            let url = format!("{}/{kind_folder}{id}/resolve/{}/{file}", self.endpoint, revision.replace('/', "%2F"));
            let told = client.describe(&url)?;
            let cache = self.cache.repo(description.clone());
            let (blob, pointer) = (cache.blob_path(&told.etag), cache.pointer_path(&told.commit).join(file));
            for path in [&blob, &pointer] {
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            }
            client.download(&url, &told.etag, &blob, file)?;
            link(&blob, &pointer, file.split('/').count() + 1)?;
            if told.commit != revision {
                cache.create_ref(&told.commit)?;
            }
            Ok(pointer)
        };
        get().map_err(|problem| self.explain(wanted(), problem))
    }

    /// The files of a repository, for those who want all of a kind. A list that was asked for once is not asked for again, as with files.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn list(&self, repo: &str, revision: &str, policy: Policy) -> Result<Listing, HubError> {
        let (kind, id) = name::check(repo, revision, "list")?;
        let cache = self.cache.repo(Repo::with_revision(id.into(), kind, revision.into()));
        let kind = if matches!(kind, RepoType::Dataset) { "datasets" } else { "models" };
        let escaped = revision.replace('/', "%2F");
        let snapshots = cache.pointer_path("commit");
        let folder = snapshots.ancestors().nth(2).unwrap_or(self.cache.path());
        let kept = folder.join("listings").join(format!("{escaped}.json"));
        if let Some(listing) = Listing::load(&kept) {
            return Ok(listing);
        }
        let wanted = || format!("the list of files of {repo} at {revision}");
        if policy == Policy::Offline {
            let commit =
                std::fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
            let commit = Some(commit.trim()).filter(|commit| transfer::is_plain(commit));
            let found = commit.and_then(|commit| Listing::of_snapshot(&cache.pointer_path(commit), commit));
            return found.ok_or_else(|| HubError::NotCached { wanted: wanted(), cache: self.cache.path().clone() });
        }
        let get = || -> Result<Listing, Problem> {
            let text = self.client().text(&format!("{}/api/{kind}/{id}/revision/{escaped}", self.endpoint))?;
            let listing =
                Listing::from_json(&text).ok_or_else(|| Problem::Reason("the answer is no list of files".into()))?;
            // Where it cannot be kept, downloads will say so.
            listing.save(&kept).ok();
            Ok(listing)
        };
        get().map_err(|problem| self.explain(wanted(), problem))
    }

    fn client(&self) -> Client<'_> {
        Client::new(&self.endpoint, self.token.as_deref(), self.progress)
    }

    /// The file in the cache. A commit may be there without a branch that names it, when another tool fetched it.
    fn cached(&self, repo: &Repo, revision: &str, file: &str) -> Option<PathBuf> {
        let cache = self.cache.repo(repo.clone());
        let by_commit = || Some(cache.pointer_path(revision).join(file)).filter(|path| path.is_file());
        cache.get(file).or_else(by_commit)
    }

    fn explain(&self, wanted: String, problem: Problem) -> HubError {
        let endpoint = self.endpoint.clone();
        match problem {
            Problem::Status(404) => HubError::NotFound { wanted, endpoint },
            Problem::Status(code @ (401 | 403)) => {
                HubError::Refused { wanted, endpoint, code, token: self.token.is_some() }
            }
            Problem::Status(code) => HubError::Download { wanted, endpoint, reason: format!("status {code}") },
            Problem::Reason(reason) => HubError::Download { wanted, endpoint, reason },
            Problem::Sum(path, found, expected) => HubError::Checksum { path, found, expected },
        }
    }
}

/// Lets `pointer`, `depth` folders below the repository's, lead to `blob`.
fn link(blob: &Path, pointer: &Path, depth: usize) -> std::io::Result<()> {
    if pointer.exists() {
        return Ok(());
    }
    // A link to what is no longer there.
    std::fs::remove_file(pointer).ok();
    #[cfg(unix)]
    {
        let mut relative: PathBuf = std::iter::repeat_n("..", depth).collect();
        relative.push("blobs");
        relative.push(blob.file_name().unwrap_or_default());
        match std::os::unix::fs::symlink(relative, pointer) {
            // Another process was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = depth;
        std::fs::hard_link(blob, pointer).or_else(|_| std::fs::copy(blob, pointer).map(drop))
    }
}

/// Everything but the token.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "(hidden)");
        let mut out = f.debug_struct("Hub");
        out.field("endpoint", &self.endpoint).field("cache", self.cache.path()).field("token", &token).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_is_said_in_many_ways() {
        for value in ["1", "true", "YES", "On", " 1 "] {
            assert_eq!(Policy::from_value(Some(value)), Policy::Offline, "{value}");
        }
        for value in [None, Some(""), Some("0"), Some("false")] {
            assert_eq!(Policy::from_value(value), Policy::Online, "{value:?}");
        }
    }

    #[test]
    fn the_environment_gives_endpoint_cache_and_token() {
        let get = |name: &str| match name {
            "HF_ENDPOINT" => Some("http://mirror.example/".into()),
            "HF_HOME" => Some("folder".into()),
            "HF_TOKEN" => Some(" hf_secret\n".into()),
            _ => None,
        };
        let hub = Hub::from_variables(get, None).unwrap();
        assert_eq!(hub.endpoint, "http://mirror.example");
        assert_eq!(hub.cache.path(), &PathBuf::from("folder/hub"));
        assert_eq!(hub.token.as_deref(), Some("hf_secret"));
        assert!(!format!("{hub:?}").contains("hf_secret"));
    }

    #[test]
    fn the_home_directory_is_the_default_and_its_lack_is_said() {
        let hub = Hub::from_variables(|_| None, Some("somebody".into())).unwrap();
        assert_eq!(hub.endpoint, ENDPOINT);
        assert_eq!(hub.cache.path(), &PathBuf::from("somebody/.cache/huggingface/hub"));
        assert!(matches!(Hub::from_variables(|_| None, None), Err(HubError::NoCache)));
    }
}
