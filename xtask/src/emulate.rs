//! `cargo xtask emulate`: the tests of the CUDA side, on a machine without a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cuda::Toolkit;
use crate::process::{root, run};
use crate::{built, emulator};

/// The orders in which the emulator runs the threads of a block between barriers: a barrier that is missing gives other numbers in one of them.
const ORDERS: [&str; 3] = ["forward", "reverse", "shuffled"];

/// Runs the tests of index arithmetic, then those of the emulator itself, of kernels, losses and whole methods on the emulated device;
/// only those with `filter` in their names, if there is one.
pub(crate) fn emulate(filter: Option<&str>) -> Result<()> {
    index_tests(filter)?;
    let toolkit = Toolkit::set_up()?;
    let folder = emulator::build()?;
    let own = emulator::self_test(&folder)?;
    let programs = built::programs(&toolkit, false)?;
    for order in ORDERS {
        eprintln!("DIPTYCH_EMULATOR_ORDER={order}");
        if filter.is_none() {
            run(Command::new(&own).env("DIPTYCH_EMULATOR_ORDER", order))?;
        }
        for (name, program) in &programs {
            // Whole methods once: they start the same kernels.
            let wanted = match *name {
                "test-kernels" => true,
                "test-golden" => order == ORDERS[0],
                _ => false,
            };
            if wanted {
                run(Command::new(program)
                    .args(filter)
                    .args(["--quiet", "--test-threads", "2"])
                    .env("LD_LIBRARY_PATH", &folder)
                    .env("DIPTYCH_TEST_DEVICE", "cuda")
                    .env("DIPTYCH_EMULATOR_ORDER", order))?;
            }
        }
    }
    if filter.is_none() {
        whole_run(&programs, &folder)?;
    }
    Ok(())
}

/// Trains for two steps on the emulated device and on the CPU: views, networks, loss and optimizer together must give the same losses.
fn whole_run(programs: &[(&str, PathBuf)], libraries: &Path) -> Result<()> {
    let program = programs.iter().find(|(name, _)| *name == "diptych").map(|(_, program)| program);
    let program = program.context("diptych is not among the programs")?;
    let room = temporary("run")?;
    let data = room.join("data");
    run(Command::new(program).args(["draw", "--flat", "--train-size", "40", "--out"]).arg(&data))?;
    for recipe in ["byol/quickstart", "simclr/quickstart"] {
        let mut losses = Vec::new();
        for device in ["cpu", "cuda"] {
            let out = room.join(recipe.replace('/', "-")).join(device);
            let settings = ["--epochs", "1", "--batch-size", "16", "--set", "trainer.log_every=1", "--quiet"];
            let mut command = Command::new(program);
            command.args(["train", recipe, "--device", device]).args(settings).arg("--data").arg(&data);
            run(command.arg("--out").arg(&out).env("LD_LIBRARY_PATH", libraries).stdout(Stdio::null()))?;
            let rows = fs::read_to_string(out.join("metrics.jsonl")).context("the run wrote no metrics")?;
            let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["loss"].as_f64();
            losses.push(rows.lines().filter_map(row).collect::<Vec<f64>>());
        }
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * a.abs();
        if losses[0].len() != 2 || losses[1].len() != 2 || !losses[0].iter().zip(&losses[1]).all(near) {
            bail!("{recipe}: the losses on the CPU are {:?}, on the emulated GPU {:?}", losses[0], losses[1]);
        }
        eprintln!("{recipe}: the losses of two steps are {:?} on both devices", losses[0]);
    }
    fs::remove_dir_all(&room).with_context(|| format!("cannot remove {}", room.display()))
}

/// Compiles every `*_index_test.cpp` beside the kernels as plain C++, and runs it.
fn index_tests(filter: Option<&str>) -> Result<()> {
    let out = temporary("index")?;
    let mut count = 0;
    for source in tests(&root().join("crates/kernels/src"))? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let program = out.join(&name);
        let flags =
            ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"];
        let compiled = Command::new("g++").args(flags).arg("-o").arg(&program).arg(&source).output();
        let compiled = compiled.context("cannot start g++; install a C++ compiler")?;
        if !compiled.status.success() {
            bail!("{}:\n{}", source.display(), String::from_utf8_lossy(&compiled.stderr));
        }
        let ran =
            Command::new(&program).stdout(Stdio::inherit()).status().with_context(|| format!("cannot start {name}"))?;
        if !ran.success() {
            bail!("{name} failed ({ran})");
        }
        count += 1;
    }
    eprintln!("{count} tests of index arithmetic passed");
    fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))
}

/// An empty folder of this process.
fn temporary(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("diptych-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn tests(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(tests(&path)?);
        } else if name.ends_with("_index_test.cpp") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
