//! Representations of two random views of images: what alignment is measured on.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use diptych_augment::Recipe;
use diptych_data::Dataset;
use diptych_nn::Backbone;
use diptych_random::Stream;

use crate::forward;

/// Images whose two views are looked at.
const PAIRS: usize = 512;

/// Representations `[P, F]` of the first two views that `recipe` makes of at most 512 images, spread evenly over `dataset`: row i of both is of one image.
/// The views are the same at each call and for every run, so that two backbones are asked the same. Images that cannot be decoded are left out.
///
/// # Errors
/// If no image can be decoded, or the backbone refuses them.
pub fn two_views(backbone: &dyn Backbone, dataset: &dyn Dataset, recipe: &Recipe) -> Result<(Tensor, Tensor)> {
    let views = recipe.views();
    let (size, channels) = (recipe.size, dataset.format().channels);
    let mut pixels = [Vec::new(), Vec::new()];
    let mut n = 0;
    let step = (dataset.len() / PAIRS).max(1);
    for index in (0..dataset.len()).step_by(step).take(PAIRS) {
        let Ok(image) = dataset.shared(index) else { continue };
        for (v, out) in pixels.iter_mut().enumerate() {
            let view = &views[v % views.len().max(1)];
            // A seed of its own, so that the look does not depend on the run's seed.
            let mut stream = Stream::keyed(0, &[u64::MAX, index as u64, v as u64]);
            let start = out.len();
            out.resize(start + size * size * channels, 0f32);
            image.random_view(view, &mut stream).normalize_into(&view.mean, &view.std, &mut out[start..]);
        }
        n += 1;
    }
    if n == 0 {
        bail!("there is no image to make two views of")
    }
    let embed = |pixels: Vec<f32>| {
        let x = Tensor::from_vec(pixels, (n, size, size, channels), &Device::Cpu)?;
        forward(backbone, &x)?.to_device(&Device::Cpu).map_err(anyhow::Error::from)
    };
    let [first, second] = pixels;
    Ok((embed(first)?, embed(second)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, MeanColor};

    /// Rows are views of one image: their colors are closer than those of different images, and each call gives the same.
    #[test]
    fn rows_are_of_one_image() -> Result<()> {
        let recipe = Recipe::simclr_cifar(8);
        let dataset = Colors::new(1100, 3);
        let (a, b) = two_views(&MeanColor, &dataset, &recipe)?;
        assert_eq!((a.dims(), b.dims()), ([512, 3].as_slice(), [512, 3].as_slice()));
        let (again, _) = two_views(&MeanColor, &dataset, &recipe)?;
        assert_eq!(a.to_vec2::<f32>()?, again.to_vec2::<f32>()?);
        let turned = Tensor::cat(&[b.narrow(0, 200, 312)?, b.narrow(0, 0, 200)?], 0)?;
        let (own, other) = (diptych_metrics::alignment(&a, &b)?, diptych_metrics::alignment(&a, &turned)?);
        assert!(own < 0.8 * other, "{own} {other}");
        assert!(two_views(&MeanColor, &Colors::new(0, 1), &recipe).is_err());
        Ok(())
    }
}
