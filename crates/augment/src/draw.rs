//! The random numbers of a view, drawn before anything is done to a pixel.
//!
//! Every view takes the same numbers from its stream in the same order, whatever the recipe says and however often the crop
//! had to be tried: 10 pairs (area, ratio), row, column, flip, jitter, brightness, contrast, saturation, hue, order,
//! grayscale, blur, sigma, solarize. So switching the blur off, or cropping another image, changes nothing else.

use diptych_random::Stream;

use crate::ops::CropBox;
use crate::recipe::{Interpolation, ViewRecipe};

/// One of the four operations of the color jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JitterOp {
    /// See [`crate::ops::brightness`].
    Brightness,
    /// See [`crate::ops::contrast`].
    Contrast,
    /// See [`crate::ops::saturation`].
    Saturation,
    /// See [`crate::ops::hue`].
    Hue,
}

/// A drawn color jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Which comes first, second, third, fourth.
    pub order: [JitterOp; 4],
    /// Factor; 1 changes nothing.
    pub brightness: f32,
    /// Factor; 1 changes nothing.
    pub contrast: f32,
    /// Factor; 1 changes nothing.
    pub saturation: f32,
    /// Shift in turns; 0 changes nothing.
    pub hue: f64,
}

/// All that is random about one view; applied by [`crate::apply`] in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewParams {
    /// The part of the image that is kept.
    pub crop: CropBox,
    /// Side of the view, to which the crop is resized.
    pub size: usize,
    /// How it is resized.
    pub interpolation: Interpolation,
    /// Whether the view is mirrored.
    pub flip: bool,
    /// The color jitter, where there is one.
    pub jitter: Option<Jitter>,
    /// Whether the color is dropped.
    pub grayscale: bool,
    /// Standard deviation of the blur in pixels, where there is one.
    pub blur: Option<f32>,
    /// Threshold of the solarization, where there is one.
    pub solarize: Option<u8>,
}

impl ViewParams {
    /// Draws the parameters of one view of a picture of `width` x `height`.
    pub fn draw(recipe: &ViewRecipe, width: usize, height: usize, stream: &mut Stream) -> Self {
        let crop = draw_crop(recipe, width, height, stream);
        let flip = stream.bernoulli(recipe.flip);
        let jitter = draw_jitter(recipe, stream);
        let grayscale = stream.bernoulli(recipe.grayscale);
        let blur = stream.bernoulli(recipe.blur);
        let sigma = stream.range(recipe.blur_sigma[0], recipe.blur_sigma[1]) as f32;
        let solarize = stream.bernoulli(recipe.solarize);
        Self {
            crop,
            size: recipe.size,
            interpolation: recipe.interpolation,
            flip,
            jitter,
            grayscale,
            blur: blur.then_some(sigma),
            solarize: solarize.then_some(recipe.solarize_threshold),
        }
    }
}

/// How often torchvision's `RandomResizedCrop` tries to place a crop.
const TRIES: usize = 10;

/// torchvision's `RandomResizedCrop.get_params`: the first of 10 boxes that fits, else the middle of the picture.
fn draw_crop(recipe: &ViewRecipe, width: usize, height: usize, stream: &mut Stream) -> CropBox {
    let area = width as f64 * height as f64;
    let [low, high] = recipe.crop_ratio.map(f64::ln);
    let mut found = None;
    for _ in 0..TRIES {
        let share = stream.range(recipe.crop_scale[0], recipe.crop_scale[1]);
        let log_ratio = stream.range(low, high);
        if found.is_none() {
            let ratio = log_ratio.exp();
            let w = (area * share * ratio).sqrt().round_ties_even() as usize;
            let h = (area * share / ratio).sqrt().round_ties_even() as usize;
            found = ((1..=width).contains(&w) && (1..=height).contains(&h)).then_some((w, h));
        }
    }
    let (w, h) = found.unwrap_or((width, height));
    let y = stream.below((height - h + 1) as u64) as usize;
    let x = stream.below((width - w + 1) as u64) as usize;
    match found {
        Some(_) => CropBox { x, y, width: w, height: h },
        None => middle(recipe.crop_ratio, width, height),
    }
}

