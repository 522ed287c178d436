//! `preview`: a picture of images and their views.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::augment::{Image, grid};
use diptych::data::{OpenOptions, open};
use diptych::random::Stream;
use diptych::recipes;
use diptych::trainer::{OrBadInput, Recipe, recipe};

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A recipe's name or file. [default: simclr/quickstart, or simclr/images with --data]
    recipe: Option<String>,
    /// A folder of images, a file of a known format, or `synthetic`.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The PNG file to write.
    #[arg(long, value_name = "FILE", default_value = "views.png")]
    out: PathBuf,
    /// Images to show, one a row.
    #[arg(long, value_name = "N", default_value_t = 8)]
    images: usize,
    /// How often each of the recipe's views is drawn.
    #[arg(long, value_name = "N", default_value_t = 3)]
    draws: u64,
    /// The seed of the views.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Any key of the recipe, as section.key=value.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let default = if args.data.is_some() { "simclr/images" } else { "simclr/quickstart" };
    let name = args.recipe.as_deref().unwrap_or(default);
    let mut table = recipes::find(name)?;
    for assignment in &args.set {
        recipe::set(&mut table, assignment)?;
    }
    let recipe = Recipe::resolve(name, table)?;
    let path = args.data.clone().unwrap_or_else(|| recipe.data.path.clone().into());
    let options =
        OpenOptions { image_size: recipe.data.image_size, channels: recipe.data.channels, ..OpenOptions::default() };
    let train = open(&path, &options).or_bad_input()?.train;
    let step = (train.len() / args.images.max(1)).max(1);
    let views = recipe.augment.views();
    let mut pictures: Vec<Image> = Vec::new();
    let mut rows = 0;
    for index in (0..train.len()).step_by(step) {
        let Ok(image) = train.get(index) else { continue };
        pictures.push(image.center_view(recipe.augment.size).to_rgb());
        for draw in 0..args.draws {
            for (v, one) in views.iter().enumerate() {
                let mut stream = Stream::keyed(args.seed, &[draw, index as u64, v as u64]);
                pictures.push(image.random_view(one, &mut stream).to_rgb());
            }
        }
        rows += 1;
        if rows == args.images {
            break;
        }
    }
    let columns = 1 + args.draws as usize * views.len();
    let sheet = grid(&pictures, columns, 2);
    let (width, height) = (sheet.width as u32, sheet.height as u32);
    image::save_buffer(&args.out, &sheet.pixels, width, height, image::ColorType::Rgb8)
        .with_context(|| format!("{} can't be written", args.out.display()))
        .or_bad_input()?;
    say(format!(
        "{}: {rows} rows; first the image, then {} draws of the recipe's {} views",
        args.out.display(),
        args.draws,
        views.len()
    ));
    Ok(())
}
