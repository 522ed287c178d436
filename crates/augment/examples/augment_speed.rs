//! Prints the time per view of the SimCLR recipe, and of its parts: `cargo run --release -p diptych-augment --example augment_speed`.

use std::hint::black_box;
use std::time::Instant;

use diptych_augment::{CropBox, Image, Interpolation, Recipe, Stream, ViewParams, normalize_into, ops, view};

/// A picture with edges, gradients and noise.
fn picture(width: usize, height: usize) -> Image {
    let mut noise = Stream::keyed(1, &[]);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let disk = (x * 3).abs_diff(width) + (y * 2).abs_diff(height) < width / 2;
            let speck = noise.below(30) as usize;
            let base = if disk { [220, 60, 30] } else { [x * 200 / width, y * 200 / height, 90] };
            pixels.extend(base.map(|v| (v + speck) as u8));
        }
    }
    Image { width, height, pixels }
}

/// The least mean over rounds of a millisecond or so, in microseconds: short ones, so that some are not interrupted.
fn microseconds(n: u64, mut call: impl FnMut(u64)) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..100 {
        let start = Instant::now();
        (0..n).for_each(&mut call);
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / n as f64);
    }
    best
}

fn main() {
    for (width, height, size, n) in [(32, 32, 32, 100), (96, 96, 64, 50), (500, 375, 224, 10)] {
        let image = picture(width, height);
        let recipe = Recipe::simclr(size).shared();
        println!("{width}x{height} to {size}:");
        let row = |name: &str, us: f64| println!("  {name:<22}{us:>9.2} us");
        row(
            "view",
            microseconds(n, |i| {
                black_box(view(black_box(&image), &recipe, &mut Stream::keyed(3, &[i])));
            }),
        );
        let [mean, std] = [recipe.mean, recipe.std].map(|numbers| numbers.rgb().unwrap_or_default());
        let mut input = vec![0.0; size * size * 3];
        row(
            "view and normalize",
            microseconds(n, |i| {
                let out = view(black_box(&image), &recipe, &mut Stream::keyed(3, &[i]));
                normalize_into(&out, &mean, &std, black_box(&mut input));
            }),
        );
        let views = 128;
        let mut batch = vec![0.0; views * size * size * 3];
        let one = ops::resize(&image, size, size, Interpolation::Bicubic);
        for (name, count) in [("normalize, one place", 1), ("normalize, a batch", views)] {
            row(
                name,
                microseconds(n.max(views as u64), |i| {
                    let at = i as usize % count * size * size * 3;
                    normalize_into(&one, &mean, &std, black_box(&mut batch[at..at + size * size * 3]));
                }),
            );
        }
        row(
            "draw",
            microseconds(n, |i| {
                black_box(ViewParams::draw(&recipe, width, height, &mut Stream::keyed(3, &[i])));
            }),
        );
        let crop = CropBox { x: 2, y: 1, width: width * 3 / 4, height: height * 4 / 5 };
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            row(
                &format!("crop {interpolation:?}"),
                microseconds(n, |_| {
                    black_box(ops::resized_crop(black_box(&image), crop, size, size, interpolation));
                }),
            );
        }
        let mut out = ops::resize(&image, size, size, Interpolation::Bicubic);
        type Op = fn(&mut Image);
        let ops: [(&str, Op); 9] = [
            ("flip", ops::flip),
            ("brightness", |i| ops::brightness(i, 0.999)),
            ("contrast", |i| ops::contrast(i, 0.999)),
            ("saturation", |i| ops::saturation(i, 0.999)),
            ("hue", |i| ops::hue(i, 0.01)),
            ("grayscale", ops::grayscale),
            ("blur, sigma 0.73", |i| ops::gaussian_blur(i, 0.73)),
            ("blur, sigma 1.83", |i| ops::gaussian_blur(i, 1.83)),
            ("solarize", |i| ops::solarize(i, 128)),
        ];
        for (name, op) in ops {
            // A copy, so that no operation works on what the calls before it have flattened.
            let fresh = out.clone();
            row(
                name,
                microseconds(n, |_| {
                    out.pixels.copy_from_slice(&fresh.pixels);
                    op(black_box(&mut out));
                }),
            );
            out = fresh;
        }
    }
}
