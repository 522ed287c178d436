//! `.cu` files for the CPU: preprocessed, each kernel registered by its name, compiled to one library for each file.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{HOME, check, files, newest};
use crate::process::root;

/// Files of Candle's kernels that this workspace's tensors need; the others are about quantized weights.
const OF_CANDLE: [&str; 10] =
    ["affine", "binary", "cast", "conv", "fill", "indexing", "reduce", "sort", "ternary", "unary"];

/// What g++ checks in kernels of our own; the driver's stand-in answers (core/checks.cpp).
pub(super) const CHECKS: &str = "-fsanitize=alignment,bounds,shift,integer-divide-by-zero,signed-integer-overflow";

/// Kernels look at bytes as values of several types, as nvcc lets them.
const USUAL: &[&str] = &["-std=c++17", "-O2", "-g1", "-march=native", "-fPIC", "-fno-strict-aliasing", "-w"];

/// A file of kernels.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    file: PathBuf,
    ours: bool,
    /// The last change of it and of what it may include.
    pub(super) newest: Option<SystemTime>,
}

/// All `.cu` files of the workspace, and those of Candle.
pub(super) fn sources(metadata: &Value) -> Result<Vec<Source>> {
    let crates = root().join("crates");
    let headers = newest(&files(&crates, &["h", "cuh"])?);
    let mut sources: Vec<Source> = Vec::new();
    for file in files(&crates, &["cu"])? {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if sources.iter().any(|other| other.name == name) {
            bail!("two files of kernels are called {name}.cu; modules are known by these names")
        }
        let newest = newest(std::slice::from_ref(&file)).max(headers);
        sources.push(Source { name, file, ours: true, newest });
    }
    let candle = candle(metadata)?;
    let headers = newest(&files(&candle, &["cuh"])?);
    for name in OF_CANDLE {
        let file = candle.join(format!("{name}.cu"));
        let newest = newest(std::slice::from_ref(&file)).max(headers);
        sources.push(Source { name: format!("candle-{name}"), file, ours: false, newest });
    }
    Ok(sources)
}

/// The source of Candle's kernels, where cargo keeps it.
fn candle(metadata: &Value) -> Result<PathBuf> {
    let packages = metadata["packages"].as_array().context("cargo metadata named no packages")?;
    let package = packages.iter().find(|package| package["name"] == "candle-kernels");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest =
        manifest.context("the workspace does not depend on candle-kernels, whose kernels are emulated too")?;
    Ok(Path::new(manifest).with_file_name("src"))
}

