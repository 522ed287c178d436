#![doc = include_str!("../README.md")]

mod channels;
mod check;
mod draw;
mod filter;
mod image;
pub mod ops;
mod picture;
mod presets;
mod raster;
mod recipe;
mod simd;

pub use channels::PerChannel;
pub use check::RecipeError;
pub use diptych_random::Stream;
pub use draw::{Jitter, JitterOp, ViewParams};
pub use image::{Image, ImageError, grid};
pub use ops::{CropBox, center_view, normalize_into};
pub use picture::Picture;
pub use presets::{IMAGENET_MEAN, IMAGENET_STD};
pub use raster::{Depth, MAX_CHANNELS, PixelFormat, Raster, RasterError, Samples, apply_raster};
pub use recipe::{Interpolation, Recipe, ViewOverrides, ViewRecipe};

/// One random view of `image`: a picture of `recipe.size` x `recipe.size`, not yet normalized.
///
/// The same stream gives the same bytes, on every machine.
pub fn view(image: &Image, recipe: &ViewRecipe, stream: &mut Stream) -> Image {
    apply(image, &ViewParams::draw(recipe, image.width, image.height, stream))
}

/// The view of `image` that the drawn parameters say.
///
/// Crop and resize, flip, color jitter, grayscale, blur, solarize: the order of the official codes.
pub fn apply(image: &Image, params: &ViewParams) -> Image {
    let ViewParams { crop, size, interpolation, flip, .. } = *params;
    let mut out = ops::resample(simd::Isa::detect(), image, crop, [size; 2], interpolation, flip);
    if let Some(jitter) = params.jitter {
        for op in jitter.order {
            match op {
                JitterOp::Brightness => ops::brightness(&mut out, jitter.brightness),
                JitterOp::Contrast => ops::contrast(&mut out, jitter.contrast),
                JitterOp::Saturation => ops::saturation(&mut out, jitter.saturation),
                JitterOp::Hue => ops::hue(&mut out, jitter.hue),
            }
        }
    }
    if params.grayscale {
        ops::grayscale(&mut out);
    }
    if let Some(sigma) = params.blur {
        ops::gaussian_blur(&mut out, sigma);
    }
    if let Some(threshold) = params.solarize {
        ops::solarize(&mut out, threshold);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Image {
        let pixels = (0..64 * 48).flat_map(|i| {
            let (x, y) = (i % 64, i / 64);
            [(x * 4) as u8, (y * 5) as u8, if x * x + y * y < 900 { 250 } else { (x ^ y) as u8 }]
        });
        Image::new(64, 48, pixels.collect()).unwrap()
    }

    fn views_of(recipe: &Recipe, key: u64) -> Vec<Image> {
        let view = |(v, r)| view(&scene(), r, &mut Stream::keyed(7, &[key, v as u64]));
        recipe.views().iter().enumerate().map(view).collect()
    }

    #[test]
    fn the_same_key_gives_the_same_bytes_and_another_gives_others() {
        let recipe = Recipe::byol(32);
        for key in 0..20 {
            let views = views_of(&recipe, key);
            assert_eq!(views, views_of(&recipe, key));
            assert_ne!(views[0], views[1]);
            assert_ne!(views[0], views_of(&recipe, key + 1)[0]);
        }
    }

    /// A change of these numbers would change every seeded run: it needs a new major version.
    #[test]
    fn views_are_frozen() {
        let bytes: Vec<u8> = (0..40).flat_map(|key| views_of(&Recipe::byol(32), key)).flat_map(|v| v.pixels).collect();
        assert_eq!(diptych_random::hash(&bytes), 5_434_600_197_487_098_975);
    }

    #[test]
    fn any_picture_gives_views_of_the_size_asked_for() {
        for (width, height) in [(1, 1), (1, 40), (3, 2), (200, 5)] {
            let image = Image::filled(width, height, [9, 200, 77]);
            for size in [1, 2, 33] {
                for key in 0..30 {
                    let recipe = &Recipe::byol(size).views()[1];
                    let out = view(&image, recipe, &mut Stream::keyed(1, &[key]));
                    assert_eq!((out.width, out.height, out.pixels.len()), (size, size, size * size * 3));
                }
            }
        }
    }

    #[test]
    fn a_recipe_with_everything_off_is_the_resized_crop() {
        let recipe = ViewRecipe { flip: 0.0, jitter: 0.0, grayscale: 0.0, blur: 0.0, ..Recipe::simclr(20).shared() };
        for key in 0..10 {
            let drawn = ViewParams::draw(&recipe, 64, 48, &mut Stream::keyed(2, &[key]));
            let expected = ops::resized_crop(&scene(), drawn.crop, 20, 20, Interpolation::Bicubic);
            assert_eq!(view(&scene(), &recipe, &mut Stream::keyed(2, &[key])), expected);
        }
    }

    #[test]
    fn a_gray_view_has_equal_channels() {
        let recipe = ViewRecipe { grayscale: 1.0, solarize: 0.5, ..Recipe::simclr(24).shared() };
        for key in 0..20 {
            let out = view(&scene(), &recipe, &mut Stream::keyed(3, &[key]));
            assert!(out.pixels.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        }
    }
}
