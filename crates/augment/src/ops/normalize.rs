//! From bytes to the numbers a network takes.

use crate::image::Image;

/// Writes `(x / 255 - mean) / std` of every channel to `out`, `[height, width, 3]` f32.
///
/// Where `out` is shorter or longer than the picture, the overlap is written.
pub fn normalize_into(image: &Image, mean: &[f32; 3], std: &[f32; 3], out: &mut [f32]) {
    // The division first, as torchvision: x / 255 is rounded before the mean is subtracted.
    let (to, _) = out.as_chunks_mut::<3>();
    let (from, _) = image.pixels.as_chunks::<3>();
    for (to, from) in to.iter_mut().zip(from) {
        for c in 0..3 {
            to[c] = (f32::from(from[c]) / 255.0 - mean[c]) / std[c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_scaled_each_by_its_own() {
        let image = Image { width: 1, height: 2, pixels: vec![0, 51, 255, 255, 102, 0] };
        let mut out = [9.0; 7];
        normalize_into(&image, &[0.5, 0.2, 0.0], &[0.5, 0.1, 2.0], &mut out);
        for (got, expected) in out.iter().zip([-1.0, 0.0, 0.5, 1.0, 2.0, 0.0, 9.0]) {
            assert!((got - expected).abs() < 1e-6, "{out:?}");
        }
    }
}
