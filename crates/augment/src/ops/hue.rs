//! Hue shift through Pillow's 8-bit HSV.
//!
//! Pillow's conversions (after Python's `colorsys`) are followed to the last bit, with its mix of f32 and f64: the hue has
//! only 255 steps, one of which moves a channel by up to 6, so an "almost equal" conversion would not be almost equal.
//! The way there and back loses a little, also with a shift of zero steps.

use crate::image::Image;

/// Turns the hue by `factor` turns, in [-0.5, 0.5] (torchvision's `adjust_hue`). Exactly zero leaves the picture alone.
pub fn hue(image: &mut Image, factor: f64) {
    if factor == 0.0 {
        return;
    }
    let sextants = sextants((factor * 255.0) as i32 as u8);
    let (pixels, _) = image.pixels.as_chunks_mut::<3>();
    for pixel in pixels {
        *pixel = turn(*pixel, &sextants);
    }
}

/// Where a shifted hue lies: the sextant of the color circle (0 to 5) and how far into it.
type Sextants = [(u8, f32); 256];

/// The table over hues before the shift.
fn sextants(shift: u8) -> Sextants {
    std::array::from_fn(|h| {
        let h = f64::from((h as u8).wrapping_add(shift)) * 6.0 / 255.0;
        let sextant = h.floor();
        ((sextant as u8) % 6, (h - sextant) as f32)
    })
}

#[inline(always)]
fn turn([r, g, b]: [u8; 3], sextants: &Sextants) -> [u8; 3] {
    let v = r.max(g).max(b);
    let range = v - r.min(g).min(b);
    if range == 0 {
        return [v; 3];
    }
    // To HSV.
    let chroma = f32::from(range);
    let s = (f64::from(chroma / f32::from(v)) * 255.0) as u8;
    let [rc, gc, bc] = [r, g, b].map(|c| f32::from(v - c) / chroma);
    let h = if r == v {
        bc - gc
    } else if g == v {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let turns = f64::from(h) / 6.0 + 1.0;
    let turns = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    // And back.
    if s == 0 {
        return [v; 3];
    }
    let (sextant, f) = sextants[usize::from((f64::from(turns) * 255.0) as u8)];
    let s = (f64::from(s) / 255.0) as f32;
    let value = f64::from(v);
    let p = round(value * (1.0 - f64::from(s)));
    let q = round(value * (1.0 - f64::from(s * f)));
    let t = round(value * (1.0 - f64::from(s) * (1.0 - f64::from(f))));
    match sextant {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// Half up; the numbers are in [0, 255].
#[inline(always)]
fn round(x: f64) -> u8 {
    (x + 0.5) as u8
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
}
