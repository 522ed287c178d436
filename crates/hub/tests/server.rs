//! Against a hub on the loopback interface that answers as the real one does:
//! `GET /{repo}/resolve/{revision}/{file}` with a `Range`, answered with `ETag`, `X-Repo-Commit` and `Content-Range`, or with a redirect to
//! where files are stored; and `GET /api/datasets/{repo}/revision/{revision}` with the list of files.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use diptych_hub::{Hub, HubError, Policy, sha256};

const WEIGHTS: &[u8] = b"not really weights, but more than one byte of them";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// `sha256sum` of WEIGHTS.
const WEIGHTS_SHA: &str = "2c672343de0539f594cdea8820c8967d38f2fd913e794336b6e8e3cbe15a2bb1";
const LIST: &str = r#"{"id": "owner/set", "sha": "0123456789abcdef0123456789abcdef01234567", "siblings":
    [{"rfilename": "large.tar"}, {"rfilename": "../x"}, {"rfilename": "README.md"}]}"#;

/// A hub with some public and one private repository. It serves until the test process ends.
struct Server {
    endpoint: String,
    /// The path of each request, and its token after a blank if it had one.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        Self::with_store(String::new())
    }

    /// A hub that keeps its large files at another host.
    fn with_store(store: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, store) = (log.clone(), store.clone());
                std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &log, &store).is_some() {});
            }
        });
        Self { endpoint, requests }
    }

    fn asked(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn hub(&self, cache: &std::path::Path) -> Hub {
        Hub::new(&self.endpoint, cache)
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// Answers one request on a connection; `None` when it is closed.
fn answer(mut stream: &TcpStream, log: &Mutex<Vec<String>>, store: &str) -> Option<()> {
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
    let sent = head.iter().find_map(|line| line.strip_prefix("authorization: bearer "));
    let times = {
        let mut log = log.lock().unwrap();
        log.push(sent.map_or_else(|| path.clone(), |token| format!("{path} {token}")));
        log.iter().filter(|earlier| earlier.starts_with(&path)).count()
    };
    let range = head.iter().find_map(|line| line.strip_prefix("range: bytes="));
    let token = head.iter().any(|line| line == "authorization: bearer hf_secret");
    let (status, headers, body) = match path.as_str() {
        "/owner/public/resolve/main/weights/model.safetensors" => content(range),
        "/owner/private/resolve/main/weights/model.safetensors" if token => content(range),
        "/owner/private/resolve/main/weights/model.safetensors" => ("401 Unauthorized", String::new(), &b"who?"[..]),
        "/owner/broken/resolve/main/weights/model.safetensors" => ("503 Busy", String::new(), &b"later"[..]),
        // Where large files are stored elsewhere, the hub's own answer has what the cache goes by.
        "/datasets/owner/set/resolve/main/large.tar" => {
            let headers = format!(
                "Location: {store}/blob?signature=1\r\nX-Linked-ETag: \"{WEIGHTS_SHA}\"\r\nX-Repo-Commit: {COMMIT}\r\n"
            );
            ("302 Found", headers, &b""[..])
        }
        "/blob?signature=1" => content(range),
        "/datasets/owner/set/resolve/main/moved.tar" => {
            ("307 Moved", "Location: /datasets/owner/set/resolve/main/large.tar\r\n".into(), &b""[..])
        }
        "/datasets/owner/set/resolve/main/forged.tar" => {
            let headers = format!("ETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n", "0".repeat(64));
            let (status, more, body) = content(range);
            (status, headers + more.split_once("\r\n").unwrap().1, body)
        }
        "/datasets/owner/set/resolve/main/outside.tar" => {
            ("206 Partial Content", format!("ETag: \"../../../x\"\r\nX-Repo-Commit: {COMMIT}\r\n"), &b"x"[..])
        }
        "/datasets/owner/set/resolve/main/above.tar" => {
            ("206 Partial Content", "ETag: \"x\"\r\nX-Repo-Commit: ..\r\n".into(), &b"x"[..])
        }
        "/datasets/owner/set/resolve/main/around.tar" => {
            ("302 Found", "Location: /datasets/owner/set/resolve/main/around.tar\r\n".into(), &b""[..])
        }
        // Breaks off after ten bytes of each answer; the file is whole after some of them.
        "/datasets/owner/set/resolve/main/slow.tar" | "/datasets/owner/set/resolve/main/stuck.tar" => {
            let (status, headers, body) = content(range);
            let most = if path.ends_with("stuck.tar") && times > 2 { 0 } else { 10 };
            if body.len() > most {
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).ok()?;
                stream.write_all(&body[..most]).ok()?;
                return None;
            }
            (status, headers, body)
        }
        "/api/datasets/owner/set/revision/main" | "/api/datasets/owner/set/revision/refs%2Fconvert%2Fparquet" => {
            ("200 OK", String::new(), LIST.as_bytes())
        }
        "/api/datasets/owner/private/revision/main" if !token => ("401 Unauthorized", String::new(), &b"who?"[..]),
        "/api/datasets/owner/broken/revision/main" => ("500 Oh", String::new(), &b"no"[..]),
        "/api/datasets/owner/odd/revision/main" => ("200 OK", String::new(), &b"<html>"[..]),
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

const SET: &str = "datasets/owner/set";

#[test]
fn the_token_stays_with_the_hub() {
    let elsewhere = Server::start();
    let (server, cache) = (Server::with_store(elsewhere.endpoint.clone()), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path()).with_token(Some("hf_secret".into()));
    for file in ["large.tar", "moved.tar"] {
        let path = hub.resolve(SET, "main", file, Policy::Online).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), WEIGHTS);
        // One content under two names, by the name that other tools give it.
        let blob = path.canonicalize().unwrap();
        assert!(blob.ends_with(format!("datasets--owner--set/blobs/{WEIGHTS_SHA}")), "{}", blob.display());
    }
    assert!(server.asked().iter().all(|request| request.ends_with(" hf_secret")), "{:?}", server.asked());
    assert_eq!(elsewhere.asked(), ["/blob?signature=1"]);
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let path = hub.resolve(SET, "main", "slow.tar", Policy::Online).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), WEIGHTS);
    assert_eq!(server.count(), 6, "a probe and five times ten bytes");
}

