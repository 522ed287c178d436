//! The landscape of tests/fixtures/augment_scene.py, drawn again: integers alone, so the bytes are the same.

use diptych_augment::Image;

const WIDTH: i64 = 500;
const HEIGHT: i64 = 375;

/// 32 bits that look random, of two coordinates and a key.
fn chance(x: i64, y: i64, key: i64) -> i64 {
    let mut h = (x as u32)
        .wrapping_mul(0x9e37_79b1)
        .wrapping_add((y as u32).wrapping_mul(0x85eb_ca77))
        .wrapping_add((key as u32).wrapping_mul(0xc2b2_ae3d));
    for (shift, factor) in [(15, 0x2c1b_3c6d), (12, 0x297a_2d39)] {
        h = (h ^ (h >> shift)).wrapping_mul(factor);
    }
    i64::from(h ^ (h >> 15))
}

/// Values in 0..=255 at the corners of cells, smoothly joined.
fn noise(x: i64, y: i64, cell: i64, key: i64) -> i64 {
    let ease = |f: i64| f * f * (3 * cell - 2 * f) / (cell * cell);
    let (gx, gy, fx, fy) = (x / cell, y / cell, ease(x % cell), ease(y % cell));
    let corner = |i: i64, j: i64| chance(gx + i, gy + j, key) & 255;
    let upper = corner(0, 0) * (cell - fx) + corner(1, 0) * fx;
    let lower = corner(0, 1) * (cell - fx) + corner(1, 1) * fx;
    (upper * (cell - fy) + lower * fy) / (cell * cell)
}

/// Four octaves of noise, around 0.
fn fractal(x: i64, y: i64, cell: i64, key: i64) -> i64 {
    (0..4).map(|o| (8 >> o) * noise(x, y, cell >> o, 16 * key + o)).sum::<i64>() / 15 - 128
}

type Color = [i64; 3];

/// A color, lighter by `shade`; what is divided for it is rounded down, as Python does.
fn shaded(color: Color, shade: i64) -> Color {
    color.map(|c| c + shade)
}

fn sky(x: i64, y: i64) -> Color {
    let far = (x - 390).pow(2) + (y - 75).pow(2);
    let mut color: Color = std::array::from_fn(|c| {
        let (top, bottom, light) = ([60, 110, 190][c], [245, 215, 175][c], [60, 45, 10][c]);
        top + ((bottom - top) * y.min(250)).div_euclid(250) + (8100 - far).max(0) * light / 8100
    });
    if far < 576 {
        color = [255, 244, 200];
    }
    let cloud = (fractal(x, 3 * y, 128, 1) - 5).clamp(0, 60);
    color.map(|c| c + ((250 - c) * cloud).div_euclid(70))
}

fn land(x: i64, y: i64, color: &mut Color) {
    let ridge = 150 + (fractal(x, 0, 128, 2) * 90).div_euclid(128);
    if y > ridge {
        *color = shaded([120, 130, 160], fractal(x, y, 32, 3).div_euclid(3));
        if y < ridge + 20 + fractal(x, y, 16, 4).div_euclid(4) {
            *color = shaded([228, 232, 240], fractal(x, y, 16, 3).div_euclid(6));
        }
    }
    if y > 215 + (fractal(x, 0, 256, 5) * 60).div_euclid(128) {
        *color = shaded([50, 85, 60], fractal(x, y, 16, 6).div_euclid(3));
    }
    if y > 262 + fractal(x, 0, 128, 7).div_euclid(12) {
        let texture = fractal(x, y, 8, 8).div_euclid(3) + fractal(x, y, 64, 9).div_euclid(3);
        *color = shaded([95, 140, 50], texture + (y - 262).div_euclid(5));
    }
    let water = 484 * (x - 360).pow(2) + 16_900 * (y - 305).pow(2) < 484 * 16_900;
    if water {
        *color = shaded([70, 120, 160], fractal(x, 6 * y, 32, 10).div_euclid(3));
    }
    let kind = chance(x / 7, y / 7, 11);
    if y > 275 && !water && kind % 9 == 0 && (x % 7 - 3).pow(2) + (y % 7 - 3).pow(2) < 5 {
        *color = [[230, 40, 60], [250, 220, 60], [200, 70, 220], [250, 250, 250]][(kind / 9 % 4) as usize];
    }
}

