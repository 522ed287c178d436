//! What can go wrong between a name and a file, as sentences.

use std::path::PathBuf;

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that is no name of a repository, revision or file.
    #[error("{what} {value:?} is not allowed: {why}")]
    Name {
        /// Which name.
        what: &'static str,
        /// As it was given.
        value: String,
        /// What it should be.
        why: &'static str,
    },
    /// No place for a cache.
    #[error("there is no home directory for the cache of downloaded files; set HF_HOME to a folder")]
    NoCache,
    /// The policy forbids the network, and the cache has no such file.
    #[error(
        "{wanted} is not in the cache {}, and the network is not to be used; download it once without HF_HUB_OFFLINE",
        cache.display()
    )]
    NotCached {
        /// File, repository and revision.
        wanted: String,
        /// The cache that was looked in.
        cache: PathBuf,
    },
    /// The hub does not have it.
    #[error(
        "{endpoint} does not have {wanted}; check the three names (a private repository also answers so without HF_TOKEN)"
    )]
    NotFound {
        /// File, repository and revision.
        wanted: String,
        /// The hub that was asked.
        endpoint: String,
    },
    /// The hub has it for others.
    #[error(
        "{endpoint} refuses {wanted} (status {code}): {}",
        if *token { "the token may not read it; accept the repository's terms there, or set another HF_TOKEN" } else { "set HF_TOKEN to a token that may read it" }
    )]
    Refused {
        /// File, repository and revision.
        wanted: String,
        /// The hub that was asked.
        endpoint: String,
        /// 401 or 403.
        code: u16,
        /// Was a token sent?
        token: bool,
    },
    /// The hub could not be reached, or the download broke off.
    #[error("cannot download {wanted} from {endpoint}: {reason}; try again, or set HF_ENDPOINT to a mirror")]
    Download {
        /// File, repository and revision.
        wanted: String,
        /// The hub that was asked.
        endpoint: String,
        /// What the connection said.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not the one that was meant.
    #[error("{} has sha256 {found}, expected {expected}: it is damaged or another version; delete it and try again", path.display())]
    Checksum {
        /// Which file.
        path: PathBuf,
        /// As computed.
        found: String,
        /// As published.
        expected: String,
    },
}
