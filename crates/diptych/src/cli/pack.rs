//! `pack`: the images of a data set in one file that is fast to train from.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use diptych::data::{Channels, MAX_ERROR_SHARE, OpenOptions, PackFormat, PackOptions, PackSummary, pack};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::say;

/// Unreadable images that are named; the others are counted.
const NAMED: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder of images, a file of a known format, or `synthetic`.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Test images given apart.
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// Shrink images whose shorter side is longer than this; 0 keeps every size. None is enlarged.
    #[arg(long, value_name = "N", default_value_t = 256)]
    short_side: usize,
    /// How the images are held: jpeg is the smallest (8-bit RGB only), raw the fastest, png keeps the pixels and is slow.
    #[arg(long, value_name = "F", default_value = "jpeg")]
    format: Format,
    /// The quality of JPEG, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 95)]
    quality: u8,
    /// As what images are read: auto (image files as RGB), rgb, or a number of channels as they are stored.
    #[arg(long, value_name = "C", default_value = "auto")]
    channels: Channels,
    /// Threads that decode and encode. [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The share of unreadable images above which nothing is packed.
    #[arg(long, value_name = "SHARE", default_value_t = MAX_ERROR_SHARE)]
    max_error_share: f64,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Jpeg,
    Raw,
    Png,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let options = PackOptions {
        open: OpenOptions { test: args.test.clone(), channels: args.channels, ..OpenOptions::default() },
        short_side: args.short_side,
        format: match args.format {
            Format::Jpeg => PackFormat::Jpeg,
            Format::Raw => PackFormat::Raw,
            Format::Png => PackFormat::Png,
        },
        quality: args.quality,
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        max_error_share: args.max_error_share,
        force: args.force,
    };
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(8)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template("packing {wide_bar} {pos}/{len}  {per_sec}  {eta} left") {
        bar.set_style(style);
    }
    let result = pack(&args.data, &args.out, &options, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = result?;
    for skipped in summary.skipped.iter().take(NAMED) {
        say(format!("left out: {}: {}", skipped.name, skipped.reason));
    }
    if summary.skipped.len() > NAMED {
        say(format!("left out: {} more", summary.skipped.len() - NAMED));
    }
    let sources = [Some(args.data.as_path()), args.test.as_deref()];
    let source = sources.into_iter().flatten().map(on_disk).sum::<Option<u64>>();
    say(sentence(&summary, &args.out, source, bar.elapsed()));
    say(format!("next     cargo xtask train --data {}", args.out.display()));
    Ok(())
}

/// One line about what was done; `source` is the bytes that the source takes, where that is known.
fn sentence(summary: &PackSummary, out: &Path, source: Option<u64>, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let ratio = match source {
        Some(source) if source > 0 => format!(" ({:.2} of its source's)", summary.bytes as f64 / source as f64),
        _ => String::new(),
    };
    let left_out = match summary.skipped.len() {
        0 => String::new(),
        n => format!(", {n} unreadable left out"),
    };
    format!(
        "{}: {} images ({} shrunk, {} JPEG files as they were{left_out}), {}{ratio}, in {seconds:.1} s, {:.0} images/s",
        out.display(),
        summary.images,
        summary.shrunk,
        summary.copied,
        size(summary.bytes),
        summary.images as f64 / seconds.max(1e-3),
    )
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

/// Bytes of the files at `path`; `None` if it is no path. Links are not followed: this is for a ratio only.
fn on_disk(path: &Path) -> Option<u64> {
    let found = path.metadata().ok()?;
    if !found.is_dir() {
        return Some(found.len());
    }
    let mut folders = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) if found.is_file() => bytes += found.len(),
                _ => {}
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_compares() {
        let skipped = vec![diptych::data::Skipped { index: 3, name: "a".into(), reason: "b".into() }];
        let summary = PackSummary { images: 99, shrunk: 90, copied: 9, bytes: 2_500_000, pixel_bytes: 1, skipped };
        let text = sentence(&summary, Path::new("x.pack"), Some(10_000_000), Duration::from_secs(2));
        let expected = "x.pack: 99 images (90 shrunk, 9 JPEG files as they were, 1 unreadable left out), 2.5 MB (0.25 of its source's), in 2.0 s, \
             50 images/s";
        assert_eq!(text, expected);
        let summary = PackSummary { skipped: Vec::new(), bytes: 3_000_000_000, ..summary };
        assert!(sentence(&summary, Path::new("x"), None, Duration::ZERO).contains("were), 3.00 GB, in 0.0 s"));
    }

    #[test]
    fn the_size_of_a_folder_is_that_of_its_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/b"), [0; 30]).unwrap();
        std::fs::write(root.path().join("c"), [0; 12]).unwrap();
        assert_eq!((on_disk(root.path()), on_disk(&root.path().join("c"))), (Some(42), Some(12)));
        assert_eq!(on_disk(Path::new("synthetic")), None);
    }
}