/// The largest box in the middle of the picture whose ratio is allowed.
fn middle([low, high]: [f64; 2], width: usize, height: usize) -> CropBox {
    let ratio = width as f64 / height as f64;
    let (w, h) = if ratio < low {
        (width, ((width as f64 / low).round_ties_even() as usize).clamp(1, height))
    } else if ratio > high {
        (((height as f64 * high).round_ties_even() as usize).clamp(1, width), height)
    } else {
        (width, height)
    };
    CropBox { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
}

/// torchvision's `ColorJitter.get_params`, under the probability of `RandomApply`.
fn draw_jitter(recipe: &ViewRecipe, stream: &mut Stream) -> Option<Jitter> {
    let applied = stream.bernoulli(recipe.jitter);
    let mut factor = |x: f64| stream.range((1.0 - x).max(0.0), 1.0 + x) as f32;
    let (brightness, contrast, saturation) =
        (factor(recipe.brightness), factor(recipe.contrast), factor(recipe.saturation));
    let hue = stream.range(-recipe.hue, recipe.hue);
    let order = order(stream.below(24) as usize);
    applied.then_some(Jitter { order, brightness, contrast, saturation, hue })
}

/// The `k`-th of the 24 orders.
fn order(k: usize) -> [JitterOp; 4] {
    let mut ops = [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue];
    ops.swap(0, k % 4);
    ops.swap(1, 1 + k / 4 % 3);
    ops.swap(2, 2 + k / 12 % 2);
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn draws(recipe: &ViewRecipe, width: usize, height: usize, n: u64) -> Vec<ViewParams> {
        (0..n).map(|i| ViewParams::draw(recipe, width, height, &mut Stream::keyed(5, &[i]))).collect()
    }

    #[test]
    fn switching_one_operation_off_changes_nothing_else() {
        let recipe = &Recipe::byol(32).views()[1];
        let off = ViewRecipe { jitter: 0.0, blur: 0.0, hue: 0.0, ..recipe.clone() };
        for (a, b) in draws(recipe, 64, 48, 50).into_iter().zip(draws(&off, 64, 48, 50)) {
            assert_eq!(ViewParams { jitter: None, blur: None, ..a }, b);
        }
    }

    #[test]
    fn the_image_changes_the_crop_alone() {
        let recipe = Recipe::simclr(32).shared();
        for (a, b) in draws(&recipe, 64, 48, 50).into_iter().zip(draws(&recipe, 5, 500, 50)) {
            assert_eq!(ViewParams { crop: a.crop, ..b }, a);
        }
    }

    #[test]
    fn crops_lie_in_the_picture() {
        let recipe = Recipe::simclr(32).shared();
        for (width, height) in [(1, 1), (1, 9), (64, 48), (3, 700)] {
            for p in draws(&recipe, width, height, 300) {
                let CropBox { x, y, width: w, height: h } = p.crop;
                assert!(w >= 1 && h >= 1 && x + w <= width && y + h <= height, "{:?} of {width}x{height}", p.crop);
            }
        }
    }

    /// Values: torchvision's `RandomResizedCrop.get_params` on pictures in which no try can fit.
    #[test]
    fn the_middle_is_taken_where_no_try_fits() {
        let recipe = Recipe::simclr(32).shared();
        let full = ViewRecipe { crop_scale: [1.0, 1.0], ..recipe };
        for p in draws(&full, 100, 20, 20) {
            assert_eq!(p.crop, CropBox { x: 36, y: 0, width: 27, height: 20 });
        }
        for p in draws(&full, 20, 100, 20) {
            assert_eq!(p.crop, CropBox { x: 0, y: 36, width: 20, height: 27 });
        }
    }

    #[test]
    fn all_24_orders_differ() {
        let mut seen: Vec<String> = (0..24).map(|k| format!("{:?}", order(k))).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 24);
    }
}
