//! Solarizing: the bright values are inverted, as a photograph overexposed during development.

use super::look_up;
use crate::image::Image;
use crate::simd::Isa;

/// Inverts every value from `threshold` up: v becomes 255 - v (Pillow's `ImageOps.solarize`).
pub fn solarize(image: &mut Image, threshold: u8) {
    let table = std::array::from_fn(|v| if v < usize::from(threshold) { v as u8 } else { 255 - v as u8 });
    look_up(Isa::detect(), image, &table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_the_threshold_up_are_inverted() {
        let mut image = Image { width: 2, height: 1, pixels: vec![0, 127, 128, 200, 255, 1] };
        solarize(&mut image, 128);
        assert_eq!(image.pixels, [0, 127, 127, 55, 0, 1]);
        solarize(&mut image, 0);
        assert_eq!(image.pixels, [255, 128, 128, 200, 255, 254]);
    }
}
