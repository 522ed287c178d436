//! Each operation alone, a row at its strengths.

use diptych::augment::ops::CropBox;
use diptych::augment::{Depth, Image, Jitter, JitterOp, Picture, PixelFormat, ViewParams, ViewRecipe};

use super::eyes::Eyes;
use super::sheet::{Row, Tile};

/// Shares of the area and ratios of the crops that are shown.
const CROPS: [(f64, f64); 9] = [
    (1.0, 1.0),
    (0.64, 1.0),
    (0.32, 0.75),
    (0.32, 1.0),
    (0.32, 4.0 / 3.0),
    (0.2, 1.0),
    (0.14, 1.0),
    (0.08, 1.0),
    (0.05, 1.0),
];
/// Factors of brightness, contrast and saturation.
const FACTORS: [f64; 9] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8];
/// Turns of the hue.
const HUES: [f64; 9] = [-0.5, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5];
/// Standard deviations of the blur, in pixels.
const SIGMAS: [f64; 9] = [0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0];
/// Thresholds of solarizing.
const THRESHOLDS: [u8; 9] = [0, 32, 64, 96, 128, 160, 192, 224, 255];

/// One row for each operation that such pictures have; a label is strong where one of the recipe's views can draw it.
pub(crate) fn rows(image: &Picture, views: &[ViewRecipe]) -> Vec<Row> {
    let Some(first) = views.first() else { return Vec::new() };
    let still = still(image, first);
    let drawn = |can: &dyn Fn(&ViewRecipe) -> bool| views.iter().any(can);
    let eyes = Eyes::used_to(&image.view(&still));
    let tile = |label: String, strong: bool, params: ViewParams| {
        let image: Image = eyes.see(&image.view(&params));
        Tile { label, strong, image }
    };
    let jitter = |change: &dyn Fn(&mut Jitter)| {
        let mut jitter = STILL;
        change(&mut jitter);
        ViewParams { jitter: Some(jitter), ..still }
    };
    let row = |title: &str, tiles: Vec<Tile>| Row { title: title.into(), tiles };
    let factors = |title: &str, strength: fn(&ViewRecipe) -> f64, place: fn(&mut Jitter) -> &mut f32| {
        let tiles = FACTORS.iter().map(|&factor| {
            let strong = drawn(&|v| v.jitter > 0.0 && within(factor - 1.0, strength(v)));
            tile(format!("{factor}"), strong, jitter(&|j| *place(j) = factor as f32))
        });
        row(title, tiles.collect())
    };
    let crops = CROPS.iter().map(|&(share, ratio)| {
        let strong = drawn(&|v| between(share, v.crop_scale) && between(ratio, v.crop_ratio));
        let shape = match ratio {
            r if r < 1.0 => " 3:4",
            r if r > 1.0 => " 4:3",
            _ => "",
        };
        let params = ViewParams { crop: middle(image, share, ratio), ..still };
        tile(format!("{:.0}%{shape}", share * 100.0), strong, params)
    });
    let hues = HUES.iter().map(|&hue| {
        let strong = drawn(&|v| v.jitter > 0.0 && within(hue, v.hue));
        tile(format!("{hue}"), strong, jitter(&|j| j.hue = hue))
    });
    let sigmas = SIGMAS.iter().map(|&sigma| {
        let strong = drawn(&|v| v.blur > 0.0 && between(sigma, v.blur_sigma));
        tile(format!("{sigma}"), strong, ViewParams { blur: Some(sigma as f32), ..still })
    });
    let thresholds = THRESHOLDS.iter().map(|&threshold| {
        let strong = drawn(&|v| v.solarize > 0.0 && v.solarize_threshold == threshold);
        tile(format!("{threshold}"), strong, ViewParams { solarize: Some(threshold), ..still })
    });
    let color = image.format() == PixelFormat::RGB;
    let mut switches = vec![
        tile("as is".into(), true, still),
        tile("flip".into(), drawn(&|v| v.flip > 0.0), ViewParams { flip: true, ..still }),
    ];
    let mut rows = vec![
        row("crop", crops.collect()),
        factors("brightness", |v| v.brightness, |j| &mut j.brightness),
        factors("contrast", |v| v.contrast, |j| &mut j.contrast),
    ];
    if color {
        switches.push(tile("gray".into(), drawn(&|v| v.grayscale > 0.0), ViewParams { grayscale: true, ..still }));
        rows.push(factors("saturation", |v| v.saturation, |j| &mut j.saturation));
        rows.push(row("hue", hues.collect()));
    }
    rows.push(row("blur", sigmas.collect()));
    // Without a full scale there is nothing to invert at.
    if image.format().depth != Depth::F32 {
        rows.push(row("solarize", thresholds.collect()));
    }
    rows.insert(0, row("", switches));
    rows
}

