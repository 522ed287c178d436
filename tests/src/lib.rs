//! Helpers of the whole-run tests: the binary as a user starts it, in a folder of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use safetensors::SafeTensors;
use tempfile::TempDir;

/// The `diptych` binary beside the running test, in `target/<profile>`.
///
/// # Panics
/// If it has not been built: `cargo test` builds no binary of another package.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests run from target/<profile>/deps");
    let binary = profile.join(format!("diptych{}", std::env::consts::EXE_SUFFIX));
    let how = if profile.ends_with("release") { " --release" } else { "" };
    assert!(
        binary.is_file(),
        "{} is not there: run `cargo build{how} -p diptych` first, or `cargo xtask test`, which does",
        binary.display()
    );
    binary
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// From a finished process.
    pub fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Itself, if the command ended with `code`.
    ///
    /// # Panics
    /// With everything that was printed, if it did not.
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The sentence of a command that refused its input: code 2, one line on standard error, beginning with `error:`.
    ///
    /// # Panics
    /// If the command did not end that way.
    pub fn refusal(self) -> String {
        let ran = self.ended_with(2);
        let lines: Vec<&str> = ran.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "expected one sentence:\n{}", ran.stderr);
        assert!(lines[0].starts_with("error: "), "{}", lines[0]);
        lines[0].to_string()
    }
}

/// A folder in which commands run, removed at the end.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// A path inside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(inside)
    }

    /// The command in this folder, not yet started, with 1 compute thread.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        // Tests run side by side; a thread pool for each would only get in the way.
        command.env("RAYON_NUM_THREADS", "1").env_remove("RUST_BACKTRACE");
        // What is kept from one command to the next goes with the folder.
        command.env("DIPTYCH_CACHE", self.0.path().join("cache"));
        command
    }

    /// Runs the command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(args).output().expect("the binary starts"))
    }

    /// Starts the command and returns while it runs, its output piped.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }
}

/// Splits a line at its blanks, as a shell would an argument list without quotes.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

/// The tensors of a safetensors file by name: type, shape and bytes.
///
/// # Panics
/// If the file is missing or malformed.
pub fn tensors(path: &Path) -> Vec<(String, String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut all: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, format!("{:?} {:?}", view.dtype(), view.shape()), view.data().to_vec()))
        .collect();
    all.sort();
    all
}

/// The rows of a `metrics.jsonl`.
///
/// # Panics
/// If the file is missing or a line is not JSON.
pub fn metrics(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}
