//! `sweep`: many runs that differ in a few keys, one table and one picture.

use std::path::{Path, PathBuf};

use anyhow::Result;
use diptych::sweep::{self, End, Outcome, Overrides, Planned, Summary, Sweep};
use diptych::trainer::{BadInput, Outcome as Ended, Recipe, RunDir, Signals, Watch};
use diptych::training;

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A sweep's file, or the name of one that comes with the program.
    sweep: String,
    /// The folder of all runs, the table and the picture. [default: runs/sweep-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passes over the training images, in every run.
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Seeds instead of the file's: --seeds 0,1,2.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Any key of the recipe in every run, as section.key=value; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads that compute. [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// List the runs, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Say nothing but errors.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    super::threads(args.threads)?;
    let (name, sweep) = sweep::find(&args.sweep)?;
    let sweep = sweep.with(&Overrides { set: args.set.clone(), epochs: args.epochs, seeds: args.seeds.clone() })?;
    let runs = sweep.plan(&args.sweep)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("sweep-{name}")));
    if !args.quiet || args.dry_run {
        say(format!("{}: {} runs in {}", sweep.title, runs.len(), out.display()));
    }
    let mut done: Vec<(Planned, Option<Outcome>)> = Vec::new();
    for run in runs {
        let outcome = ended(&run, &out, &sweep)?;
        done.push((run, outcome));
    }
    if args.dry_run {
        list(&done);
        return Ok(0);
    }
    let signals = Signals::install()?;
    let total = done.len();
    for i in 0..total {
        if done[i].1.is_none() {
            let run = &done[i].0;
            if !args.quiet {
                say(format!("run {} of {total}: {}, seed {}", i + 1, run.label(&sweep), run.seed));
            }
            let dir =
                RunDir::open(&out.join(&run.folder)).or_else(|_| RunDir::create(Some(&out.join(&run.folder)), ""))?;
            let watch = Watch { signals: signals.clone(), quiet: args.quiet };
            let end = match make(run, &dir, &watch)? {
                Ended::Done(_) => End { finished: true, reason: String::new() },
                Ended::Stopped(reason) => End { finished: false, reason },
                Ended::Interrupted(code) => {
                    Summary::new(&sweep, &done).write(&out)?;
                    if !args.quiet {
                        say("interrupted and saved; the same command goes on from here");
                    }
                    return Ok(code);
                }
            };
            end.write(&dir)?;
            let outcome = Outcome::read(&dir, &end, &sweep.metric)?;
            if !args.quiet {
                say(format!("  {}", sentence(&sweep, &outcome)));
            }
            done[i].1 = Some(outcome);
        }
        Summary::new(&sweep, &done).write(&out)?;
    }
    if !args.quiet {
        say(format!("\n{}", Summary::new(&sweep, &done).table()));
        for file in ["sweep.html", "sweep.md", "sweep.json", "plot.svg"] {
            say(format!("{file:<11} {}", out.join(file).display()));
        }
    }
    Ok(0)
}

/// The outcome of a run that was made before; refuses a folder in which another recipe was run.
fn ended(run: &Planned, out: &Path, sweep: &Sweep) -> Result<Option<Outcome>> {
    let Ok(dir) = RunDir::open(&out.join(&run.folder)) else { return Ok(None) };
    let kept = Recipe::resolve(&dir.recipe().display().to_string(), training::kept(&dir)?)?;
    training::refuse_changes(dir.root(), &kept, &run.recipe).map_err(|error| {
        let text = error.to_string();
        let changed = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
        let changed = changed.split("; start a new run").next().unwrap_or_default();
        BadInput(format!("{}: {changed}; choose another --out, or remove that folder", dir.root().display()))
    })?;
    match End::read(&dir)? {
        Some(end) => Outcome::read(&dir, &end, &sweep.metric).map(Some),
        None => Ok(None),
    }
}

/// Trains one run, from its last checkpoint if it was begun before.
fn make(run: &Planned, dir: &RunDir, watch: &Watch) -> Result<Ended> {
    let resume = dir.recipe().is_file();
    let mut prepared = training::prepare(&run.folder, run.recipe.clone())?;
    dir.prepare()?;
    training::train(&mut prepared, dir, resume, watch)
}

fn sentence(sweep: &Sweep, outcome: &Outcome) -> String {
    let summary = Summary::new(sweep, &[]);
    let value = outcome.value.map_or("no result".into(), |value| summary.text(value));
    let mut parts = vec![format!("{} {value}", summary.metric())];
    parts.extend(outcome.spread.map(|spread| format!("spread {:.0} %", 100.0 * spread)));
    parts.extend(Some(outcome.remark()).filter(|remark| !remark.is_empty()));
    parts.join(", ")
}

fn list(runs: &[(Planned, Option<Outcome>)]) {
    for (run, outcome) in runs {
        let state = if outcome.is_some() { "  (has ended)" } else { "" };
        say(format!("  {}{state}", run.folder));
    }
    let open = runs.iter().filter(|(_, outcome)| outcome.is_none()).count();
    say(format!("{open} of {} runs to make", runs.len()));
}
