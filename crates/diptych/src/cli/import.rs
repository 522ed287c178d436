//! `import`: a backbone out of another project's checkpoint.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::backbones::Stem;
use diptych::backbones::pretrained::{CONVENTIONS, Found, Hints, import, resolve};
use diptych::trainer::log::replace_file;
use diptych::trainer::{BadInput, OrBadInput};

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A checkpoint (.pth, .pt, .tar, .ckpt, .bin), a safetensors file, or hf://owner/name[@revision][/file].
    #[arg(value_name = "FILE|hf://...")]
    source: String,
    /// Whose it is: torchvision, timm, moco, simsiam, barlowtwins, swav, byol, solo-learn, lightly or detectron2; found by its keys when left out.
    #[arg(long, value_name = "PROJECT", value_parser = clap::builder::PossibleValuesParser::new(CONVENTIONS))]
    from: Option<String>,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// The backbone that it must be, such as resnet50; found by its keys when left out.
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Every channel times 1, 2 or 4, which it must be; found by its shapes when left out.
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// The stem: imagenet (7x7), cifar (3x3, stride 1) or strided (3x3, stride 2); a 3x3 one is taken for cifar when left out.
    #[arg(long, value_name = "S")]
    stem: Option<String>,
    /// Side of the images it was trained on, in pixels; 224, or 32 for a 3x3 stem, when left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    image_size: Option<u32>,
    /// Mean of each channel, divided by commas; ImageNet's when left out.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Deviation of each channel, divided by commas; ImageNet's when left out.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Option<Vec<f32>>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.out.extension().is_none_or(|ending| ending != "safetensors") {
        let message = format!("--out {} must end in .safetensors", args.out.display());
        return Err(BadInput(message).into());
    }
    let stem = match args.stem.as_deref() {
        None => None,
        Some("imagenet") => Some(Stem::Imagenet),
        Some("cifar") => Some(Stem::Cifar),
        Some("strided") => Some(Stem::Strided),
        Some(other) => return Err(BadInput(format!("--stem {other} is not one of imagenet, cifar, strided")).into()),
    };
    let hints = Hints {
        from: args.from,
        backbone: args.backbone,
        width: args.width,
        stem,
        image_size: args.image_size.map(|size| size as usize),
        mean: args.mean,
        std: args.std,
    };
    let path = resolve(&args.source).or_bad_input()?;
    let imported = import(&path, &hints).or_bad_input()?;
    let bytes = imported.safetensors()?;
    replace_file(&args.out, &bytes)
        .with_context(|| format!("{} can't be written", args.out.display()))
        .or_bad_input()?;
    tell(&imported.found, &hints, imported.tensors.len());
    say(format!("wrote    {}: use it as --weights, or as backbone.weights of a recipe", args.out.display()));
    Ok(())
}

/// What was found, line by line.
fn tell(found: &Found, hints: &Hints, tensors: usize) {
    let within = if found.container.is_empty() { String::new() } else { format!(" under {:?}", found.container) };
    let before =
        if found.prefix.is_empty() { String::new() } else { format!(" with {:?} before its names", found.prefix) };
    let guessed = if hints.from.is_some() { "" } else { " (detected)" };
    say(format!("read     {}, a {}", found.path.display(), found.kind));
    say(format!("layout   {}{guessed}: a state dict{within}{before}", found.convention));
    let (config, architecture) = (&found.config, &found.architecture);
    say(format!(
        "backbone {}, width {}, {} stem, {} channels in, {} numbers out, {tensors} tensors",
        config.name,
        config.width,
        architecture.stem.name(),
        architecture.channels,
        architecture.out_dim()
    ));
    let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    say(format!(
        "images   {} pixels, mean {}, std {}",
        found.input.size,
        list(&found.input.mean),
        list(&found.input.std)
    ));
    match found.ignored.as_slice() {
        [] => {}
        [first @ .., last] if first.len() < 4 => {
            let names: Vec<&str> = first.iter().chain([last]).map(String::as_str).collect();
            say(format!("ignored  {}", names.join(", ")));
        }
        all => say(format!("ignored  {} tensors: {}, ... {}", all.len(), all[..3].join(", "), all[all.len() - 1])),
    }
    for note in &found.notes {
        say(format!("note     {note}"));
    }
}