/// A jitter that changes nothing.
const STILL: Jitter = Jitter {
    order: [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue],
    brightness: 1.0,
    contrast: 1.0,
    saturation: 1.0,
    hue: 0.0,
};

/// The middle of the image, as large as a square can be, with every operation off.
fn still(image: &Picture, recipe: &ViewRecipe) -> ViewParams {
    ViewParams {
        crop: middle(image, 1.0, 1.0),
        size: recipe.size,
        interpolation: recipe.interpolation,
        flip: false,
        jitter: None,
        grayscale: false,
        blur: None,
        solarize: None,
    }
}

/// The box around the middle with this share of the largest middle square's area, and this width over height.
fn middle(image: &Picture, share: f64, ratio: f64) -> CropBox {
    let (columns, rows) = (image.width(), image.height());
    let area = share * (columns.min(rows) as f64).powi(2);
    let side = |area: f64, most: usize| (area.sqrt().round() as usize).clamp(1, most);
    let (width, height) = (side(area * ratio, columns), side(area / ratio, rows));
    CropBox { x: (columns - width) / 2, y: (rows - height) / 2, width, height }
}

/// Whether x is in [-most, most], but for a rounding.
fn within(x: f64, most: f64) -> bool {
    x.abs() <= most + 1e-9
}

fn between(x: f64, [low, high]: [f64; 2]) -> bool {
    x >= low - 1e-9 && x <= high + 1e-9
}

#[cfg(test)]
mod tests {
    use diptych::augment::{Raster, Recipe, Samples};

    use super::*;

    fn scene() -> Picture {
        let pixels = (0..50 * 30).flat_map(|i| [(i % 50 * 5) as u8, (i / 50 * 8) as u8, (i % 7 * 30) as u8]);
        Image::new(50, 30, pixels.collect()).unwrap().into()
    }

    #[test]
    fn every_strength_makes_another_picture_of_the_recipes_size() {
        for row in rows(&scene(), &Recipe::byol(24).views()) {
            for (i, tile) in row.tiles.iter().enumerate() {
                assert_eq!((tile.image.width, tile.image.height), (24, 24));
                // A blur with a tenth of a pixel is none, and nothing here is as bright as 255.
                let faint = row.title == "blur" && i == 1 || row.title == "solarize" && i == 8;
                let same = i > 0 && tile.image == row.tiles[i - 1].image;
                assert!(!same || faint, "{} {} is {}", row.title, tile.label, row.tiles[i - 1].label);
            }
        }
    }

    #[test]
    fn what_the_recipe_draws_is_printed_strong() {
        let strong = |recipe: Recipe, title: &str| -> Vec<String> {
            let rows = rows(&scene(), &recipe.views());
            let row = rows.iter().find(|row| row.title == title).unwrap();
            row.tiles.iter().filter(|tile| tile.strong).map(|tile| tile.label.clone()).collect()
        };
        assert_eq!(strong(Recipe::byol(24), "brightness"), ["0.6", "0.8", "1", "1.2", "1.4"]);
        assert_eq!(strong(Recipe::byol(24), "solarize"), ["128"]);
        assert_eq!(strong(Recipe::simclr(24), "solarize"), [""; 0]);
        assert_eq!(strong(Recipe::simclr(24), "hue"), ["-0.2", "-0.1", "0", "0.1", "0.2"]);
        assert_eq!(strong(Recipe::simclr_cifar(24), "blur"), [""; 0]);
        assert_eq!(strong(Recipe::mocov2(24), "crop"), ["100%", "64%", "32% 3:4", "32%", "32% 4:3", "20%"]);
    }

    /// Numbers of no known scale: the eyes keep to those of the untouched picture, so that brighter looks brighter.
    #[test]
    fn other_pictures_have_the_rows_that_are_for_them() {
        let samples = (0..50 * 30 * 2).map(|i| 1000.0 + (i % 97) as f32).collect();
        let raster = Raster::new(50, 30, 2, Samples::F32(samples)).unwrap();
        let rows = rows(&raster.into(), &Recipe::byol(24).views());
        let titles: Vec<&str> = rows.iter().map(|row| row.title.as_str()).collect();
        assert_eq!(titles, ["", "crop", "brightness", "contrast", "blur"]);
        let red = |tile: &Tile| tile.image.pixels.iter().step_by(3).map(|&v| u64::from(v)).sum::<u64>();
        let brightness: Vec<u64> = rows[2].tiles.iter().map(red).collect();
        assert!(brightness.is_sorted() && brightness[0] < brightness[8], "{brightness:?}");
    }
}