#[test]
fn what_stays_cut_off_is_no_file() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let text = server.hub(cache.path()).resolve(SET, "main", "stuck.tar", Policy::Online).unwrap_err().to_string();
    assert!(text.contains("it broke off after 10 of 50 bytes") && text.contains("try again"), "{text}");
    assert!(matches!(
        server.hub(cache.path()).resolve(SET, "main", "stuck.tar", Policy::Offline),
        Err(HubError::NotCached { .. })
    ));
}

#[test]
fn what_the_hub_says_is_not_believed() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let cache = folder.path().join("a/b/c/cache");
    let hub = server.hub(&cache);
    let sentence = |file| hub.resolve(SET, "main", file, Policy::Online).unwrap_err().to_string();
    assert!(sentence("forged.tar").contains("expected 0000"), "{}", sentence("forged.tar"));
    assert!(sentence("outside.tar").contains("plain ETag"), "{}", sentence("outside.tar"));
    assert!(sentence("above.tar").contains("no commit"), "{}", sentence("above.tar"));
    assert!(sentence("around.tar").contains("redirects"), "{}", sentence("around.tar"));
    for outside in [folder.path(), &folder.path().join("a"), &folder.path().join("a/b"), &folder.path().join("a/b/c")] {
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 1, "{}", outside.display());
    }
}

#[test]
fn a_list_is_asked_for_once_and_known_without_a_network() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let error = hub.list(SET, "main", Policy::Offline).unwrap_err();
    assert!(
        error.to_string().contains("the list of files of datasets/owner/set at main is not in the cache"),
        "{error}"
    );
    assert_eq!(server.count(), 0);
    let list = hub.list(SET, "main", Policy::Online).unwrap();
    assert_eq!(
        (list.commit.as_str(), list.files.join(" "), list.complete),
        (COMMIT, "../x README.md large.tar".into(), true)
    );
    for policy in [Policy::Online, Policy::Offline] {
        assert_eq!(hub.list(SET, "main", policy).unwrap(), list);
    }
    assert_eq!(server.count(), 1);
    assert_eq!(hub.list(SET, "refs/convert/parquet", Policy::Online).unwrap(), list);
}

#[test]
fn without_a_list_the_cache_of_other_tools_is_one() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("datasets--owner--set");
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::create_dir_all(repository.join("snapshots").join(COMMIT).join("data")).unwrap();
    std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
    std::fs::write(repository.join("snapshots").join(COMMIT).join("data/x.parquet"), "x").unwrap();
    let hub = Hub::new("http://127.0.0.1:9", cache.path());
    for revision in ["main", COMMIT] {
        let list = hub.list(SET, revision, Policy::Offline).unwrap();
        assert_eq!(
            (list.commit.as_str(), list.files.join(" "), list.complete),
            (COMMIT, "data/x.parquet".into(), false)
        );
        assert!(hub.resolve(SET, revision, "data/x.parquet", Policy::Offline).is_ok());
    }
}

#[test]
fn lists_fail_in_sentences_without_the_token() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path()).with_token(Some("hf_wrong".into()));
    for (repo, expected) in [
        (
            "private",
            "refuses the list of files of datasets/owner/private at main (status 401): the token may not read it",
        ),
        ("broken", "status 500"),
        ("none", "does not have the list of files"),
        ("odd", "the answer is no list of files"),
    ] {
        let text = hub.list(&format!("datasets/owner/{repo}"), "main", Policy::Online).unwrap_err().to_string();
        assert!(text.contains(expected) && !text.contains("hf_wrong"), "{text}");
    }
}
