//! How many images a second the loader makes ready: `cargo run --release -p diptych-data --example throughput -- DATA [WORKERS]
//! [SIZE] [CACHE_BYTES]`.
//!
//! Nothing is done with the batches, so the time is what the loader says was waited.

use diptych_augment::Recipe;
use diptych_data::{Loader, LoaderConfig, OpenOptions, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().unwrap_or_else(|| "synthetic".into());
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (workers, size, cache_bytes) = (number(1)?, number(32)?, number(0)?);
    let splits = open(data, &OpenOptions { train_size: Some(2000), ..OpenOptions::default() })?;
    splits.notes.iter().for_each(|note| println!("{note}"));
    let len = splits.train.len();
    let batch_size = len.min(64);
    let steps = (len / batch_size) as u64;
    let config = LoaderConfig {
        batch_size,
        workers,
        cache_bytes,
        recipe: Recipe::simclr(size),
        end: Some(3 * steps),
        ..LoaderConfig::default()
    };
    let mut loader = Loader::new(splits.train, config)?;
    let mut before = 0.0;
    for step in 1..=3 * steps {
        loader.next().transpose()?;
        if step % steps == 0 {
            let seconds = loader.wait_seconds() - before;
            before = loader.wait_seconds();
            println!(
                "epoch {}: {:.0} images/s, two views each, {workers} workers",
                step / steps,
                (steps as usize * batch_size) as f64 / seconds
            );
        }
    }
    Ok(())
}
