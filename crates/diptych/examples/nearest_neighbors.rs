//! What a network holds to be alike: for some images, the images whose features are nearest.
//!
//! `cargo run --release -p diptych --example nearest_neighbors [DATA] [WEIGHTS]`: DATA is a folder of images or a file of a
//! known format, WEIGHTS a run directory or a weights file. Without them: 1,000 drawn images, compared by their pixels.

use anyhow::Result;
use diptych::data::{OpenOptions, open};
use diptych::eval::{Transform, features, pixels};
use diptych::metrics::nearest;
use diptych::weights::{self, Source};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let data = args.first().map_or("synthetic", String::as_str);
    let options = OpenOptions { image_size: 32, train_size: args.is_empty().then_some(1000), ..OpenOptions::default() };
    let images = open(data, &options)?.train;
    let found = match args.get(1) {
        Some(path) => {
            let weights = weights::open(&Source { path: path.clone(), ..Source::default() })?;
            features(weights.backbone.as_ref(), &images, &weights.transform)?
        }
        None => pixels(&images, &Transform { size: 32, ..Transform::default() })?,
    };

    // The nearest to each image is the image itself: one more than is shown.
    let k = 4.min(found.indices.len());
    let neighbors = nearest(&found.x, &found.x, k)?;
    let name = |row: usize| {
        let index = found.indices[row] as usize;
        let class = images.label(index).and_then(|label| images.classes().get(label as usize));
        format!("{}{}", images.name(index), class.map_or(String::new(), |class| format!(" ({class})")))
    };
    for row in (0..neighbors.len()).step_by((neighbors.len() / 5).max(1)) {
        println!("{}", name(row));
        for &(other, cosine) in neighbors[row].iter().filter(|(other, _)| *other as usize != row) {
            println!("  {cosine:.3}  {}", name(other as usize));
        }
    }
    if let Some(labels) = &found.labels {
        let pairs = neighbors.iter().enumerate().flat_map(|(row, near)| near.iter().map(move |n| (row, n.0 as usize)));
        let others: Vec<(usize, usize)> = pairs.filter(|(row, other)| row != other).collect();
        let same = others.iter().filter(|(a, b)| labels[*a] == labels[*b]).count();
        println!("{:.1} % of neighbors have the image's class", 100.0 * same as f64 / others.len().max(1) as f64);
    }
    Ok(())
}