/// Removes libraries of files that are no more.
pub(super) fn remove_others(folder: &Path, sources: &[Source]) -> Result<()> {
    for file in files(folder, &["so", "ii", "o"])? {
        let name = file.file_stem().unwrap_or_default();
        if !sources.iter().any(|source| *source.name == *name) {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// Compiles one file to `output`, linked with the driver's stand-in.
pub(super) fn compile(compiler: &Path, source: &Source, driver: &Path, output: &Path) -> Result<()> {
    let home = root().join(HOME);
    let mut command = Command::new(compiler);
    command.args(USUAL).args(["-E", "-x", "c++", "-DDIPTYCH_EMULATOR", "-DDIPTYCH_EMULATOR_KEEP", "-I"]).arg(&home);
    if !source.ours {
        // As for compute capability 8.0, by CUDA 13.0.
        command.args(["-D__CUDA_ARCH__=800", "-D__CUDACC_VER_MAJOR__=13", "-D__CUDACC_VER_MINOR__=0", "-I"]);
        command.arg(home.join("include")).arg("-include").arg(home.join("emulator.h"));
    }
    let text = check(command.arg(&source.file))?;
    let text = String::from_utf8(text).with_context(|| format!("{} is not UTF-8", source.file.display()))?;
    let (text, count) = for_the_cpu(&text);
    if count == 0 {
        bail!("{} has no `extern \"C\" __global__ void` function", source.file.display())
    }
    let (prepared, object) = (output.with_file_name(format!("{}.ii", source.name)), output.with_extension("o"));
    fs::write(&prepared, text).with_context(|| format!("cannot write {}", prepared.display()))?;
    let mut command = Command::new(compiler);
    command.args(USUAL).args(["-fpreprocessed", "-fvisibility=hidden"]).args(source.ours.then_some(CHECKS));
    check(command.arg("-c").arg(&prepared).arg("-o").arg(&object))?;
    let mut command = Command::new(compiler);
    command.args(["-shared", "-Wl,-rpath,$ORIGIN/..", "-Wl,-z,defs"]).arg(&object).arg(driver).arg("-o").arg(output);
    check(&mut command)?;
    for file in [prepared, object] {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

/// Preprocessed CUDA C++ as C++: `__global__` goes, `__shared__` becomes a variable of the thread that runs the block, and
/// every kernel is registered. Also says how many kernels there are.
fn for_the_cpu(text: &str) -> (String, usize) {
    let mut out = String::with_capacity(text.len());
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = ["__global__", "__shared__"].iter().filter_map(|word| rest.find(word)).min() {
        let (before, word) = rest.split_at(at);
        let (word, after) = word.split_at("__global__".len());
        rest = after;
        if word == "__global__" {
            out.push_str(before);
            if before.trim_end().ends_with("extern \"C\"") {
                names.extend(name(after));
            }
        } else if let Some(before) = before.trim_end().strip_suffix("extern") {
            let (declaration, after) = rest.split_once(';').unwrap_or((rest, ""));
            let words = declaration.split('[').next().unwrap_or_default().trim();
            let cut = words.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
            let (kind, name) = words.split_at(cut);
            let _ = write!(out, "{before}{kind}* {name} = reinterpret_cast<{kind}*>(emulator::dynamic_shared());");
            rest = after;
        } else {
            out.push_str(before);
            out.push_str("static thread_local");
        }
    }
    out.push_str(rest);
    out.push_str("\n# 1 \"registered kernels\"\n");
    for (i, name) in names.iter().enumerate() {
        let _ = writeln!(out, "static emulator::Register diptych_register_{i}(\"{name}\", {name});");
    }
    (out, names.len())
}

/// The name in what follows `__global__`: the word before the first parenthesis, over any line markers.
fn name(after: &str) -> Option<String> {
    let plain: Vec<&str> = after.split('(').next()?.lines().filter(|line| !line.starts_with('#')).collect();
    let name = plain.join(" ");
    let name = name.split_whitespace().next_back()?;
    Some(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_registered_and_words_replaced() {
        let text = "extern \"C\" __global__ void one(float* x) {\n    __shared__ float room[32];\n}\n\
                    template <typename T> __global__ void two(T* x) {}\n\
                    extern \"C\" __global__\n# 7 \"a.cu\"\nvoid three (int n) { extern __shared__ unsigned int rows[]; f(rows); }";
        let (text, count) = for_the_cpu(text);
        assert_eq!(count, 2);
        assert!(!text.contains("__global__") && !text.contains("__shared__"), "{text}");
        assert!(text.contains("static thread_local float room[32];"), "{text}");
        assert!(
            text.contains(
                "unsigned int * rows = reinterpret_cast<unsigned int *>(emulator::dynamic_shared()); f(rows)"
            ),
            "{text}"
        );
        assert!(
            text.contains("(\"one\", one)") && text.contains("(\"three\", three)") && !text.contains("(\"two\""),
            "{text}"
        );
    }

    #[test]
    fn this_workspace_has_kernels_and_no_two_files_share_a_name() {
        let metadata = serde_json::json!({
            "packages": [{ "name": "candle-kernels", "manifest_path": root().join("crates/kernels/Cargo.toml") }]
        });
        let sources = sources(&metadata).unwrap();
        assert!(sources.iter().any(|source| source.name == "relu" && source.ours));
        assert!(sources.iter().any(|source| source.name == "candle-reduce" && !source.ours));
    }
}
