//! The command line.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{Device, DeviceLocation};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use crate::bars;
use crate::case::{Case, Memory, Runner, Scale};
use crate::dictionary;
use crate::machine::Machine;
use crate::memory;
use crate::peer::{Choice, Python};
use crate::report::{self, Report, Row};
use crate::session::{Session, Untimed, sentence, untimed};
use crate::setting::{Scratch, Setting};
use crate::suites::{SUITES, Suite};
use crate::weights;

/// Time Diptych against another program
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", after_help = suites())]
struct Cli {
    /// What to time
    suite: String,
    /// What to time it against
    #[arg(long, value_enum, default_value = "torch")]
    peer: PeerName,
    /// Where both compute: `auto`, `cpu` or `cuda[:I]`
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of both; as many as there are cores when left out
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Only cases whose name contains this; several, divided by commas, are added up
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Only variants of the peer whose name contains this; several, divided by commas, are added up
    #[arg(long, value_name = "TEXT", value_delimiter = ',', default_value = "")]
    variants: Vec<String>,
    /// How large the cases are: as the device asks for, or so small that an emulator runs them
    #[arg(long, value_enum, value_name = "SCALE", hide = true)]
    scale: Option<ScaleName>,
    /// Where the peer computes, if not where ours does: to compare values only
    #[arg(long, value_name = "DEVICE", hide = true)]
    peer_device: Option<String>,
    /// How many turns ours and each variant of the peer take
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(7..))]
    rounds: u16,
    /// Write the results here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A Python with the packages of crates/bench/peer/requirements.txt, instead of an environment made for it
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Where the environment with the peer's packages is, or shall be made
    #[arg(long, value_name = "DIR", default_value = "target/peer-venv")]
    venv: PathBuf,
    /// `dictionary` only: how many negatives, divided by commas
    #[arg(long, value_name = "K,K,..", value_delimiter = ',', default_value = "64,256,1024,4096,16384,65536")]
    sizes: Vec<usize>,
    /// `dictionary` only: the network
    #[arg(long, value_name = "NAME", default_value = "resnet18")]
    backbone: String,
    /// `dictionary` only: images in a step
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(2..))]
    batch_size: u32,
    /// `dictionary` only: where the picture goes
    #[arg(long, value_name = "FILE.html", default_value = "runs/bench-dictionary.html")]
    picture: PathBuf,
    /// `loader` only: MB of the packed file of which an epoch's memory is measured
    #[arg(long, value_name = "MB", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..))]
    packed_mb: u32,
    /// `loader` only: where the files go that are read, which stay there; otherwise a temporary folder, which is removed
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Run the one case of this name alone and print its resident peak as JSON; what a call does to itself
    #[arg(long, value_name = "CASE", hide = true)]
    memory_of: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PeerName {
    /// PyTorch and lightly, in Python
    Torch,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScaleName {
    Cpu,
    Gpu,
    Tiny,
}

impl Cli {
    fn scale(&self, device: &Device) -> Scale {
        match self.scale {
            Some(ScaleName::Cpu) => Scale::Cpu,
            Some(ScaleName::Gpu) => Scale::Gpu,
            Some(ScaleName::Tiny) => Scale::Tiny,
            None if device.is_cuda() => Scale::Gpu,
            None => Scale::Cpu,
        }
    }

    fn setting(&self, threads: usize, device: &Device) -> Setting {
        let scratch = Arc::new(Scratch::new(self.scratch.clone()));
        Setting { scale: self.scale(device), threads, packed_bytes: u64::from(self.packed_mb) * 1_000_000, scratch }
    }
}

fn suites() -> String {
    let lines: Vec<String> = SUITES.iter().map(|suite| format!("  {:<9} {}", suite.name, suite.about)).collect();
    format!(
        "Suites:\n{}\n  {DICTIONARY:<9} MoCo's three dictionaries over their sizes: memory and time, no peer\n  {WEIGHTS:<9} Checkpoints of other \
         projects at full size: imported, compared with PyTorch, exported",
        lines.join("\n")
    )
}

/// Exit code 0: every case ran or is not supported yet; 1: one failed; 2: bad input.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let suite = SUITES.iter().find(|suite| suite.name == cli.suite);
    if suite.is_none() && ![DICTIONARY, WEIGHTS].contains(&cli.suite.as_str()) {
        let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).chain([DICTIONARY, WEIGHTS]).collect();
        eprintln!("bench: {} is not a suite; there are {}", cli.suite, names.join(", "));
        return ExitCode::from(2);
    }
    let device = match diptych_trainer::device(&cli.device) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match (suite, &cli.memory_of) {
        (None, _) if cli.suite == WEIGHTS => checkpoints(&cli, &device),
        (None, _) => dictionaries(&cli, &device),
        (Some(suite), Some(name)) => alone(&cli, suite, name, &device),
        (Some(suite), None) => run(&cli, suite, &device),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The suite that has no peer.
const DICTIONARY: &str = "dictionary";
/// The suite whose cases are files that the peer makes.
const WEIGHTS: &str = "weights";

fn checkpoints(cli: &Cli, device: &Device) -> Result<bool> {
    let threads = set_threads(cli.threads)?;
    let choice = cli.python.clone().map_or_else(|| Choice::Environment(cli.venv.clone()), Choice::Given);
    let python = Python::new(&choice)?;
    let machine = Machine::measure(threads, device, cli.scale(device))?;
    println!("{}", machine.describe());
    let filters: Vec<&str> = cli.filter.split(',').collect();
    let (rows, good) = weights::run(&filters, device, || python.program("weights.py", threads))?;
    if let Some(path) = &cli.json {
        let report = json!({ "suite": WEIGHTS, "machine": machine.name, "commit": commit(), "rows": rows });
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(good)
}

fn dictionaries(cli: &Cli, device: &Device) -> Result<bool> {
    let machine = Machine::measure(set_threads(cli.threads)?, device, cli.scale(device))?;
    println!("{}", machine.describe());
    let plan = dictionary::Plan {
        sizes: cli.sizes.clone(),
        backbone: cli.backbone.clone(),
        batch: cli.batch_size as usize,
        images: 50_000,
        picture: cli.picture.clone(),
    };
    let rows = dictionary::run(&plan, device)?;
    if let Some(path) = &cli.json {
        let report = json!({ "suite": DICTIONARY, "machine": machine.name, "commit": commit(), "rows": rows });
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(true)
}

fn run(cli: &Cli, suite: &Suite, device: &Device) -> Result<bool> {
    let threads = set_threads(cli.threads)?;
    let scale = cli.scale(device);
    let setting = cli.setting(threads, device);
    let cases = chosen((suite.cases)(&setting), &cli.filter)?;
    let choice = cli.python.clone().map_or_else(|| Choice::Environment(cli.venv.clone()), Choice::Given);
    let launcher = match cli.peer {
        PeerName::Torch => Python::new(&choice)?,
    };
    let machine = Machine::measure(threads, device, scale)?;
    println!("{}", machine.describe());
    if let Some(warning) = machine.warning() {
        eprintln!("{warning}");
    }
    let device_name = name_of(device);
    let resident = |name: &str| in_process_of_its_own(cli, &setting, name);
    let mut session = Session {
        launcher: &launcher,
        machine: &machine,
        device,
        peer_device: cli.peer_device.as_deref().unwrap_or(&device_name),
        variants: &cli.variants,
        threads,
        rounds: usize::from(cli.rounds),
        resident: &resident,
        peer: None,
    };
    let width = cases.iter().map(|case| case.name().len()).max().unwrap_or(0);
    println!("{}", report::head(width));
    let (mut rows, mut failed): (Vec<Row>, _) = (Vec::new(), 0);
    for case in &cases {
        let row = match session.run(case.as_ref()) {
            Ok(row) => row,
            Err(Untimed::NotSupported(note)) => untimed(case.as_ref(), &note),
            Err(Untimed::Failed(note)) => {
                failed += 1;
                // A peer that broke is no use to the next case.
                session.peer = None;
                untimed(case.as_ref(), &note)
            }
        };
        println!("{}", report::line(&row, width));
        rows.push(row);
    }
    let means = report::means(&rows);
    for (group, mean) in &means {
        println!("{:<width$} {mean:.2}", format!("geometric mean of {group}"));
    }
    let verdicts = bars::summary(&rows);
    let width = verdicts.iter().map(|verdict| verdict.what.len()).max().unwrap_or(0);
    for verdict in &verdicts {
        println!("{}", bars::line(verdict, width));
    }
    if let Some(path) = &cli.json {
        let (suite, commit) = (suite.name, commit());
        let report = Report {
            suite,
            machine: &machine.name,
            device: &device_name,
            threads,
            commit,
            peaks: &machine,
            means,
            bars: verdicts,
            rows: &rows,
        };
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if failed > 0 {
        eprintln!("bench: {failed} of {} cases failed; the table says why", rows.len());
    }
    Ok(failed == 0)
}

/// The device as `--device` and the peer call it.
fn name_of(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        _ => "cpu".to_string(),
    }
}

/// Candle and rayon take the number of threads from the environment, which `cargo xtask` sets; a pool that was not made yet
/// takes it from here.
fn set_threads(told: Option<u16>) -> Result<usize> {
    if let Some(threads) = told {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .context("cannot set the number of threads")?;
    }
    Ok(rayon::current_num_threads())
}

/// The cases whose name contains one of the comma-separated texts.
fn chosen(cases: Vec<Box<dyn Case>>, filter: &str) -> Result<Vec<Box<dyn Case>>> {
    let mut seen = HashSet::new();
    if let Some(twice) = cases.iter().map(|case| case.name()).find(|name| !seen.insert(name.clone())) {
        bail!("two cases are called {twice}")
    }
    let texts: Vec<&str> = filter.split(',').collect();
    let chosen: Vec<_> = cases.into_iter().filter(|case| texts.iter().any(|text| case.name().contains(text))).collect();
    if chosen.is_empty() {
        bail!("no case of this suite has a name that contains {filter:?}")
    }
    Ok(chosen)
}

/// Runs a case three times and prints what the process held at most.
fn alone(cli: &Cli, suite: &Suite, name: &str, device: &Device) -> Result<bool> {
    let before = [memory::resident(), memory::anonymous()];
    let threads = set_threads(cli.threads)?;
    let case = (suite.cases)(&cli.setting(threads, device)).into_iter().find(|case| case.name() == name);
    let case = case.with_context(|| format!("no case is called {name}"))?;
    let thrice = |runner: &mut dyn Runner| -> Result<()> {
        for _ in 0..3 {
            runner.reset(1)?;
            runner.run()?;
        }
        Ok(())
    };
    let above = |peak: Option<u64>, before: Option<u64>| peak.zip(before).map(|(a, b)| a.saturating_sub(b));
    let peak = if case.memory() == Memory::Anonymous {
        let peak = memory::anonymous_peak(|| thrice(case.build(device)?.as_mut()))?;
        above(peak, before[1])
    } else {
        let mut runner = case.build(device)?;
        memory::reset_peak();
        thrice(runner.as_mut())?;
        above(memory::peak_resident(), before[0])
    };
    println!("{}", json!({ "peak": peak, "resident": memory::peak_resident() }));
    Ok(true)
}

/// Starts this binary again for [`alone`].
fn in_process_of_its_own(cli: &Cli, setting: &Setting, name: &str) -> Result<Value> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    let threads = setting.threads.to_string();
    command.args([&cli.suite, "--device", &cli.device, "--memory-of", name, "--threads", &threads]);
    command.args(["--packed-mb", &cli.packed_mb.to_string(), "--scratch"]).arg(setting.scratch.folder()?);
    if let Some(scale) = cli.scale.and_then(|scale| scale.to_possible_value()) {
        command.args(["--scale", scale.get_name()]);
    }
    let output = command.output().context("cannot start this program again")?;
    if !output.status.success() {
        bail!("its memory cannot be measured: {}", String::from_utf8_lossy(&output.stderr).trim())
    }
    serde_json::from_slice(&output.stdout).context("its memory cannot be measured")
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
