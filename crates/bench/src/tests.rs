//! Whole cases against a peer that a shell plays: no Python is needed.

use std::process::Command;

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Memory, Named, Precision, Runner, Tensors, Work};
use crate::machine::Machine;
use crate::peer::Launcher;
use crate::report::Row;
use crate::session::{Session, Untimed};

/// Gives its input back.
struct Identity {
    bf16: bool,
}

/// The same, timed beside another of ours and no peer.
struct Alone {
    rival: f32,
}

impl Case for Alone {
    fn name(&self) -> String {
        "alone".into()
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::new("alone", Measure::Variant("ours_"), 0.1)]
    }

    fn memory(&self) -> Memory {
        Memory::Ours
    }

    fn spec(&self) -> Value {
        json!({})
    }

    fn variants(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn rivals(&self, device: &Device) -> Result<Vec<Named>> {
        Ok(vec![("ours_before", Box::new(Running(Tensor::new(&[1f32, 2.0, self.rival], device)?)))])
    }

    fn work(&self) -> Work {
        Work::default()
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        Ok(Box::new(Running(Tensor::new(&[1f32, 2.0, 3.0], device)?)))
    }
}

impl Case for Identity {
    fn name(&self) -> String {
        "identity".into()
    }

    fn groups(&self) -> Vec<String> {
        vec!["identity".into()]
    }

    fn precision(&self) -> Precision {
        if self.bf16 { Precision::Bf16 } else { Precision::F32 }
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::new("identity", Measure::Variant("slow"), 100.0)]
    }

    fn spec(&self) -> Value {
        json!({ "kind": "identity" })
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["slow", "fast"]
    }

    fn work(&self) -> Work {
        Work { flops: 1.0, bytes: 1.0 }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        if self.bf16 {
            anyhow::bail!("only f32")
        }
        Ok(Box::new(Running(Tensor::new(&[1f32, 2.0, 3.0], device)?)))
    }
}

struct Running(Tensor);

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("x".into(), self.0.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        self.inputs()
    }

    fn run(&mut self) -> Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(30));
        Ok(())
    }
}

/// A peer whose `outputs` copies the inputs, and whose times are 60 and 90 ms.
const HONEST: &str = r#"
while read -r line; do
    case "$line" in
    *'"do":"hello"'*) echo '{"ok":true,"name":"shell 1.0"}' ;;
    *'"do":"prepare"'*) inputs=$(echo "$line" | sed 's/.*"inputs":"\([^"]*\)".*/\1/'); cp "$inputs" "$inputs.kept"; echo '{"ok":true}' ;;
    *'"do":"outputs"'*) path=$(echo "$line" | sed 's/.*"path":"\([^"]*\)".*/\1/'); cp "$inputs.kept" "$path"; echo '{"ok":true}' ;;
    *'"do":"time"'*'"fast"'*) echo '{"ok":true,"seconds":[0.06]}' ;;
    *'"do":"time"'*) echo '{"ok":true,"seconds":[0.09]}' ;;
    *) echo '{"ok":true,"peak":1000}' ;;
    esac
done
"#;

struct Shell(String);

impl Launcher for Shell {
    fn command(&self, _: usize) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &self.0]);
        command
    }
}

fn run(script: &str, case: &dyn Case) -> Result<Row, Untimed> {
    let machine = Machine {
        name: "a machine".into(),
        isa: "portable",
        f32_flops: Some(1e3),
        tf32_flops: None,
        bf16_flops: None,
        memory_bandwidth: 1e3,
        cache_bandwidth: 1e3,
        cache_bytes: None,
        load: None,
    };
    let resident = |_: &str| Ok(Value::Null);
    let launcher = Shell(script.to_string());
    let mut session = Session {
        launcher: &launcher,
        machine: &machine,
        device: &Device::Cpu,
        peer_device: "cpu",
        variants: &[String::new()],
        threads: 1,
        rounds: 7,
        resident: &resident,
        peer: None,
    };
    session.run(case)
}

