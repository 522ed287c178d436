//! Rules on Rust code: where `unsafe`, input and output, the clock and signals may be, and what must not be at all.

use super::Finding;
use super::source::{Source, has_word};

/// Checks one file with every rule.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let rules = [head, unfinished, unsafe_code, input_and_output, clock, signals, tensors];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Reports each line that holds one of `words`, once.
fn report<'a>(
    source: &Source,
    lines: impl Iterator<Item = (usize, &'a str)>,
    words: &[&str],
    message: impl Fn(&str) -> String,
) -> Vec<Finding> {
    let first = |line: &str| words.iter().find(|word| has_word(line, word)).map(|word| message(word));
    lines.filter_map(|(number, line)| first(line).map(|text| Finding::new(&source.path, number, text))).collect()
}

/// Every file begins by saying what it is.
fn head(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if source.is_test_file() || first.starts_with("//!") || first.starts_with("#![doc") {
        return Vec::new();
    }
    vec![Finding::new(&source.path, 1, "does not begin with a `//!` line; say in a sentence what this file is for")]
}

/// Nothing half done.
fn unfinished(source: &Source) -> Vec<Finding> {
    let words = ["todo!", "unimplemented!", "dbg!", "#[ignore", "#[ignore]"];
    report(source, source.all_code_lines(), &words, |word| {
        format!("`{word}` is left in the code; finish it, or take it out and open an issue")
    })
}

/// `unsafe` is in few places, so that they can be read with care.
fn unsafe_code(source: &Source) -> Vec<Finding> {
    let places =
        ["crates/kernels/", "crates/augment/src/simd.rs", "crates/augment/src/simd/", "crates/data/src/mmap.rs"];
    if is_in(&source.path, &places) {
        return Vec::new();
    }
    report(source, source.all_code_lines(), &["unsafe"], |_| {
        "`unsafe` is for crates/kernels, augment/src/simd and data/src/mmap.rs only; write it safely, or move it there"
            .into()
    })
}

/// Libraries compute; these read, write and print.
fn input_and_output(source: &Source) -> Vec<Finding> {
    let places = [
        "crates/hub/",
        "crates/data/",
        "crates/backbones/src/pretrained/",
        "crates/comm/",
        "crates/trainer/",
        "crates/eval/",
        "crates/diptych/",
        "crates/bench/",
        "crates/kernels/build.rs",
        "xtask/",
        "tests/",
    ];
    if is_in(&source.path, &places) {
        return Vec::new();
    }
    let words = [
        "std::fs",
        "fs::",
        "std::net",
        "std::process",
        "File::",
        "OpenOptions::",
        "TcpStream::",
        "Command::new",
        "println!",
        "print!",
        "eprintln!",
        "eprint!",
        "stdout()",
        "stderr()",
    ];
    report(source, source.code_lines(), &words, |word| {
        format!(
            "`{word}` reads, writes or prints, which this crate leaves to its callers; return the value or the error instead"
        )
    })
}

/// Results do not depend on the time of day; only these measure.
fn clock(source: &Source) -> Vec<Finding> {
    let places = [
        "crates/trainer/",
        "crates/data/src/loader.rs",
        "crates/data/src/loader/",
        "crates/bench/",
        "crates/kernels/build.rs",
        "xtask/",
        "tests/",
    ];
    if is_in(&source.path, &places) {
        return Vec::new();
    }
    report(source, source.code_lines(), &["Instant::now", "SystemTime", "UNIX_EPOCH"], |word| {
        format!(
            "`{word}` reads the clock, which is for trainer, data/loader.rs and benches; take the time as an argument"
        )
    })
}

/// Signals are the trainer's.
fn signals(source: &Source) -> Vec<Finding> {
    if is_in(&source.path, &["crates/trainer/"]) {
        return Vec::new();
    }
    report(source, source.code_lines(), &["signal_hook", "libc::signal", "libc::sigaction"], |word| {
        format!("`{word}` handles signals, which only the trainer does; ask it whether to stop")
    })
}

