//! Requests to a hub. They are made here, as hf-hub's own probe sends the token to whatever host a file is redirected to.
//!
//! The token goes to the endpoint's origin (scheme, host and port) and nowhere else. What a hub says is held to be plain before it becomes
//! part of a path, and a download is complete only if its length, and its SHA-256 where the hub says one, are right.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use crate::sha256;

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// A connection that is silent for so long is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most bytes of a list of files.
const MAX_LIST: u64 = 1 << 28;
/// A download that breaks off goes on where it was, so often without having got any further.
const MAX_ATTEMPTS: usize = 3;

/// Why there is no answer, without the names that only the caller knows.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The hub's status code.
    Status(u16),
    /// What the connection, or the disk, said.
    Reason(String),
    /// The file is not the one that the hub announced: the sum found, and the one expected.
    Sum(PathBuf, String, String),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Reason(error.to_string())
    }
}

/// A file as a hub describes it.
#[derive(Debug)]
pub(crate) struct Description {
    /// The commit that the revision stands for.
    pub(crate) commit: String,
    /// The name of its content.
    pub(crate) etag: String,
}

/// Somebody to ask.
pub(crate) struct Client<'a> {
    agent: Agent,
    origin: &'a str,
    token: Option<&'a str>,
    progress: bool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(endpoint: &'a str, token: Option<&'a str>, progress: bool) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), origin: origin(endpoint), token, progress }
    }

    /// The text at an address of the hub.
    pub(crate) fn text(&self, url: &str) -> Result<String, Problem> {
        let (response, _) = self.get(url, None, true)?;
        let mut text = String::new();
        response.into_body().into_reader().take(MAX_LIST).read_to_string(&mut text)?;
        Ok(text)
    }

    /// What a hub says of a file; follows its own redirects only, as others know nothing of commits.
    pub(crate) fn describe(&self, url: &str) -> Result<Description, Problem> {
        let (_, headers) = self.get(url, Some(0..1), false)?;
        let header =
            |name: &str| headers.iter().rev().find_map(|headers| Some(headers.get(name)?.to_str().ok()?.to_owned()));
        let lacks = |what: &str| Problem::Reason(format!("the answer has no {what}, as a hub's has"));
        let commit = header("x-repo-commit").filter(|commit| is_plain(commit)).ok_or_else(|| lacks("commit"))?;
        let etag = header("x-linked-etag").or_else(|| header("etag")).ok_or_else(|| lacks("ETag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        if is_plain(&etag) { Ok(Description { commit, etag }) } else { Err(lacks("plain ETag")) }
    }

    /// Downloads into `blob`, which appears only when it is complete. What an earlier attempt got is kept.
    pub(crate) fn download(&self, url: &str, etag: &str, blob: &Path, name: &str) -> Result<(), Problem> {
        let beside = |ending: &str| PathBuf::from(format!("{}{ending}", blob.display()));
        let part = beside(".incomplete");
        // One process at a time; the next one then finds the file.
        let lock = File::create(beside(".lock"))?;
        lock.lock()?;
        let mut attempts = 0;
        while !blob.exists() {
            let before = part.metadata().map_or(0, |data| data.len());
            match self.go_on(url, before, &part, name) {
                Ok(()) => {
                    let found = sha256(&part).map_err(|error| Problem::Reason(error.to_string()))?;
                    // Large files are named by their sum; small ones by another kind of it.
                    if etag.len() == 64 && found != etag {
                        std::fs::remove_file(&part)?;
                        return Err(Problem::Sum(blob.into(), found, etag.into()));
                    }
                    std::fs::rename(&part, blob)?;
                }
                Err(problem) => {
                    let further = part.metadata().is_ok_and(|data| data.len() > before);
                    attempts = if further { 1 } else { attempts + 1 };
                    if matches!(problem, Problem::Status(_)) || attempts >= MAX_ATTEMPTS {
                        return Err(problem);
                    }
                }
            }
        }
        std::fs::remove_file(beside(".lock")).ok();
        Ok(())
    }

    /// Appends to `part`, which has `start` bytes, what it lacks.
    fn go_on(&self, url: &str, start: u64, part: &Path, name: &str) -> Result<(), Problem> {
        let (response, _) = match self.get(url, Some(start..u64::MAX), true) {
            // There is nothing from here on: either it is complete, or something else; it is got anew.
            Err(Problem::Status(416)) if start > 0 => {
                std::fs::remove_file(part)?;
                return Err(Problem::Reason("the part that was there is longer than the file".into()));
            }
            other => other?,
        };
        let (begin, total) = extent(&response);
        if begin != 0 && begin != start {
            return Err(Problem::Reason(format!("the hub sent bytes from {begin} on, asked for from {start} on")));
        }
        let mut file = OpenOptions::new().create(true).append(true).open(part)?;
        file.set_len(begin)?;
        let mut line = Line { shown: self.progress && std::io::stderr().is_terminal(), name, total, last: None };
        let mut written = begin;
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        let end = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    file.write_all(&buffer[..n])?;
                    written += n as u64;
                    line.show(written);
                }
                Err(error) => break Err(error),
            }
        };
        line.clear();
        match (end, total) {
            (Ok(()), None) => Ok(file.sync_all()?),
            (Ok(()), Some(total)) if written == total => Ok(file.sync_all()?),
            (end, total) => {
                let of = total.map_or(String::new(), |total| format!(" of {total}"));
                let why = end.err().map_or(String::new(), |error| format!(" ({})", self.safe(error.to_string())));
                Err(Problem::Reason(format!("it broke off after {written}{of} bytes{why}")))
            }
        }
    }

    /// Asks for a range of bytes of an address. Also the headers of the endpoint's own answers, in order.
    fn get(
        &self,
        url: &str,
        range: Option<std::ops::Range<u64>>,
        follow_elsewhere: bool,
    ) -> Result<(Response<Body>, Vec<HeaderMap>), Problem> {
        let mut url = url.to_owned();
        let mut own = Vec::new();
        for _ in 0..=MAX_REDIRECTS {
            let at_home = origin(&url) == self.origin;
            let mut request = self.agent.get(&url);
            if let Some(range) = &range {
                let last = if range.end == u64::MAX { String::new() } else { (range.end - 1).to_string() };
                request = request.header("Range", format!("bytes={}-{last}", range.start));
            }
            if let Some(token) = self.token.filter(|_| at_home) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Problem::Reason(self.safe(error.to_string())))?;
            if at_home {
                own.push(response.headers().clone());
            }
            let status = response.status();
            if status.is_success() {
                return Ok((response, own));
            }
            if !status.is_redirection() {
                return Err(Problem::Status(status.as_u16()));
            }
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| join(&url, location));
            url = next.ok_or_else(|| Problem::Reason("a redirect leads nowhere".into()))?;
            if !follow_elsewhere && origin(&url) != self.origin {
                return Ok((response, own));
            }
        }
        Err(Problem::Reason(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// A text without the token.
    fn safe(&self, text: String) -> String {
        self.token.map_or(text.clone(), |token| text.replace(token, "(token)"))
    }
}

/// Whether a name is one part of a path and nothing else.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=');
    !name.starts_with('.') && (1..=128).contains(&name.len()) && name.chars().all(plain)
}

