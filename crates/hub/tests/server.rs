//! Against a hub on the loopback interface that answers as the real one does to what hf-hub asks:
//! `GET /{repo}/resolve/{revision}/{file}` with a `Range`, answered with `ETag`, `X-Repo-Commit` and `Content-Range`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use diptych_hub::{Hub, HubError, Policy, sha256};

const WEIGHTS: &[u8] = b"not really weights, but more than one byte of them";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one public and one private repository. It serves until the test process ends.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let log = log.clone();
                std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &log).is_some() {});
            }
        });
        Self { endpoint, requests }
    }

    fn hub(&self, cache: &std::path::Path) -> Hub {
        Hub::new(&self.endpoint, cache)
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// Answers one request on a connection; `None` when it is closed.
fn answer(mut stream: &TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_ascii_lowercase());
    }
    let path = first.split(' ').nth(1)?.to_string();
    log.lock().unwrap().push(path.clone());
    let range = head.iter().find_map(|line| line.strip_prefix("range: bytes="));
    let token = head.iter().any(|line| line == "authorization: bearer hf_secret");
    let (status, headers, body) = match path.as_str() {
        "/owner/public/resolve/main/weights/model.safetensors" => content(range),
        "/owner/private/resolve/main/weights/model.safetensors" if token => content(range),
        "/owner/private/resolve/main/weights/model.safetensors" => ("401 Unauthorized", String::new(), &b"who?"[..]),
        "/owner/broken/resolve/main/weights/model.safetensors" => ("503 Busy", String::new(), &b"later"[..]),
        _ => ("404 Not Found", String::new(), &b"Entry not found"[..]),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n").ok()?;
    stream.write_all(body).ok()
}

fn content(range: Option<&str>) -> (&'static str, String, &'static [u8]) {
    let (start, end) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(WEIGHTS.len(), |last: usize| last + 1);
    let total = WEIGHTS.len();
    let headers = format!(
        "ETag: \"abc123\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {start}-{}/{total}\r\n",
        end.saturating_sub(1)
    );
    ("206 Partial Content", headers, &WEIGHTS[start..end])
}

const FILE: &str = "weights/model.safetensors";

#[test]
fn a_file_is_downloaded_once_and_then_read_from_the_cache() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let path = hub.resolve("owner/public", "main", FILE, Policy::Online).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), WEIGHTS);
    assert!(path.starts_with(cache.path()) && path.ends_with(FILE), "{}", path.display());
    assert_eq!(sha256(&path).unwrap().len(), 64);

    let asked = server.count();
    assert!(asked >= 2, "a probe and a download");
    for policy in [Policy::Online, Policy::Offline] {
        assert_eq!(hub.resolve("owner/public", "main", FILE, policy).unwrap(), path);
        // The commit that the branch stood for is known by its own name too.
        assert_eq!(hub.resolve("owner/public", COMMIT, FILE, policy).unwrap(), path);
    }
    assert_eq!(server.count(), asked, "the cache should have answered");
}

#[test]
fn offline_opens_no_connection_and_says_what_to_do() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let error = server.hub(cache.path()).resolve("owner/public", "main", FILE, Policy::Offline).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }));
    let text = error.to_string();
    assert!(
        text.contains("weights/model.safetensors of owner/public at main") && text.contains("HF_HUB_OFFLINE"),
        "{text}"
    );
    assert_eq!(server.count(), 0);
}

#[test]
fn what_the_hub_lacks_is_a_sentence() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    for (repo, revision, file) in
        [("owner/none", "main", FILE), ("owner/public", "v2", FILE), ("owner/public", "main", "nothing.bin")]
    {
        let error = hub.resolve(repo, revision, file, Policy::Online).unwrap_err();
        assert!(matches!(error, HubError::NotFound { .. }), "{error}");
        let text = error.to_string();
        assert!([repo, revision, file, &server.endpoint].iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn a_private_file_needs_the_token_which_is_never_shown() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let resolve = |token: Option<&str>| {
        let hub = server.hub(cache.path()).with_token(token.map(String::from));
        assert!(!format!("{hub:?}").contains("hf_"));
        hub.resolve("owner/private", "main", FILE, Policy::Online)
    };
    let text = resolve(None).unwrap_err().to_string();
    assert!(text.contains("401") && text.contains("set HF_TOKEN"), "{text}");
    let text = resolve(Some("hf_wrong")).unwrap_err().to_string();
    assert!(text.contains("the token may not read it") && !text.contains("hf_wrong"), "{text}");
    assert_eq!(std::fs::read(resolve(Some("hf_secret")).unwrap()).unwrap(), WEIGHTS);
}

#[test]
fn a_broken_or_absent_hub_is_named() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let text = server.hub(cache.path()).resolve("owner/broken", "main", FILE, Policy::Online).unwrap_err().to_string();
    assert!(text.contains("503") && text.contains("HF_ENDPOINT"), "{text}");
    // A port that was free a moment ago: nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub::new(&format!("http://{free}"), cache.path());
    let error = hub.resolve("owner/public", "main", FILE, Policy::Online).unwrap_err();
    assert!(matches!(error, HubError::Download { .. }), "{error}");
}

#[test]
fn malformed_names_are_refused_before_anything_else() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    for (repo, revision, file) in
        [("../owner", "main", FILE), ("owner/public", "..", FILE), ("owner/public", "main", "../f")]
    {
        assert!(matches!(hub.resolve(repo, revision, file, Policy::Online), Err(HubError::Name { .. })));
    }
    assert_eq!(server.count(), 0);
}
