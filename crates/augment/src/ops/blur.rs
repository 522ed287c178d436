//! Gaussian blur as Pillow's `ImageFilter.GaussianBlur(radius)`, which the official codes of MoCo, SimSiam and Barlow Twins
//! use: three passes of an extended box filter per direction (Gwosdek et al., SSVM 2011), in 8-bit steps.
//!
//! A pass is `(near * sum of 2r + 1 values + far * the two next to those) / 2^24`, rounded; beyond the border the border's
//! value is repeated. All rows go through their three passes first, then all columns.

use crate::image::Image;
use crate::simd::{Isa, vectorized};

const PASSES: usize = 3;

/// Blurs with a standard deviation of `sigma` pixels. Zero (or less) leaves the picture alone.
pub fn gaussian_blur(image: &mut Image, sigma: f32) {
    if sigma > 0.0 {
        blur_on(Isa::detect(), image, &BoxFilter::of_sigma(sigma));
    }
}

/// What [`gaussian_blur`] passes over a picture: a box of 2 `radius` + 1 values, and a fraction of the next value at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxFilter {
    /// Values on each side of the middle one.
    pub radius: usize,
    /// Weight of a value in the box, in 2^-24.
    pub near: u32,
    /// Weight of the two values beside the box, in 2^-24.
    pub far: u32,
}

impl BoxFilter {
    /// The filter whose three passes have a standard deviation of `sigma` pixels, above 0: equations 7, 11 and 14 of the paper, in Pillow's mix
    /// of f32 and f64.
    pub fn of_sigma(sigma: f32) -> Self {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
            / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        let size = whole + part;
        let radius = size as usize;
        let near = (16_777_216.0 / (size * 2.0 + 1.0)) as u32;
        let far = ((1 << 24) - (radius as u32 * 2 + 1) * near) / 2;
        Self { radius, near, far }
    }

    #[inline(always)]
    fn mix(&self, near: u32, far: u32) -> u8 {
        ((near * self.near + far * self.far + (1 << 23)) >> 24) as u8
    }
}

fn blur_on(isa: Isa, image: &mut Image, filter: &BoxFilter) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::avx512::blur(isa, &mut image.pixels, image.width * 3, filter) {
        return;
    }
    blur(isa, image, filter);
}

vectorized! {
    fn blur(isa: Isa, image: &mut Image, filter: &BoxFilter) {
        // The radii of sigma up to 2 (all published recipes) have loops of their own, without a running sum.
        match filter.radius {
            0 => {
                rows(image, filter, three);
                columns(image, filter, stack::<3>);
            }
            1 => {
                rows(image, filter, taps::<5>);
                columns(image, filter, stack::<5>);
            }
            _ => {
                rows(image, filter, slide);
                columns_sliding(image, filter);
            }
        }
    }
}

/// The passes along the rows. `pass(line, row, filter)`: `line` is the row with radius + 1 repeated pixels at both ends.
#[inline(always)]
fn rows(image: &mut Image, filter: &BoxFilter, pass: impl Fn(&[u8], &mut [u8], &BoxFilter)) {
    let margin = (filter.radius + 1) * 3;
    let length = image.width * 3;
    let mut line = vec![0; length + 2 * margin];
    for row in image.pixels.chunks_exact_mut(length) {
        for _ in 0..PASSES {
            line[margin..margin + length].copy_from_slice(row);
            let (first, last) = ([row[0], row[1], row[2]], [row[length - 3], row[length - 2], row[length - 1]]);
            line[..margin].as_chunks_mut().0.fill(first);
            line[margin + length..].as_chunks_mut().0.fill(last);
            pass(&line, row, filter);
        }
    }
}

/// Radius 0: the values before and after.
#[inline(always)]
fn three(line: &[u8], row: &mut [u8], filter: &BoxFilter) {
    let line = &line[..row.len() + 6];
    for (i, out) in row.iter_mut().enumerate() {
        *out = filter.mix(u32::from(line[i + 3]), u32::from(line[i]) + u32::from(line[i + 6]));
    }
}

/// A row is mixed with itself, moved by one pixel after the other. `L` is 2 (radius + 1) + 1.
#[inline(always)]
fn taps<const L: usize>(line: &[u8], row: &mut [u8], filter: &BoxFilter) {
    stack::<L>(&std::array::from_fn(|k| &line[3 * k..]), row, filter);
}

/// The same for any radius: a running sum per channel.
#[inline(always)]
fn slide(line: &[u8], row: &mut [u8], filter: &BoxFilter) {
    let reach = 2 * filter.radius + 1;
    for c in 0..3 {
        let at = |x: usize| u32::from(line[3 * x + c]);
        let mut near: u32 = (0..reach).map(at).sum();
        for x in 0..row.len() / 3 {
            near += at(x + reach);
            near -= at(x);
            row[3 * x + c] = filter.mix(near, at(x) + at(x + reach + 1));
        }
    }
}

/// The passes along the columns, all columns of a row at once. `pass(lines, row, filter)`: `lines` are the
/// 2 (radius + 1) + 1 rows around the one written.
#[inline(always)]
fn columns<const L: usize>(image: &mut Image, filter: &BoxFilter, pass: impl Fn(&[&[u8]; L], &mut [u8], &BoxFilter)) {
    let length = image.width * 3;
    let last = image.height - 1;
    let mut source = vec![0; image.pixels.len()];
    for _ in 0..PASSES {
        std::mem::swap(&mut source, &mut image.pixels);
        for (y, row) in image.pixels.chunks_exact_mut(length).enumerate() {
            let lines: [&[u8]; L] = std::array::from_fn(|k| {
                let y = (y + k).saturating_sub(L / 2).min(last);
                &source[y * length..(y + 1) * length]
            });
            pass(&lines, row, filter);
        }
    }
}