/// An address up to its host and port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find(['/', '?', '#']).map_or(url, |end| &url[..host + end])
}

/// Where a redirect leads.
fn join(from: &str, location: &str) -> Option<String> {
    if location.starts_with("https://") || location.starts_with("http://") {
        return Some(location.to_owned());
    }
    let from = origin(from);
    if location.starts_with("//") {
        return from.split_once("//").map(|(scheme, _)| format!("{scheme}{location}"));
    }
    location.starts_with('/').then(|| format!("{from}{location}"))
}

/// Where an answer begins, and how many bytes the whole has.
fn extent(response: &Response<Body>) -> (u64, Option<u64>) {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let range = header("content-range").filter(|_| response.status() == 206);
    let parts = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
    match parts.and_then(|(range, total)| Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))) {
        Some(extent) => extent,
        None => (0, header("content-length").and_then(|length| length.parse().ok())),
    }
}

/// How far a download is, on one line of a terminal.
struct Line<'a> {
    shown: bool,
    name: &'a str,
    total: Option<u64>,
    /// What was last shown, in steps of a hundredth or of ten megabytes.
    last: Option<u64>,
}

impl Line<'_> {
    fn show(&mut self, written: u64) {
        let step = self.total.map_or(10_000_000, |total| total.div_ceil(100).max(1));
        if !self.shown || self.last == Some(written / step) {
            return;
        }
        self.last = Some(written / step);
        let name = self.name.rsplit('/').next().unwrap_or_default();
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let of = self.total.map_or(String::new(), |total| format!(" of {:.1}", megabytes(total)));
        // Nothing is lost where it cannot be shown.
        let _ = write!(std::io::stderr(), "\rdownloading {name}: {:.1}{of} MB\x1b[K", megabytes(written));
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_hosts_with_their_schemes_and_ports() {
        assert_eq!(origin("https://a.b:8/x/y"), "https://a.b:8");
        assert_eq!(origin("https://a.b"), "https://a.b");
        assert_ne!(origin("http://a.b/x"), origin("https://a.b/x"));
        // What looks like the host may be a user's name.
        assert_ne!(origin("https://a.b@evil.example/x"), origin("https://a.b/x"));
        assert_ne!(origin("https://a.b.evil.example/x"), origin("https://a.b/x"));
        assert_ne!(origin("https://a.b?@evil.example/x"), "https://a.b?@evil.example");
    }

    #[test]
    fn redirects_are_absolute_or_from_the_root() {
        let join = |location| join("https://a.b/c/d", location);
        assert_eq!(join("/x?y").as_deref(), Some("https://a.b/x?y"));
        assert_eq!(join("//e.f/x").as_deref(), Some("https://e.f/x"));
        assert_eq!(join("http://e.f/x").as_deref(), Some("http://e.f/x"));
        assert_eq!((join("x"), join("file:///etc/passwd"), join("")), (None, None, None));
    }

    #[test]
    fn plain_names_stay_where_they_are() {
        assert!(is_plain("0123abc") && is_plain("a-b_c.d"));
        for name in ["", "..", ".x", "a/b", "a\\b", "a b", "%2e", "\u{e9}"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
