//! One operation a file, each on 8-bit RGB with the meaning it has in torchvision on Pillow images.

mod blend;
mod blur;
mod crop;
mod flip;
mod grayscale;
mod hue;
mod normalize;
mod resize;
mod solarize;

pub use blend::{brightness, contrast, saturation};
pub use blur::{BoxFilter, gaussian_blur};
pub use crop::{CropBox, center_crop, center_view};
pub use flip::flip;
pub use grayscale::grayscale;
pub(crate) use grayscale::luma;
pub use hue::hue;
pub use normalize::normalize_into;
pub(crate) use resize::{PRECISION, Weights, resample};
pub use resize::{resize, resized_crop};
pub use solarize::solarize;

use crate::image::Image;

/// Replaces every value `v` by `table[v]`.
fn look_up(image: &mut Image, table: &[u8; 256]) {
    for v in &mut image.pixels {
        *v = table[usize::from(*v)];
    }
}
