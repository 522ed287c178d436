//! `preview`: a picture of images and their views, or of each operation at its strengths.

mod eyes;
mod font;
mod ops;
mod sheet;

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych::augment::{Picture, Recipe as Views};
use diptych::data::{Dataset, OpenOptions, open};
use diptych::random::Stream;
use diptych::recipes;
use diptych::trainer::{OrBadInput, Recipe, recipe};

use super::say;
use sheet::{Row, Tile, sheet};

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
    /// Each operation alone, a row at its strengths, instead of the recipe's views.
    #[arg(long)]
    ops: bool,
    /// Images to show, spread over the data. [default: 8, one a row; with --ops 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    images: Option<u64>,
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
    let count = args.images.map_or(if args.ops { 1 } else { 8 }, |n| n as usize);
    let shown: Vec<Vec<Row>> = images(train.as_ref(), count)
        .map(|(index, image)| {
            if args.ops {
                ops::rows(&image, &recipe.augment.views())
            } else {
                vec![views(index, &image, &recipe.augment, &args)]
            }
        })
        .collect();
    if shown.is_empty() {
        train.get(0).with_context(|| format!("no image of {} can be decoded", path.display())).or_bad_input()?;
    }
    let (size, count) = (recipe.augment.size, shown.len());
    let footing = if args.ops { "black: what this recipe draws, gray: what it does not" } else { "" };
    let sheet = sheet(&format!("{name}, {size} x {size} pixels"), &shown.concat(), footing);
    let (width, height) = (sheet.width as u32, sheet.height as u32);
    image::save_buffer(&args.out, &sheet.pixels, width, height, image::ColorType::Rgb8)
        .with_context(|| format!("{} can't be written", args.out.display()))
        .or_bad_input()?;
    let out = args.out.display();
    say(if args.ops {
        format!("{out}: each operation at its strengths, on {count} of {} images", train.len())
    } else {
        let views = recipe.augment.views.len();
        format!("{out}: {count} rows; first the image, then {} draws of the recipe's {views} views", args.draws)
    });
    Ok(())
}

/// `count` images spread over the data set, with their places in it; those that can't be decoded are left out.
fn images(dataset: &dyn Dataset, count: usize) -> impl Iterator<Item = (usize, Picture)> {
    let step = (dataset.len() / count.max(1)).max(1);
    let decoded = (0..dataset.len()).step_by(step).filter_map(|index| Some((index, dataset.get(index).ok()?)));
    decoded.take(count)
}

/// The image as an evaluation sees it, and the views of some epochs.
fn views(index: usize, image: &Picture, recipe: &Views, args: &Args) -> Row {
    let tile = |label: String, image| Tile { label, strong: true, image };
    let mut tiles = vec![tile("image".into(), image.center_view(recipe.size).to_rgb())];
    for draw in 0..args.draws {
        for (v, one) in recipe.views().iter().enumerate() {
            let mut stream = Stream::keyed(args.seed, &[draw, index as u64, v as u64]);
            tiles.push(tile(format!("view {}", v + 1), image.random_view(one, &mut stream).to_rgb()));
        }
    }
    Row { title: String::new(), tiles }
}