fn failure(script: &str) -> String {
    match run(script, &Identity { bf16: false }) {
        Err(Untimed::Failed(text)) => text,
        Err(Untimed::NotSupported(text)) => panic!("it failed softly: {text}"),
        Ok(row) => panic!("it was timed: {row:?}"),
    }
}

#[cfg(unix)]
#[test]
fn a_case_is_compared_and_timed_against_the_best_variant() {
    let Ok(row) = run(HONEST, &Identity { bf16: false }) else { panic!("it was not timed") };
    assert_eq!((row.peer.as_str(), row.peer_variant.as_deref()), ("shell 1.0", Some("fast")));
    assert_eq!((row.peer_value, row.rounds, row.peer_peak_bytes), (Some(60.0), 7, Some(1000)));
    let ratio = row.ratio.unwrap();
    assert!(ratio > 1.0 && ratio <= 2.0, "30 ms of sleep against 60 ms: {ratio}");
    assert!(row.floor_share.unwrap() < 0.04);
    assert_eq!((row.bars[0].value, row.bars[0].met), (row.variants[0].ratio, Some(false)));
    let tried: Vec<_> = row.variants.iter().map(|v| (v.variant.as_str(), v.rounds)).collect();
    assert_eq!(tried, [("slow", 7), ("fast", 7)]);
}

/// A peer that would break is never started.
#[test]
fn ours_takes_turns_with_ours_where_no_peer_is_asked() {
    let Ok(row) = run("exit 1", &Alone { rival: 3.0 }) else { panic!("it was not timed") };
    assert_eq!((row.peer.as_str(), row.peer_variant.as_deref(), row.rounds), ("diptych", Some("ours_before"), 7));
    assert!((0.3..3.0).contains(&row.ratio.unwrap()) && row.bars[0].met == Some(true), "{row:?}");
    let Err(Untimed::Failed(text)) = run("exit 1", &Alone { rival: 4.0 }) else { panic!("another value passed") };
    assert!(text.starts_with("not timed: ours_before: x differs from the peer's"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_case_whose_values_differ_is_not_timed() {
    let lying = HONEST.replace(r#"cp "$inputs.kept" "$path""#, r#"sed 's/x/y/' "$inputs.kept" > "$path""#);
    let text = failure(&lying);
    assert!(text.starts_with("not timed: slow: the peer gave y"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_peer_that_breaks_off_is_told_in_a_sentence() {
    let died = failure("read -r line; echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1");
    assert!(died.contains("its last words: ModuleNotFoundError: No module named 'torch'"), "{died}");
    let garbage = failure("while read -r line; do echo 'Hello!'; done");
    assert!(garbage.ends_with("no JSON object: Hello!"), "{garbage}");
    let short = failure(&HONEST.replace("[0.06]", "[0.06, 0.07]"));
    assert!(short.contains("asked for 1 times"), "{short}");
    for text in [died, garbage, short] {
        assert!(!text.contains('\n'), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_variant_that_the_peer_cannot_run_is_left_out_and_told() {
    let script = HONEST.replace(
        r#"*'"do":"outputs"'*)"#,
        r#"*'"do":"outputs"'*'"fast"'*) echo '{"ok":false,"unsupported":true,"error":"no such kernel"}' ;;
    *'"do":"outputs"'*)"#,
    );
    let Ok(row) = run(&script, &Identity { bf16: false }) else { panic!("it was not timed") };
    assert_eq!(row.peer_variant.as_deref(), Some("slow"));
    assert!(row.variants[1].note.as_deref().unwrap().contains("no such kernel"));
}

#[cfg(unix)]
#[test]
fn what_we_cannot_do_in_bf16_is_not_supported() {
    let Err(Untimed::NotSupported(text)) = run(HONEST, &Identity { bf16: true }) else { panic!("it ran") };
    assert_eq!(text, "not supported: only f32");
}
