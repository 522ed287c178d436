//! `train`: a recipe and data in, a run directory out.

use std::path::{Path, PathBuf};

use anyhow::Result;
use diptych::trainer::{BadInput, Outcome, Recipe, RunDir, Signals, Watch, plan, recipe};
use diptych::{recipes, training};
use toml::{Table, Value};

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A recipe's name (simclr/quickstart) or file. [default: simclr/quickstart; with --data simclr/images, or simclr/channels where images are not
    /// 8-bit RGB]
    pub(crate) recipe: Option<String>,
    /// A folder of images, a file of a known format, or `synthetic`.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Test images given apart.
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// The run's folder. [default: runs/METHOD-NAME-K]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passes over the training images.
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Images in a step.
    #[arg(long, value_name = "N")]
    batch_size: Option<u64>,
    /// auto, cpu or cuda[:I].
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// f32, tf32 or bf16.
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// The seed of all randomness.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads that compute. [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Ranks that share each batch, threads of this process; a resumed run may have another number of them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    ranks: usize,
    /// Any key of the recipe, as section.key=value; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Continue the run in --out.
    #[arg(long)]
    resume: bool,
    /// Print the recipe and the plan, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Say nothing but errors.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    super::threads(args.threads)?;
    let (name, recipe, dir) = if args.resume { continued(&args)? } else { begun(&args)? };
    let mut run = training::prepare_on(&name, recipe, args.ranks)?;
    if !args.quiet {
        say(format!("# recipe {name}, merged\n{}", run.recipe.to_toml()?));
    }
    if !args.dry_run {
        dir.prepare()?;
    }
    if !args.quiet || args.dry_run {
        plan(&run)?.iter().for_each(say);
        say(format!("{:<14} {}", "run", dir.root().display()));
    }
    if args.dry_run {
        return Ok(0);
    }
    let signals = Signals::install()?;
    let outcome = training::train(&mut run, &dir, args.resume, &Watch { signals, quiet: args.quiet })?;
    Ok(conclude(&args, &run.recipe, &dir, outcome))
}

/// The recipe and folder of a new run.
fn begun(args: &Args) -> Result<(String, Recipe, RunDir)> {
    let resolved = |name: &str| -> Result<Recipe> {
        let mut table = recipes::find(name)?;
        apply(args, &mut table)?;
        Recipe::resolve(name, table)
    };
    let name = match (&args.recipe, &args.data) {
        (Some(name), _) => name.clone(),
        (None, None) => "simclr/quickstart".to_string(),
        (None, Some(_)) => recipes::for_data(&resolved("simclr/images")?)?.to_string(),
    };
    let mut recipe = resolved(&name)?;
    shorten_warmup(args, &mut recipe);
    let short = Path::new(&name).file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    let dir = RunDir::create(args.out.as_deref(), &format!("{}-{short}", recipe.method_name()))?;
    Ok((name, recipe, dir))
}

/// The recipe and folder of a run to continue; refuses keys that have changed.
fn continued(args: &Args) -> Result<(String, Recipe, RunDir)> {
    let Some(out) = &args.out else {
        return Err(BadInput("--resume needs --out DIR, the folder of the run to continue".into()).into());
    };
    let dir = RunDir::open(out)?;
    let name = dir.recipe().display().to_string();
    let kept = training::kept(&dir)?;
    let mut wanted = match &args.recipe {
        Some(recipe) => recipes::find(recipe)?,
        None => kept.clone(),
    };
    apply(args, &mut wanted)?;
    let (kept, wanted) = (Recipe::resolve(&name, kept)?, Recipe::resolve(&name, wanted)?);
    training::refuse_changes(out, &kept, &wanted)?;
    Ok((name, wanted, dir))
}

/// Lays the flags over a recipe's table.
fn apply(args: &Args, table: &mut Table) -> Result<()> {
    for assignment in &args.set {
        recipe::set(table, assignment)?;
    }
    let path = |path: &PathBuf| match path.to_str() {
        Some(text) => Ok(Value::String(text.to_string())),
        None => Err(BadInput(format!(
            "{}: a folder's own path must be UTF-8, since the recipe keeps it as text (names of files inside may be anything)",
            path.display()
        ))),
    };
    let number = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let flags = [
        ("data.path", args.data.as_ref().map(path).transpose()?),
        ("data.test", args.test.as_ref().map(path).transpose()?),
        ("trainer.epochs", args.epochs.map(number)),
        ("trainer.batch_size", args.batch_size.map(number)),
        ("trainer.seed", args.seed.map(number)),
        ("trainer.device", args.device.clone().map(Value::String)),
        ("trainer.precision", args.precision.clone().map(Value::String)),
    ];
    for (key, value) in flags {
        if let Some(value) = value {
            recipe::set_value(table, key, value)?;
        }
    }
    Ok(())
}

/// A recipe's warm-up belongs to its number of epochs: a shorter run, asked for by --epochs alone, gets a tenth of its own.
fn shorten_warmup(args: &Args, recipe: &mut Recipe) {
    let told = args.set.iter().any(|assignment| assignment.starts_with("optim.warmup_epochs"));
    if args.epochs.is_some() && !told && training::shorten_warmup(recipe) && !args.quiet {
        let (warmup, epochs) = (recipe.optim.warmup_epochs, recipe.trainer.epochs);
        say(format!("# optim.warmup_epochs is {warmup} in a run of {epochs} epochs"));
    }
}

/// Says how the run ended and what to do next.
fn conclude(args: &Args, recipe: &Recipe, dir: &RunDir, outcome: Outcome) -> u8 {
    let root = dir.root().display();
    match outcome {
        Outcome::Done(evaluation) => {
            if !args.quiet {
                say(format!("done: {evaluation}"));
                say(format!("report   {}", dir.report().display()));
                say(format!("weights  {}", dir.backbone().display()));
                let data = &recipe.data.path;
                say(format!("next     cargo xtask eval linear --weights {root} --data {data}"));
                say(format!(
                    "         cargo xtask export --weights {root} --format torchvision --out backbone.safetensors"
                ));
            }
            0
        }
        Outcome::Interrupted(code) => {
            if !args.quiet {
                say(format!("interrupted and saved; continue with: cargo xtask train --resume --out {root}"));
            }
            code
        }
        Outcome::Stopped(reason) => {
            eprintln!("stopped: {reason}; the last good checkpoint is in {}", dir.checkpoints().display());
            3
        }
    }
}
