//! `cargo xtask cuda-report`: what the compiler says of every kernel, as a table in docs/kernels.md.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Toolkit;
use crate::process::root;

const BEGIN: &str = "<!-- cargo xtask cuda-report writes the table below -->";
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90"];

/// What the assembler says of a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
struct Usage {
    registers: u32,
    /// Bytes of static shared memory; what a launch asks for comes on top.
    shared: u32,
    /// Bytes of its stack, and of it what is stored and loaded again for want of registers.
    stack: u32,
    spilled: u32,
}

/// Kernels by file and name, for each architecture.
type Table = BTreeMap<(String, String), [Usage; 2]>;

/// Compiles every kernel for every architecture; writes the table, or with `check` compares it with what is written.
pub(crate) fn report(check: bool) -> Result<()> {
    let toolkit = Toolkit::set_up()?;
    let mut table = Table::new();
    for source in sources(&root().join("crates/kernels/src"))? {
        let file = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (i, architecture) in ARCHITECTURES.into_iter().enumerate() {
            for (kernel, usage) in usages(&compile(&toolkit, &source, architecture)?) {
                table.entry((file.clone(), kernel)).or_default()[i] = usage;
            }
        }
    }
    let spills: Vec<_> =
        table.iter().filter(|(_, usage)| usage.iter().any(|u| u.spilled > 0)).map(|(key, _)| &key.1).collect();
    if !spills.is_empty() {
        bail!(
            "these kernels spill registers to memory: {spills:?}; smaller tiles or fewer values at once keep them in"
        );
    }
    let path = root().join("docs/kernels.md");
    let before = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some((head, _)) = before.split_once(BEGIN) else { bail!("{} has no line {BEGIN:?}", path.display()) };
    let after = format!("{head}{BEGIN}\n\n{}", rows(&table));
    if check && after != before {
        bail!("the compiler's table in docs/kernels.md is not of these kernels; `cargo xtask cuda-report` writes it");
    }
    fs::write(&path, after).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("{} kernels, none spills", table.len());
    Ok(())
}

fn rows(table: &Table) -> String {
    let mut text = String::from(
        "| file | kernel | registers (8.0 / 9.0) | shared, static | stack | spilled |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for ((file, kernel), [older, newer]) in table {
        let most = |of: fn(&Usage) -> u32| of(older).max(of(newer));
        let _ = writeln!(
            text,
            "| {file} | `{kernel}` | {} / {} | {} | {} | {} |",
            older.registers,
            newer.registers,
            most(|u| u.shared),
            most(|u| u.stack),
            most(|u| u.spilled)
        );
    }
    text
}

fn compile(toolkit: &Toolkit, source: &Path, architecture: &str) -> Result<String> {
    let code = format!("arch=compute_{},code={architecture}", &architecture[3..]);
    let output = Command::new(&toolkit.nvcc)
        .args([
            "--cubin",
            "-gencode",
            &code,
            "-O3",
            "-std=c++17",
            "-lineinfo",
            "-Werror",
            "all-warnings",
            "-Xptxas",
            "-v",
        ])
        .args(["-o", "/dev/null"])
        .arg(source)
        .output()
        .with_context(|| format!("cannot start {}", toolkit.nvcc.display()))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{} for {architecture}:\n{text}", source.display());
    }
    Ok(text)
}

/// The kernels in the assembler's words.
fn usages(text: &str) -> Vec<(String, Usage)> {
    let mut found: Vec<(String, Usage)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1).and_then(|rest| rest.split('\'').next()) {
            found.push((name.to_string(), Usage::default()));
        }
        let Some((_, usage)) = found.last_mut() else { continue };
        for part in line.split(", ").map(|part| part.rsplit(": ").next().unwrap_or(part)) {
            let mut words = part.split_whitespace();
            let Some(number) = words.find_map(|word| word.parse::<u32>().ok()) else { continue };
            if part.ends_with("registers") {
                usage.registers = number;
            } else if part.ends_with("bytes smem") {
                usage.shared = number;
            } else if part.ends_with("bytes stack frame") {
                usage.stack = number;
            } else if part.contains("bytes spill") {
                usage.spilled = usage.spilled.max(number);
            }
        }
    }
    found
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "cu") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_are_read() {
        let text = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'a_f32' for 'sm_90'\n\
            ptxas info    : Function properties for a_f32\n    \
            8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 1 barriers, 8 bytes stack frame, 1024 bytes smem, 576 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'b' for 'sm_90'\n\
            ptxas info    : Used 12 registers, used 0 barriers\n";
        let found = usages(text);
        assert_eq!(found[0], ("a_f32".into(), Usage { registers: 40, shared: 1024, stack: 8, spilled: 12 }));
        assert_eq!(found[1], ("b".into(), Usage { registers: 12, ..Usage::default() }));
    }

    #[test]
    fn every_kernel_gets_a_row() {
        let usage = |registers| Usage { registers, ..Usage::default() };
        let table = Table::from([(("relu".into(), "relu_f32".into()), [usage(8), usage(10)])]);
        assert!(rows(&table).contains("| relu | `relu_f32` | 8 / 10 | 0 | 0 | 0 |"), "{}", rows(&table));
    }
}
