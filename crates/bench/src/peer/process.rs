//! A child process that answers lines with lines.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// Lines of its standard error that are kept.
const KEPT: usize = 40;

/// A running child. It ends when this is dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
    complaints: Arc<Mutex<VecDeque<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with pipes.
    ///
    /// # Errors
    /// If there is no such program.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => bail!("the peer {program} does not start ({error}); is it installed there?"),
        };
        let (Some(input), Some(output), Some(error)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("the peer {program} was started without pipes")
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&complaints);
        let listener = std::thread::spawn(move || listen(error, &kept));
        Ok(Self { child, input, answers, complaints, listener: Some(listener) })
    }

    /// Sends a line and waits for one.
    ///
    /// # Errors
    /// If the child ends, says what is not JSON, or takes too long.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value> {
        // A child that has ended breaks the pipe; the reason is told below, when no answer comes.
        let _ = writeln!(self.input, "{request}").and_then(|()| self.input.flush());
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("the peer did not answer for {} seconds", PATIENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("{}", self.obituary()),
        };
        match serde_json::from_str::<Value>(&line) {
            Ok(value) if value.is_object() => Ok(value),
            _ => bail!("the peer said something that is no JSON object: {}", shortened(&line)),
        }
    }

    /// How it ended, with the last thing it said.
    fn obituary(&mut self) -> String {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let last =
            self.complaints.lock().ok().and_then(|lines| lines.iter().rev().find(|l| !l.trim().is_empty()).cloned());
        match last {
            Some(last) => format!("the peer ended ({status}); its last words: {}", shortened(last.trim())),
            None => format!("the peer ended ({status}) without a word"),
        }
    }
}

fn listen(error: impl Read, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(error).lines().map_while(|line| line.ok()) {
        let Ok(mut lines) = kept.lock() else { return };
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_string(),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use serde_json::json;

    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command).unwrap()
    }

    fn error(script: &str) -> String {
        shell(script).ask(&json!({ "do": "hello" })).unwrap_err().to_string()
    }

    #[test]
    fn a_line_is_answered_by_a_line() {
        let mut echo = shell("while read -r line; do echo \"$line\"; done");
        for i in 0..3 {
            assert_eq!(echo.ask(&json!({ "n": i })).unwrap()["n"], i);
        }
    }

    #[test]
    fn a_peer_that_dies_is_told_with_its_last_words() {
        let text = error("read -r line; echo 'ModuleNotFoundError: torch' >&2; exit 3");
        assert!(text.starts_with("the peer ended (exit status: 3)"), "{text}");
        assert!(text.ends_with("ModuleNotFoundError: torch"), "{text}");
        assert!(error("exit 0").ends_with("without a word"));
    }

    #[test]
    fn garbage_is_quoted_in_part() {
        assert_eq!(error("read -r l; echo garbage"), "the peer said something that is no JSON object: garbage");
        assert!(error("read -r l; echo 42").ends_with("42"));
        let long = error("read -r l; printf 'x%.0s' $(seq 2000); echo");
        assert!(long.len() < 400 && long.ends_with("..."), "{long}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let Err(error) = Process::start(Command::new("no-such-python")) else { panic!("it started") };
        assert!(error.to_string().contains("no-such-python does not start"), "{error}");
    }
}