fn trees(x: i64, y: i64, color: &mut Color) {
    for (cx, cy, r) in [(215, 235, 30), (245, 255, 21), (38, 245, 28)] {
        if (x - cx).abs() < 4 && y > cy && y < cy + r + 25 {
            *color = shaded([85, 60, 40], noise(x, y, 4, 12) / 8);
        }
        if (x - cx).pow(2) + (y - cy).pow(2) < r * r + fractal(x, y, 8, 13) * 4 {
            let light = (x - cx + y - cy).div_euclid(2);
            *color = shaded([45, 100, 45], fractal(x, y, 8, 14).div_euclid(2) - light);
        }
    }
}

fn house(x: i64, y: i64, color: &mut Color) {
    if (80..170).contains(&x) && (235..300).contains(&y) {
        *color = shaded([225, 205, 170], if y % 8 == 0 { -30 } else { -((x - 80) / 6) });
    }
    for left in [92, 138] {
        let (dx, dy) = (x - left, y - 248);
        if (0..20).contains(&dx) && (0..22).contains(&dy) {
            let frame = dx % 19 < 1 || dy % 21 < 1 || dx == 10 || dy == 11;
            *color = if frame { [250, 250, 245] } else { shaded([55, 85, 125], noise(x, y, 8, 15) / 6) };
        }
    }
    if (117..132).contains(&x) && (268..300).contains(&y) {
        *color = shaded([110, 60, 35], noise(x, y, 4, 16) / 10);
    }
    if (x - 125).abs() * 45 <= (y - 190) * 57 && y < 235 {
        let seam = (x + y / 5 % 2 * 4) % 8 == 0;
        *color = shaded([180, 55, 40], if seam { -40 } else { fractal(x, y, 8, 17).div_euclid(8) });
    }
}

fn balloon(x: i64, y: i64, color: &mut Color) {
    let (dx, dy) = (x - 265, y - 85);
    if dx * dx + dy * dy < 1936 {
        let stripes = [[215, 40, 45], [245, 195, 50], [40, 90, 200], [240, 240, 235], [40, 160, 90], [150, 60, 170]];
        let stripe = stripes[((dx + 44) / 9 % 6) as usize];
        *color = shaded(stripe, (-(dx + dy)).div_euclid(2));
    }
    if dx.abs() * 3 == 54 - ((dy - 40) * 36).div_euclid(24) && (34..62).contains(&dy) {
        *color = [70, 50, 40];
    }
    if dx.abs() < 8 && (58..70).contains(&dy) {
        *color = shaded([130, 85, 45], if (dx + dy).rem_euclid(4) == 0 { -35 } else { 0 });
    }
}

/// 500 x 375: smooth ramps, texture, hard edges, all hues, and the grain of a camera.
pub(crate) fn scene() -> Image {
    let mut pixels = Vec::with_capacity((WIDTH * HEIGHT * 3) as usize);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let mut color = sky(x, y);
            for layer in [land, trees, house, balloon] {
                layer(x, y, &mut color);
            }
            let grain = |c: usize| chance(x, y, 100 + c as i64) % 11 - 5;
            pixels.extend((0..3).map(|c| (color[c] + grain(c)).clamp(0, 255) as u8));
        }
    }
    Image { width: WIDTH as usize, height: HEIGHT as usize, pixels }
}

/// 32 x 32: means of 11 x 11 pixels around the balloon, as a picture of CIFAR's size.
pub(crate) fn small(picture: &Image) -> Image {
    let mut pixels = Vec::with_capacity(32 * 32 * 3);
    for y in 0..32 {
        for x in 0..32 {
            let mut sums = [0u32; 3];
            for k in 0..121 {
                let color = picture.pixel(74 + 11 * x + k % 11, 5 + 11 * y + k / 11).expect("it lies inside");
                sums.iter_mut().zip(color).for_each(|(sum, c)| *sum += u32::from(c));
            }
            pixels.extend(sums.map(|sum| ((sum + 60) / 121) as u8));
        }
    }
    Image { width: 32, height: 32, pixels }
}
