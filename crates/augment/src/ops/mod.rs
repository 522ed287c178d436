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
#[cfg(target_arch = "x86_64")]
pub(crate) use hue::DOWN;
pub use hue::hue;
pub(crate) use normalize::normalize_places;
pub(crate) use normalize::normalized;
pub use normalize::{normalize_into, normalize_onto};
pub(crate) use resize::{PRECISION, Weights, resample};
pub use resize::{resize, resized_crop};
pub use solarize::solarize;

use crate::image::Image;
use crate::simd::Isa;

/// Replaces every value `v` by `table[v]`.
fn look_up(isa: Isa, image: &mut Image, table: &[u8; 256]) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::map(isa, &mut image.pixels, table) {
        return;
    }
    let _ = isa;
    for v in &mut image.pixels {
        *v = table[usize::from(*v)];
    }
}

/// Holds `op` on every instruction set to the portable path's bytes, on noise of many sizes.
#[cfg(test)]
fn same_on_every_path(what: &str, op: &dyn Fn(Isa, &mut Image)) {
    let mut draws = crate::Stream::keyed(22, &[]);
    let mut below = |n: u64| draws.below(n) as usize;
    for case in 0..250 {
        let most = [4, 20, 70][case % 3];
        let (width, height) = (1 + below(most), 1 + below(most));
        let image = Image { width, height, pixels: (0..width * height * 3).map(|_| below(256) as u8).collect() };
        let on = |isa| {
            let mut image = image.clone();
            op(isa, &mut image);
            image
        };
        let expected = on(Isa::portable());
        for isa in Isa::available() {
            assert!(on(isa) == expected, "{what} on {isa:?}, {width}x{height}");
        }
    }
}
