//! `eval finetune`: backbone and a linear classifier trained together on all labels, or on a share of them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use diptych::backbones::{Input, describe, pretrained};
use diptych::eval::{FineTune, FineTuneFrom, Network, Tuning};
use diptych::nn::{Layout, ParamStore};
use diptych::projector;
use diptych::trainer::log::replace_file;
use diptych::trainer::{BadInput, OrBadInput};
use diptych::weights::{self, Weights};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::say;
use super::common::{Common, Opened, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    common: Common,
    /// A text file that names the labeled images, one a line, such as SimCLR's 1percent.txt; takes the place of finetune.labels.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Write the fine-tuned network, with torchvision's names; of several seeds the first one's.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut settings: FineTune = args.settings.read("finetune")?;
    if args.labels.is_some() {
        settings.labels = 1.0;
    }
    settings.check().or_bad_input()?;
    if args.common.baseline.as_deref().is_some_and(|name| name != "random") {
        return Err(BadInput(
            "eval finetune has one baseline: --baseline random, the same network from scratch".into(),
        )
        .into());
    }
    let opened = args.common.open_among(args.labels.clone())?;
    let Some(test) = &opened.splits.test else { return Ok(()) };
    let mut results = Vec::new();
    let mut weights = None;
    for seed in 0..args.common.seeds {
        let begun = match (args.common.random(), weights.take()) {
            (false, Some(begun)) => begun,
            (true, _) => network(weights::build(&args.common.weights.source(), seed)?, &settings, None)?,
            (false, None) => network(args.common.weights.open()?, &settings, Some(&args.common.weights.weights))?,
        };
        let (mut network, about) = begun;
        let mut shown = Shown::new();
        let splits = (opened.splits.bank(), test);
        let tuned =
            settings.run(&mut network, splits, &about.transform, seed, &mut |told| shown.tell(told)).or_bad_input()?;
        results.push(settings.result(&tuned));
        if let (0, Some(file)) = (seed, &args.save) {
            save(file, &network.exported(&tuned.head)?, &about, &opened, &settings)?;
        }
        weights = Some((network, about));
    }
    args.common.tell(&opened, results)
}

/// What stays of weights when the network is taken out of them.
pub(super) struct About {
    pub(super) transform: diptych::eval::Transform,
    config: diptych::backbones::BackboneConfig,
    architecture: diptych::backbones::Architecture,
}

/// The network to train: with the first layers of the projector of the run at `source`, where the settings want them.
pub(super) fn network(weights: Weights, settings: &FineTune, source: Option<&str>) -> Result<(Network, About)> {
    let Weights { backbone, params, config, architecture, transform, .. } = weights;
    let about = About { transform, config, architecture };
    let network = match (settings.from, source) {
        (FineTuneFrom::Representation, _) => Network::new(backbone, params)?,
        (FineTuneFrom::Projector(_), None) => {
            let message = "random weights have no projector: add --set 'finetune.from=\"representation\"'";
            return Err(BadInput(message.into()).into());
        }
        (FineTuneFrom::Projector(layers), Some(source)) => {
            let (projector, trunk) = projector::of_run(source)?;
            // Both from one checkpoint: the run's backbone file may be of another step.
            params.load(&trunk, Layout::Ohwi).with_context(|| format!("{source}: its checkpoint")).or_bad_input()?;
            Network::new(backbone, params)?
                .with_projector(layers, &projector)
                .with_context(|| source.to_string())
                .or_bad_input()?
        }
    };
    Ok((network, about))
}

fn save(file: &Path, all: &ParamStore, about: &About, opened: &Opened, settings: &FineTune) -> Result<()> {
    let transform = &about.transform;
    let input = Input { size: transform.size, mean: transform.mean.to_vec(), std: transform.std.to_vec() };
    let mut metadata = describe(&about.config, &about.architecture, &input);
    let classes = opened.splits.bank().classes();
    metadata.insert("classes".into(), serde_json::to_string(classes)?);
    let bytes = pretrained::export(all, 0, metadata)?;
    replace_file(file, &bytes).with_context(|| format!("{} can't be written", file.display())).or_bad_input()?;
    say(format!("{} holds the fine-tuned network with torchvision's names, fc included", file.display()));
    if settings.from != FineTuneFrom::Representation {
        say("  its fc is the projector's layers and the classifier: torch.nn.Sequential in this order");
    }
    Ok(())
}

/// The line that shows how a training goes: drawn over itself on a terminal, one an epoch elsewhere; on standard error.
pub(super) struct Shown {
    bar: ProgressBar,
    terminal: bool,
}

impl Shown {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style = ProgressStyle::with_template("{bar:16.cyan/blue} {pos}/{len}  {wide_msg}");
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), terminal }
    }

    pub(super) fn tell(&mut self, told: Tuning) {
        match told {
            Tuning::Step { step, steps, epoch, loss, images } => {
                self.bar.set_length(steps);
                let rate = self.bar.per_sec() * images as f64;
                self.bar.set_message(format!("epoch {epoch}  loss {loss:.4}  {rate:.0} images/s"));
                self.bar.set_position(step);
            }
            Tuning::Tested { epoch, epochs, loss, accuracy } => {
                let line = format!("epoch {epoch}/{epochs}  loss {loss:.4}  test top-1 {:.2} %", 100.0 * accuracy);
                if self.terminal {
                    self.bar.println(line);
                } else {
                    use std::io::Write;
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
