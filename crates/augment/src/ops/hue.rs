//! Hue shift through Pillow's 8-bit HSV.
//!
//! Pillow's conversions (after Python's `colorsys`) are followed to the last bit, with its mix of f32 and f64: the hue has
//! only 255 steps, one of which moves a channel by up to 6, so an "almost equal" conversion would not be almost equal.
//! The way there and back loses a little, also with a shift of zero steps.

use crate::image::Image;
use crate::simd::{Isa, vectorized};

/// Turns the hue by `factor` turns, in [-0.5, 0.5] (torchvision's `adjust_hue`). Exactly zero leaves the picture alone.
pub fn hue(image: &mut Image, factor: f64) {
    if factor != 0.0 {
        turn_on(Isa::detect(), &mut image.pixels, (factor * 255.0) as i32);
    }
}

fn turn_on(isa: Isa, pixels: &mut [u8], shift: i32) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::turn_hue(isa, pixels, shift) {
        return;
    }
    turn_all(isa, pixels, shift);
}

/// Pixels per block: taken apart into channels, turned without a branch, and put together again.
const BLOCK: usize = 64;

vectorized! {
    fn turn_all(isa: Isa, pixels: &mut [u8], shift: i32) {
        let (pixels, _) = pixels.as_chunks_mut::<3>();
        let mut channels = [[0u8; BLOCK]; 3];
        for block in pixels.chunks_mut(BLOCK) {
            for (i, pixel) in block.iter().enumerate() {
                for c in 0..3 {
                    channels[c][i] = pixel[c];
                }
            }
            let [r, g, b] = &mut channels;
            for i in 0..BLOCK {
                [r[i], g[i], b[i]] = turn([r[i], g[i], b[i]], shift);
            }
            for (i, pixel) in block.iter_mut().enumerate() {
                *pixel = [channels[0][i], channels[1][i], channels[2][i]];
            }
        }
    }
}

/// One pixel to HSV, on by `shift` steps of hue, and back; only selections, so that it runs over many at once.
#[inline(always)]
fn turn(rgb: [u8; 3], shift: i32) -> [u8; 3] {
    let [r, g, b] = rgb.map(i32::from);
    let max = r.max(g).max(b);
    let min = r.min(g).min(b);
    // To HSV. Of the three distances to the maximum, one is zero and one is the whole range, so one division is left.
    let range = (max - min).max(1) as f32;
    let middle = (max - (r + g + b - max - min)) as f32 / range;
    let h = if r == max {
        if b == min { 1.0 - middle } else { middle - 1.0 }
    } else if g == max {
        if b == min { 1.0 + middle } else { 3.0 - middle }
    } else if r == min {
        3.0 + middle
    } else {
        5.0 - middle
    };
    let turns = f64::from(h) / 6.0 + 1.0;
    let turns = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    let h = ((f64::from(turns) * 255.0) as i32 + shift) & 255;
    let s = (f64::from((max - min) as f32 / max.max(1) as f32) * 255.0) as i32;
    // And back; the hue is in sextants of the circle, the last of which is number 6 and means 0.
    let sextant = h * 6 / 255;
    let f = (f64::from(h * 6) / 255.0 - f64::from(sextant)) as f32;
    let s = (f64::from(s) / 255.0) as f32;
    let value = f64::from(max);
    let p = round(value * (1.0 - f64::from(s)));
    let q = round(value * (1.0 - f64::from(s * f)));
    let t = round(value * (1.0 - f64::from(s) * (1.0 - f64::from(f))));
    let choose = |at: [i32; 6]| {
        let mut chosen = at[0];
        for (k, &candidate) in at.iter().enumerate().skip(1) {
            chosen = if sextant == k as i32 { candidate } else { chosen };
        }
        chosen as u8
    };
    // Without saturation p, q and t are all the value itself: gray needs no case of its own.
    [choose([max, q, p, p, t, max]), choose([t, max, max, q, p, p]), choose([p, p, t, max, max, q])]
}

/// Half up; the numbers are in [0, 255].
#[inline(always)]
fn round(x: f64) -> i32 {
    (x + 0.5) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(pixels: [u8; 3], factor: f64) -> Vec<u8> {
        let mut image = Image { width: 1, height: 1, pixels: pixels.to_vec() };
        hue(&mut image, factor);
        image.pixels
    }

    #[test]
    fn the_primaries_go_round_the_circle() {
        assert_eq!(turned([255, 0, 0], 1.0 / 3.0), [0, 255, 0]);
        assert_eq!(turned([0, 255, 0], 1.0 / 3.0), [0, 0, 255]);
        // The hue wraps after 256 steps though a turn has 255: backwards past zero, one step is missing.
        assert_eq!(turned([255, 0, 0], -1.0 / 3.0), [6, 0, 255]);
    }

    #[test]
    fn gray_and_a_zero_shift_stay_as_they_are() {
        assert_eq!(turned([77, 77, 77], 0.3), [77, 77, 77]);
        assert_eq!(turned([12, 250, 99], 0.0), [12, 250, 99]);
    }

    /// Every instruction set gives the portable path's bytes, for every color there is.
    #[test]
    fn all_paths_give_the_same_bytes() {
        let colors = |red: usize| (0..1 << 16).flat_map(move |i| [red as u8, (i >> 8) as u8, i as u8]);
        for red in 0..256 {
            let shift = [1, -51, 97][red % 3];
            let mut expected: Vec<u8> = colors(red).collect();
            turn_all(Isa::portable(), &mut expected, shift);
            for isa in Isa::available() {
                let mut got: Vec<u8> = colors(red).collect();
                turn_on(isa, &mut got, shift);
                assert!(got == expected, "{isa:?}, red {red}, {shift} steps");
            }
        }
        for pixels in 1..200 {
            let noise: Vec<u8> = (0..pixels * 3).map(|i| (i * i * 31 % 251) as u8).collect();
            for shift in -128..128 {
                let mut expected = noise.clone();
                turn_all(Isa::portable(), &mut expected, shift);
                for isa in Isa::available() {
                    let mut got = noise.clone();
                    turn_on(isa, &mut got, shift);
                    assert!(got == expected, "{isa:?}, {pixels} pixels, {shift} steps");
                }
            }
        }
    }
}
