//! Hue shift through Pillow's 8-bit HSV.
//!
//! Pillow's conversions (after Python's `colorsys`) are followed to the last bit, with its mix of f32 and f64: the hue has
//! only 255 steps, one of which moves a channel by up to 6, so an "almost equal" conversion would not be almost equal.
//! The way there and back loses a little, also with a shift of zero steps.
//!
//! But they need not be repeated: one can see through them. With max - min = range and the middle one of the three values at max - num, the hue is
//! floor((85 k ± 85 num / range) / 2), where k and the sign depend on which channel is which; the saturation is floor(255 range / max); and what a
//! channel becomes is value - value * s * f / 21675, rounded, where s is the saturation and f the distance, in 85ths, from a corner of the circle.
//! All of these are fractions of small integers, in which f32 does not err. The roundings of Pillow's floats decide only where
//! (85 k ± 85 num / range) / 2 is a whole number: for some of these ([`DOWN`]) its float is a little less, so that truncating takes one off; everything else is
//! far enough from a border. The tests hold this to Pillow's own arithmetic for every color there is.

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

/// 255, which is -1 in bytes, for every hue that Pillow's floats come to from below; else 0.
pub(crate) const DOWN: [u8; 256] = {
    const FROM_BELOW: [u8; 33] = [
        88, 92, 96, 100, 104, 129, 131, 133, 135, 137, 139, 141, 143, 145, 147, 149, 153, 157, 161, 165, 169, 173, 176,
        177, 181, 184, 185, 189, 193, 197, 201, 205, 209,
    ];
    let mut table = [0; 256];
    let mut hue = 1;
    while hue < 32 {
        table[hue] = 255;
        hue += 1;
    }
    let mut i = 0;
    while i < FROM_BELOW.len() {
        table[FROM_BELOW[i] as usize] = 255;
        i += 1;
    }
    table
};

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
            turn_block(&mut channels, shift as u8);
            for (i, pixel) in block.iter_mut().enumerate() {
                *pixel = [channels[0][i], channels[1][i], channels[2][i]];
            }
        }
    }
}

/// To HSV, on by `shift` steps of hue, and back. Three loops, since one step between is a table's.
#[inline(always)]
fn turn_block([r, g, b]: &mut [[u8; BLOCK]; 3], shift: u8) {
    let mut hues = [0u8; BLOCK];
    let mut whole = [0u8; BLOCK];
    let mut saturations = [0f32; BLOCK];
    let mut values = [0f32; BLOCK];
    for i in 0..BLOCK {
        let [r, g, b] = [f32::from(r[i]), f32::from(g[i]), f32::from(b[i])];
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let range = max - min;
        // Of the three distances to the maximum, one is zero and one is the whole range, so one division is left.
        let num = max - (r + g + b - max - min);
        let (part, exact) = floor_of(85.0 * num, if range > 0.0 { range } else { 1.0 });
        let part = if exact { -part } else { -part - 1.0 };
        // Backwards it is minus the part, rounded down; forwards the part, rounded down.
        let forwards = if exact { -part } else { -part - 1.0 };
        let by_red = if b == min { 85.0 + part } else { 425.0 + forwards };
        let by_green = if b == min { 85.0 + forwards } else { 255.0 + part };
        let by_blue = if r == min { 255.0 + forwards } else { 425.0 + part };
        let by_others = if g == max { by_green } else { by_blue };
        let twice = if r == max { by_red } else { by_others };
        // Less a quarter, a half goes down and a whole number stays.
        let hue = nearest(twice * 0.5 - 0.25);
        hues[i] = byte(hue);
        whole[i] = if exact && hue + hue == twice { 255 } else { 0 };
        (saturations[i], _) = floor_of(255.0 * range, if max > 0.0 { max } else { 1.0 });
        values[i] = max;
    }
    for (hue, whole) in hues.iter_mut().zip(whole) {
        *hue = hue.wrapping_add(DOWN[usize::from(*hue)] & whole).wrapping_add(shift);
    }
    for i in 0..BLOCK {
        let (hue, s, value) = (f32::from(hues[i]), saturations[i], values[i]);
        // The distance from the corner that lies in an even sextant and the next odd one.
        let corner = if hue < 85.0 {
            85.0
        } else if hue < 170.0 {
            255.0
        } else {
            425.0
        };
        let distance = (hue + hue - corner).abs();
        let faded = |distance: f32| nearest((value * 21675.0 - s * value * distance) * (1.0 / 21675.0));
        let (p, x) = (faded(85.0), faded(distance));
        let from = |border: f32, above: f32, below: f32| if hue >= border { above } else { below };
        r[i] = byte(from(213.0, value, from(170.0, x, from(85.0, p, from(43.0, x, value)))));
        g[i] = byte(from(170.0, p, from(128.0, x, from(43.0, value, x))));
        b[i] = byte(from(213.0, x, from(128.0, value, from(85.0, x, p))));
    }
}

/// The whole part of `n / d`, and whether it is all; both are integers, `n` below 2^16 and `d` from 1 to 255.
#[inline(always)]
fn floor_of(n: f32, d: f32) -> (f32, bool) {
    let quotient = nearest(n / d);
    let rest = n - quotient * d;
    (quotient - if rest < 0.0 { 1.0 } else { 0.0 }, rest == 0.0)
}

/// The nearest integer of a number of a moderate size: adding [`WHOLE`] leaves no room for more.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    (x + WHOLE) - WHOLE
}

/// 1.5 * 2^23.
const WHOLE: f32 = 12_582_912.0;

/// An integer from 0 to 255 as a byte; a cast would ask what it does with others.
#[inline(always)]
fn byte(x: f32) -> u8 {
    (x + WHOLE).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow's arithmetic: one pixel to HSV, on by `shift` steps of hue, and back.
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

    /// Every instruction set gives the bytes of Pillow's arithmetic, for every color there is.
    #[test]
    fn all_paths_give_the_same_bytes() {
        let colors = |red: usize| (0..1 << 16).flat_map(move |i| [red as u8, (i >> 8) as u8, i as u8]);
        for red in 0..256 {
            let shift = [1, -51, 97][red % 3];
            let mut expected: Vec<u8> = colors(red).collect();
            expected.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = turn(*pixel, shift));
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
                expected.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = turn(*pixel, shift));
                for isa in Isa::available() {
                    let mut got = noise.clone();
                    turn_on(isa, &mut got, shift);
                    assert!(got == expected, "{isa:?}, {pixels} pixels, {shift} steps");
                }
            }
        }
    }
}