#[inline(always)]
fn stack<const L: usize>(lines: &[&[u8]; L], row: &mut [u8], filter: &BoxFilter) {
    let lines = lines.map(|line| &line[..row.len()]);
    for (i, out) in row.iter_mut().enumerate() {
        let mut near = 0;
        for line in &lines[1..L - 1] {
            near += u32::from(line[i]);
        }
        *out = filter.mix(near, u32::from(lines[0][i]) + u32::from(lines[L - 1][i]));
    }
}

/// The same for any radius: a row of running sums.
#[inline(always)]
fn columns_sliding(image: &mut Image, filter: &BoxFilter) {
    let length = image.width * 3;
    let last = image.height - 1;
    let radius = filter.radius;
    let mut source = vec![0; image.pixels.len()];
    let mut near = vec![0u32; length];
    for _ in 0..PASSES {
        std::mem::swap(&mut source, &mut image.pixels);
        let line = |y: usize| {
            // `y` counts from radius + 1 rows above the picture.
            let y = y.saturating_sub(radius + 1).min(last);
            &source[y * length..(y + 1) * length]
        };
        near.fill(0);
        for y in 0..=2 * radius {
            near.iter_mut().zip(line(y)).for_each(|(sum, &v)| *sum += u32::from(v));
        }
        for (y, row) in image.pixels.chunks_exact_mut(length).enumerate() {
            let (before, enters, after) = (line(y), line(y + 2 * radius + 1), line(y + 2 * radius + 2));
            for i in 0..length {
                near[i] = near[i] + u32::from(enters[i]) - u32::from(before[i]);
                row[i] = filter.mix(near[i], u32::from(before[i]) + u32::from(after[i]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: usize, height: usize) -> Image {
        let pixels = (0..width * height * 3).map(|i| (i * i * 31 % 251) as u8).collect();
        Image { width, height, pixels }
    }

    #[test]
    fn an_even_picture_stays_even() {
        for sigma in [0.1, 1.0, 2.0, 9.5] {
            let mut image = Image::filled(5, 4, [200, 0, 255]);
            gaussian_blur(&mut image, sigma);
            assert_eq!(image, Image::filled(5, 4, [200, 0, 255]), "sigma {sigma}");
        }
    }

    #[test]
    fn a_point_spreads_with_the_variance_asked_for() {
        for sigma in [0.8f32, 1.5, 2.0, 4.0] {
            let mut image = Image::filled(41, 1, [0; 3]);
            image.pixels[20 * 3..21 * 3].fill(255);
            gaussian_blur(&mut image, sigma);
            let values: Vec<f32> = image.pixels.chunks(3).map(|p| f32::from(p[0])).collect();
            let mass: f32 = values.iter().sum();
            let spread = values.iter().enumerate().map(|(x, v)| v * (x as f32 - 20.0).powi(2)).sum::<f32>() / mass;
            assert!((spread.sqrt() - sigma).abs() < 0.08 * sigma, "sigma {sigma}: {}", spread.sqrt());
        }
    }

    /// The loops for small radii and those for any radius are the same filter.
    #[test]
    fn the_special_loops_equal_the_general_ones() {
        for (width, height) in [(1, 1), (2, 7), (17, 23), (40, 3)] {
            for sigma in [0.3, 0.9, 1.4, 2.0] {
                let filter = BoxFilter::of_sigma(sigma);
                assert!(filter.radius < 2);
                let (mut special, mut general) = (noise(width, height), noise(width, height));
                blur(Isa::detect(), &mut special, &filter);
                rows(&mut general, &filter, slide);
                columns_sliding(&mut general, &filter);
                assert_eq!(special, general, "sigma {sigma}, {width}x{height}");
            }
        }
    }

    #[test]
    fn all_paths_give_the_same_bytes() {
        let mut draws = crate::Stream::keyed(24, &[]);
        for _ in 0..60 {
            let filter = BoxFilter::of_sigma(draws.range(0.1, 2.6) as f32);
            crate::ops::same_on_every_path(&format!("{filter:?}"), &|isa, image| blur_on(isa, image, &filter));
        }
    }

    /// Filters of all recipes' widths, each on a picture with every sum of two neighbors beside every value in it.
    #[test]
    fn all_widths_give_the_same_bytes_on_every_path() {
        let pixels = (0..256 * 256).flat_map(|i| [(i >> 8) as u8, i as u8, (255 - (i >> 8)) as u8]).collect();
        let mut picture = Image { width: 256, height: 256, pixels };
        picture.pixels.rotate_left(3 * 77);
        for k in 0..200 {
            let filter = BoxFilter::of_sigma(if k < 25 { k as f32 * 0.1 + 0.1 } else { 0.05 + k as f32 * 0.0123 });
            let on = |isa| {
                let mut image = picture.clone();
                blur_on(isa, &mut image, &filter);
                image
            };
            let expected = on(Isa::portable());
            for isa in Isa::available() {
                assert!(on(isa) == expected, "{filter:?} on {isa:?}");
            }
        }
    }
}
