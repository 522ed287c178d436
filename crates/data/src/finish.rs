//! What a loader's threads make of an image: its finished views, or the plan of them for a device that makes them itself.

use std::sync::Arc;

use diptych_augment::{Picture, ViewParams, ViewRecipe};
use diptych_nn::{Batch, Views};
use diptych_random::Stream;

use crate::DataError;
use crate::loader::stack;

/// How images become samples, and samples a batch.
pub trait Finish: Send + Sync + 'static {
    /// One image of a batch.
    type Sample: Send;
    /// What the loader hands out.
    type Batch: Send;

    /// Of a decoded image, with the random stream of each view.
    fn sample(&self, image: Arc<Picture>, views: &[ViewRecipe], stream: &dyn Fn(usize) -> Stream) -> Self::Sample;

    /// Of all images of a batch, in order.
    ///
    /// # Errors
    /// If there is no room.
    fn batch(&self, samples: Vec<Self::Sample>, views: &[ViewRecipe], rows: Rows) -> Result<Self::Batch, DataError>;
}

/// Which images a batch shows.
#[derive(Clone, Debug)]
pub struct Rows {
    /// One label per image, where the data set has them.
    pub labels: Option<Vec<u32>>,
    /// The images' places in the data set.
    pub index: Vec<u32>,
}

/// The loader's threads make the views, as pictures; a batch of them is normalized. This is what CPUs train from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Augmented;

impl Finish for Augmented {
    type Sample = Vec<Picture>;
    type Batch = Batch;

    fn sample(&self, image: Arc<Picture>, views: &[ViewRecipe], stream: &dyn Fn(usize) -> Stream) -> Vec<Picture> {
        planned(&image, views, stream).iter().map(|params| image.view(params)).collect()
    }

    fn batch(&self, samples: Vec<Vec<Picture>>, views: &[ViewRecipe], rows: Rows) -> Result<Batch, DataError> {
        let views = views
            .iter()
            .enumerate()
            .map(|(v, recipe)| stack(samples.iter().map(|views| &views[v]), recipe.size, &recipe.mean, &recipe.std));
        Ok(Batch { views: Views(views.collect::<Result<_, _>>()?), labels: rows.labels, index: rows.index })
    }
}

/// The loader's threads decode, and draw what is random about the views; the pixels are somebody else's work. The draws are those of
/// [`Augmented`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Planned;

/// Decoded images, and how their views are to be made.
#[derive(Clone, Debug)]
pub struct PlannedBatch {
    /// The images, of any sizes.
    pub images: Vec<Arc<Picture>>,
    /// For each view of the recipe, the parameters of each image.
    pub views: Vec<Vec<ViewParams>>,
    /// Labels and places.
    pub rows: Rows,
}

impl Finish for Planned {
    type Sample = (Arc<Picture>, Vec<ViewParams>);
    type Batch = PlannedBatch;

    fn sample(&self, image: Arc<Picture>, views: &[ViewRecipe], stream: &dyn Fn(usize) -> Stream) -> Self::Sample {
        let params = planned(&image, views, stream);
        (image, params)
    }

    fn batch(&self, samples: Vec<Self::Sample>, views: &[ViewRecipe], rows: Rows) -> Result<PlannedBatch, DataError> {
        let views = (0..views.len()).map(|v| samples.iter().map(|(_, params)| params[v]).collect()).collect();
        Ok(PlannedBatch { images: samples.into_iter().map(|(image, _)| image).collect(), views, rows })
    }
}

fn planned(image: &Picture, views: &[ViewRecipe], stream: &dyn Fn(usize) -> Stream) -> Vec<ViewParams> {
    let draw = |(v, recipe)| ViewParams::draw(recipe, image.width(), image.height(), &mut stream(v));
    views.iter().enumerate().map(draw).collect()
}