/// Kernels on the CPU and the augmentations see slices.
fn tensors(source: &Source) -> Vec<Finding> {
    let cpu = source.path.starts_with("crates/kernels/") && source.path.ends_with("/cpu.rs");
    let (words, why): (&[&str], _) = if cpu {
        (&["Tensor", "candle_core", "candle"], "a cpu.rs sees slices, so that it can be read, tested and timed alone")
    } else if source.path.starts_with("crates/augment/") {
        (&["Tensor", "candle_core", "candle_nn", "candle"], "augment maps pixels to pixels")
    } else {
        return Vec::new();
    };
    report(source, source.code_lines(), words, |word| format!("mentions `{word}`, but {why}; convert at the caller"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many findings `rule` has on `text` at `path`, and at which line the first is.
    fn found(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> (usize, usize) {
        let findings = rule(&Source::new(path, text));
        (findings.len(), findings.first().map_or(0, |finding| finding.line))
    }

    #[test]
    fn a_file_without_a_head_is_caught() {
        assert_eq!(found(head, "crates/nn/src/a.rs", "use std::fmt;\n"), (1, 1));
        assert_eq!(found(head, "crates/nn/src/a.rs", "\n//! What it is.\n"), (0, 0));
        assert_eq!(found(head, "crates/nn/src/tests.rs", "use super::*;\n"), (0, 0));
    }

    #[test]
    fn unfinished_code_is_caught_also_in_tests() {
        assert_eq!(found(unfinished, "crates/nn/src/a.rs", "//! A.\nfn f() { todo!() }\n").0, 1);
        assert_eq!(
            found(unfinished, "crates/nn/src/a.rs", "#[cfg(test)]\nmod tests {\n#[ignore = \"slow\"]\nfn f() {}\n}").1,
            3
        );
        assert_eq!(found(unfinished, "crates/nn/src/a.rs", "// todo!() is not for us\n"), (0, 0));
    }

    #[test]
    fn unsafe_elsewhere_is_caught() {
        let text = "//! A.\nfn f() { unsafe { g() } }\n";
        assert_eq!(found(unsafe_code, "crates/nn/src/a.rs", text), (1, 2));
        assert_eq!(found(unsafe_code, "crates/kernels/src/conv2d/cpu.rs", text), (0, 0));
        assert_eq!(found(unsafe_code, "crates/augment/src/simd.rs", text), (0, 0));
        assert_eq!(found(unsafe_code, "crates/augment/src/color.rs", text), (1, 2));
        assert_eq!(found(unsafe_code, "crates/nn/src/a.rs", "#![deny(unsafe_code)] // no unsafe\n"), (0, 0));
    }

    #[test]
    fn input_and_output_elsewhere_is_caught_but_not_in_tests() {
        for text in ["use std::fs;", "let f = File::open(p);", "println!(\"x\");", "std::process::exit(1)"] {
            assert_eq!(found(input_and_output, "crates/nn/src/a.rs", text).0, 1, "{text}");
            assert_eq!(found(input_and_output, "crates/data/src/a.rs", text).0, 0, "{text}");
            let in_test = format!("#[cfg(test)]\nmod tests {{ {text} }}");
            assert_eq!(found(input_and_output, "crates/nn/src/a.rs", &in_test).0, 0, "{text}");
        }
        assert_eq!(found(input_and_output, "crates/backbones/src/resnet.rs", "use std::fs;").0, 1);
        assert_eq!(found(input_and_output, "crates/backbones/src/pretrained/mod.rs", "use std::fs;").0, 0);
        // It compiles kernels.
        assert_eq!(found(input_and_output, "crates/kernels/build.rs", "use std::fs;").0, 0);
    }

    #[test]
    fn the_clock_elsewhere_is_caught() {
        let text = "let start = Instant::now();";
        assert_eq!(found(clock, "crates/data/src/sampler.rs", text).0, 1);
        assert_eq!(found(clock, "crates/data/src/loader.rs", text).0, 0);
        assert_eq!(found(clock, "crates/bench/src/measure.rs", text).0, 0);
        assert_eq!(found(clock, "crates/diptych/src/train.rs", "std::time::SystemTime::now()").0, 1);
    }

    #[test]
    fn signals_elsewhere_are_caught() {
        assert_eq!(found(signals, "crates/diptych/src/main.rs", "use signal_hook::flag;").0, 1);
        assert_eq!(found(signals, "crates/trainer/src/signal.rs", "use signal_hook::flag;").0, 0);
    }

    #[test]
    fn tensors_in_kernels_and_augment_are_caught() {
        assert_eq!(found(tensors, "crates/kernels/src/pool/cpu.rs", "fn f(x: &Tensor) {}").0, 1);
        assert_eq!(found(tensors, "crates/kernels/src/pool/mod.rs", "fn f(x: &Tensor) {}").0, 0);
        assert_eq!(found(tensors, "crates/augment/src/lib.rs", "use candle_core::Device;").0, 1);
        assert_eq!(found(tensors, "crates/augment/src/lib.rs", "//! No Tensor here.\n").0, 0);
    }
}
