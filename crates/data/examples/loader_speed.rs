//! Images a second of the loader on your own data, with one thread and with more: `cargo run --release -p diptych-data --example loader_speed -- DATA [SIZE] [BATCH]`.
//!
//! Rounds with different numbers of threads take turns; the median of each is printed with its ratio to one thread.

use std::sync::Arc;
use std::time::Instant;

use diptych_augment::Recipe;
use diptych_data::{Dataset, Loader, LoaderConfig, OpenOptions, open};

const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let data = args.next().unwrap_or_else(|| "synthetic".into());
    let size: usize = args.next().map_or(Ok(32), |size| size.parse())?;
    let batch_size: usize = args.next().map_or(Ok(256), |size| size.parse())?;
    let set = open(&data, &OpenOptions { image_size: size.clamp(32, 96), ..OpenOptions::default() })?.train;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<usize> = (1..=cores).collect();
    let mut seconds = vec![Vec::new(); threads.len()];
    for round in 0..=ROUNDS as u64 {
        for (times, &workers) in seconds.iter_mut().zip(&threads) {
            let taken = epoch(&set, size, batch_size, workers, round)?;
            // The first round warms up.
            if round > 0 {
                times.push(taken);
            }
        }
    }
    let images = (set.len() / batch_size * batch_size) as f64;
    let medians = seconds.iter_mut().map(|times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let medians: Vec<f64> = medians.collect();
    for (workers, median) in threads.iter().zip(&medians) {
        println!("{workers} threads: {:>8.0} images/s, {:.2} times one", images / median, medians[0] / median);
    }
    Ok(())
}

/// Seconds of one epoch of two views each.
fn epoch(
    set: &Arc<dyn Dataset>,
    size: usize,
    batch_size: usize,
    workers: usize,
    epoch: u64,
) -> Result<f64, Box<dyn std::error::Error>> {
    let steps = (set.len() / batch_size) as u64;
    let (start, end) = (epoch * steps, Some((epoch + 1) * steps));
    let config =
        LoaderConfig { batch_size, workers, recipe: Recipe::simclr(size), start, end, ..LoaderConfig::default() };
    let begun = Instant::now();
    for batch in &mut Loader::new(set.clone(), config)? {
        std::hint::black_box(batch?);
    }
    Ok(begun.elapsed().as_secs_f64())
}
