//! `draw`: images of the embedded data set as files.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use diptych::data::{FileFormat, FileLayout, OpenOptions, open, write_folder};
use diptych::trainer::OrBadInput;

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Training images.
    #[arg(long, value_name = "N", default_value_t = 1600)]
    train_size: usize,
    /// Test images.
    #[arg(long, value_name = "N", default_value_t = 400)]
    test_size: usize,
    /// Side in pixels, 32 to 96.
    #[arg(long, value_name = "N", default_value_t = 32)]
    image_size: usize,
    /// How the files are encoded.
    #[arg(long, value_name = "F", default_value = "png")]
    format: Format,
    /// All training images in one folder, without labels and without a test split.
    #[arg(long)]
    flat: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Png,
    Jpeg,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let options = OpenOptions {
        train_size: Some(args.train_size),
        test_size: Some(args.test_size),
        image_size: args.image_size,
        ..OpenOptions::default()
    };
    let splits = open("synthetic", &options).or_bad_input()?;
    let format = match args.format {
        Format::Png => FileFormat::Png,
        Format::Jpeg => FileFormat::Jpeg,
    };
    if args.flat {
        write_folder(splits.train.as_ref(), &args.out, format, FileLayout::Flat).or_bad_input()?;
        say(format!("{} images in {}", splits.train.len(), args.out.display()));
        return Ok(());
    }
    write_folder(splits.train.as_ref(), args.out.join("train"), format, FileLayout::Classes).or_bad_input()?;
    if let Some(test) = &splits.test {
        write_folder(test.as_ref(), args.out.join("test"), format, FileLayout::Classes).or_bad_input()?;
    }
    say(format!("{} + {} images in {}/train and /test", args.train_size, args.test_size, args.out.display()));
    Ok(())
}
