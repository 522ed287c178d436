//! A few images and what the augmentation makes of them.

use diptych_augment as augment;
use diptych_data::Dataset;
use diptych_random::Stream;

use crate::report::ViewRow;
use crate::setup::picture;

/// The views of `count` images spread over `dataset`, as epoch 0 of a run with this seed sees them.
///
/// Images that can't be decoded are left out.
pub fn view_rows(dataset: &dyn Dataset, recipe: &augment::Recipe, seed: u64, count: usize) -> Vec<ViewRow> {
    let views = recipe.views();
    let step = (dataset.len() / count.max(1)).max(1);
    (0..dataset.len())
        .step_by(step)
        .filter_map(|index| Some((index, dataset.shared(index).ok()?)))
        .take(count)
        .map(|(index, image)| ViewRow {
            name: dataset.name(index),
            original: Some(picture(&image.center_view(recipe.size))),
            views: views
                .iter()
                .enumerate()
                .map(|(v, view)| {
                    let mut stream = Stream::keyed(seed, &[0, index as u64, v as u64]);
                    picture(&image.random_view(view, &mut stream))
                })
                .collect(),
        })
        .collect()
}
