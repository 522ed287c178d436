//! Packs images, and compares training from the file with training from its source: `cargo run --release -p diptych-data --example
//! packed_epoch -- SOURCE FILE [raw|jpeg|png] [VIEW_SIZE] [ROUNDS]`.
//!
//! Each round is one shuffled epoch of each, one after the other, with two SimCLR views of every image and one worker; what is printed is the best
//! round's rate, and by how much the memory of the process itself (`RssAnon`) grew at most since the file was opened. A file that is there is
//! read as it is.

use std::path::Path;
use std::sync::Arc;

use diptych_augment::Recipe;
use diptych_data::{Dataset, Loader, LoaderConfig, OpenOptions, PackFormat, PackOptions, open, pack};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, file, rest @ ..] = &arguments[..] else { return Err("give SOURCE and FILE".into()) };
    let format = match rest.first().map_or("jpeg", String::as_str) {
        "raw" => PackFormat::Raw,
        "jpeg" => PackFormat::Jpeg,
        "png" => PackFormat::Png,
        other => return Err(format!("{other} is not one of raw, jpeg, png").into()),
    };
    let number = |i: usize, default: usize| rest.get(i).map_or(Ok(default), |text| text.parse());
    let (size, rounds) = (number(1, 224)?, number(2, 3)?);
    if !Path::new(file).exists() {
        let options = PackOptions { format, threads: 2, ..PackOptions::default() };
        let summary = pack(source, file, &options, &mut |_, _| ())?;
        println!("packed {} images, {} bytes", summary.images, summary.bytes);
    }
    let mut rates = [0f64; 2];
    for _ in 0..rounds {
        for (rate, path) in rates.iter_mut().zip([source, file]) {
            let train = open(path, &OpenOptions::default())?.train;
            let before = own_memory();
            let (seconds, images, most) = epoch(train, size)?;
            *rate = rate.max(images as f64 / seconds);
            println!(
                "{path}: {:.0} images/s; RssAnon {before} kB before, {most} kB at most, {:+} kB",
                images as f64 / seconds,
                most as i64 - before as i64
            );
        }
    }
    println!("{file} over {source}: {:.2} (best of {rounds}), two views at {size}, one worker", rates[1] / rates[0]);
    Ok(())
}

/// One epoch in random order: seconds waited, images, and the most memory.
fn epoch(train: Arc<dyn Dataset>, size: usize) -> Result<(f64, usize, u64), Failure> {
    let batch_size = train.len().min(32);
    let steps = (train.len() / batch_size) as u64;
    let recipe = Recipe::simclr(size);
    let config =
        LoaderConfig { batch_size, workers: 1, prefetch: 2, recipe, end: Some(steps), ..LoaderConfig::default() };
    let mut loader = Loader::new(train, config)?;
    let mut most = 0;
    for batch in loader.by_ref() {
        drop(batch?);
        most = most.max(own_memory());
    }
    Ok((loader.wait_seconds(), steps as usize * batch_size, most))
}

/// Memory of the process itself, in kB: not what the system caches of files. 0 where the system does not say.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}
