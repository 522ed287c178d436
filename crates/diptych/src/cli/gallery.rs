//! The page of `embed --page`: what is shown of embedded images, and in which words.

use std::path::Path;

use anyhow::Result;
use diptych::eval::Transform;
use diptych::trainer::Shown;
use diptych::trainer::machine::count;
use diptych::trainer::report::{Gallery, gallery, percent};

use super::embed::Embedded;

/// Points of the map: t-SNE of as many takes some seconds.
const POINTS: usize = 2000;
/// Images with their neighbors.
const QUERIES: usize = 24;
/// Neighbors of each.
const NEIGHBORS: usize = 8;
/// Images whose neighbors are compared with their own classes.
const JUDGED: usize = 5000;

/// The page.
pub(super) fn page(embedded: &Embedded, weights: &str, data: &Path, transform: &Transform) -> Result<String> {
    let shown =
        Shown { x: &embedded.x, images: embedded.images.iter().map(|(dataset, i)| (dataset.as_ref(), *i)).collect() };
    let (images, width) = embedded.x.dims2()?;
    let class_names = embedded.images.first().map_or(Vec::new(), |(dataset, _)| dataset.classes().to_vec());
    let mut cards = vec![
        ("Images".to_string(), count(images), String::new()),
        ("Features".to_string(), count(width), "numbers for each image".to_string()),
    ];
    for k in [1, 10] {
        if let Some(share) = shown.agreement(JUDGED, k)? {
            let name = if k == 1 { "Nearest neighbor".to_string() } else { format!("{k} nearest neighbors") };
            cards.push((name, percent(share), "of the same class".to_string()));
        }
    }
    let side = transform.size;
    let mut facts = vec![
        ("Images".to_string(), data.display().to_string()),
        ("Weights".to_string(), weights.to_string()),
        ("Preparation".to_string(), format!("the middle of each image at {side} x {side} pixels, normalized")),
        ("Map".to_string(), format!("{} images, spread evenly over the paths", count(images.min(POINTS)))),
        ("Neighbors".to_string(), "by cosine similarity among all images, the image itself left out".to_string()),
    ];
    if images > JUDGED && cards.len() > 2 {
        facts.push(("Same class".to_string(), format!("measured on {} images, spread evenly", count(JUDGED))));
    }
    if embedded.skipped > 0 {
        facts.push(("Left out".to_string(), format!("{} images that can't be decoded", count(embedded.skipped))));
    }
    let name = data.file_name().map_or_else(|| data.display().to_string(), |name| name.to_string_lossy().into_owned());
    let weights = weights.trim_end_matches('/').rsplit('/').next().unwrap_or(weights);
    Ok(gallery(&Gallery {
        title: format!("{name} as {weights} sees it"),
        cards,
        facts,
        class_names,
        neighbors: shown.queries(&shown, QUERIES, NEIGHBORS)?,
        map: Some(shown.map(POINTS, true, true)?),
    }))
}
