//! The operations and the drawn parameters of `diptych-augment` against Pillow and torchvision.
//!
//! Values: tests/fixtures/make_augment.py. Pictures are compared byte for byte: all operations are exact.

use std::collections::BTreeMap;

use diptych_augment::{
    CropBox, Image, Interpolation, Jitter, JitterOp, Recipe, Stream, ViewParams, ViewRecipe, apply, ops,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

static FIXTURE: &[u8] = include_bytes!("../../fixtures/augment.safetensors");

#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    image: usize,
    args: Vec<serde_json::Value>,
}

impl Case {
    fn number(&self, i: usize) -> f64 {
        self.args[i].as_f64().expect("a number")
    }

    fn size(&self, i: usize) -> usize {
        self.number(i) as usize
    }

    fn run(&self, image: &Image) -> Image {
        let mut out = image.clone();
        match self.op.as_str() {
            "brightness" => ops::brightness(&mut out, self.number(0) as f32),
            "contrast" => ops::contrast(&mut out, self.number(0) as f32),
            "saturation" => ops::saturation(&mut out, self.number(0) as f32),
            "hue" => ops::hue(&mut out, self.number(0)),
            "grayscale" => ops::grayscale(&mut out),
            "flip" => ops::flip(&mut out),
            "solarize" => ops::solarize(&mut out, self.number(0) as u8),
            "blur" => ops::gaussian_blur(&mut out, self.number(0) as f32),
            "center_view" => out = ops::center_view(image, self.size(0)),
            "resized_crop" => {
                let crop = CropBox { x: self.size(0), y: self.size(1), width: self.size(2), height: self.size(3) };
                out = ops::resized_crop(image, crop, self.size(4), self.size(5), interpolation(&self.args[6]));
            }
            other => panic!("the fixture has an unknown operation {other}"),
        }
        out
    }
}

fn interpolation(name: &serde_json::Value) -> Interpolation {
    serde_json::from_value(name.clone()).expect("an interpolation")
}

fn metadata<T: serde::de::DeserializeOwned>(key: &str) -> T {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).expect("the fixture is a safetensors file");
    let text = &metadata.metadata().as_ref().expect("the fixture has metadata")[key];
    serde_json::from_str(text).expect("the fixture's metadata is JSON")
}

fn tensors() -> SafeTensors<'static> {
    SafeTensors::deserialize(FIXTURE).expect("the fixture is a safetensors file")
}

fn image(tensors: &SafeTensors, name: &str) -> Image {
    let tensor = tensors.tensor(name).expect(name);
    assert_eq!(tensor.dtype(), Dtype::U8);
    let (height, width) = (tensor.shape()[0], tensor.shape()[1]);
    Image::new(width, height, tensor.data().to_vec()).expect(name)
}

/// Every case of `op` in the fixture, to the byte.
fn check(op: &str) {
    let tensors = tensors();
    let cases: Vec<Case> = metadata("cases");
    let cases: Vec<&Case> = cases.iter().filter(|c| c.op == op).collect();
    assert!(cases.len() >= 4, "the fixture has only {} cases of {op}", cases.len());
    for case in cases {
        let got = case.run(&image(&tensors, &format!("image.{}", case.image)));
        same(&got, &image(&tensors, &case.name), &format!("{} {:?}", case.name, case.args));
    }
}

fn same(got: &Image, expected: &Image, what: &str) {
    assert_eq!((got.width, got.height), (expected.width, expected.height), "{what}");
    let differences: Vec<_> =
        got.pixels.iter().zip(&expected.pixels).enumerate().filter(|(_, (a, b))| a != b).collect();
    assert!(
        differences.is_empty(),
        "{what}: {} of {} bytes differ, at first (byte, (ours, expected)): {:?}",
        differences.len(),
        got.pixels.len(),
        &differences[..differences.len().min(5)]
    );
}

#[test]
fn brightness() {
    check("brightness");
}
#[test]
fn contrast() {
    check("contrast");
}
#[test]
fn saturation() {
    check("saturation");
}
#[test]
fn hue() {
    check("hue");
}
#[test]
fn grayscale() {
    check("grayscale");
}
#[test]
fn flip() {
    check("flip");
}
#[test]
fn solarize() {
    check("solarize");
}
#[test]
fn blur() {
    check("blur");
}
#[test]
fn resized_crop() {
    check("resized_crop");
}
#[test]
fn center_view() {
    check("center_view");
}

/// torchvision's `to_tensor` and `normalize`, f32: within two roundings.
#[test]
fn normalize() {
    let tensors = tensors();
    let cases: Vec<Case> = metadata("cases");
    let mut seen = 0;
    for case in cases.iter().filter(|c| c.op == "normalize") {
        let image = image(&tensors, &format!("image.{}", case.image));
        let three = |from: usize| std::array::from_fn(|c| case.number(from + c) as f32);
        let mut got = vec![f32::NAN; image.pixels.len()];
        ops::normalize_into(&image, &three(0), &three(3), &mut got);
        let expected = tensors.tensor(&case.name).expect("the case is there");
        for (got, bytes) in got.iter().zip(expected.data().as_chunks::<4>().0) {
            let expected = f32::from_le_bytes(*bytes);
            assert!((got - expected).abs() <= 5e-7, "{}: {got} for {expected}", case.name);
        }
        seen += 1;
    }
    assert!(seen >= 3);
}

#[derive(Deserialize)]
struct View {
    crop: [usize; 4],
    size: usize,
    interpolation: serde_json::Value,
    flip: bool,
    order: Option<Vec<String>>,
    #[serde(default)]
    brightness: f32,
    #[serde(default)]
    contrast: f32,
    #[serde(default)]
    saturation: f32,
    #[serde(default)]
    hue: f64,
    grayscale: bool,
    blur: Option<f32>,
    solarize: Option<u8>,
}

impl View {
    fn params(&self) -> ViewParams {
        let op = |name: &str| match name {
            "brightness" => JitterOp::Brightness,
            "contrast" => JitterOp::Contrast,
            "saturation" => JitterOp::Saturation,
            "hue" => JitterOp::Hue,
            other => panic!("the fixture has an unknown operation {other}"),
        };
        let [x, y, width, height] = self.crop;
        ViewParams {
            crop: CropBox { x, y, width, height },
            size: self.size,
            interpolation: interpolation(&self.interpolation),
            flip: self.flip,
            jitter: self.order.as_ref().map(|order| Jitter {
                order: std::array::from_fn(|i| op(&order[i])),
                brightness: self.brightness,
                contrast: self.contrast,
                saturation: self.saturation,
                hue: self.hue,
            }),
            grayscale: self.grayscale,
            blur: self.blur,
            solarize: self.solarize,
        }
    }
}

#[test]
fn whole_views() {
    let tensors = tensors();
    let views: Vec<View> = metadata("views");
    assert_eq!(views.len(), 4);
    for (k, view) in views.iter().enumerate() {
        let got = apply(&image(&tensors, "image.0"), &view.params());
        same(&got, &image(&tensors, &format!("view.{k}")), &format!("view {k}"));
    }
}

#[derive(Deserialize)]
struct Fallback {
    image: [usize; 2],
    crop: [usize; 4],
}

/// Where none of the 10 tries fits, the crop is torchvision's middle.
#[test]
fn the_crop_falls_back_to_the_middle() {
    let cases: Vec<Fallback> = metadata("fallback");
    assert!(cases.len() >= 5);
    let recipe = ViewRecipe { crop_scale: [1.0, 1.0], ..Recipe::simclr(32).shared() };
    for Fallback { image: [w, h], crop: [x, y, width, height] } in cases {
        let drawn = ViewParams::draw(&recipe, w, h, &mut Stream::keyed(1, &[]));
        assert_eq!(drawn.crop, CropBox { x, y, width, height }, "{w}x{h}");
    }
}

/// The distributions are torchvision's: deciles and mean of 20,000 draws each.
///
/// The seeds are fixed on both sides. A decile of n draws has the standard error sqrt(p (1 - p) / n) in probability, for two
/// samples 0.005 at most; so the share of our draws below each of torchvision's deciles is held to 5 such errors.
#[test]
fn parameters_are_drawn_as_torchvision_draws() {
    const N: u64 = 20_000;
    let tensors = tensors();
    let mut ours: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (width, height) in [(64, 48), (224, 100), (32, 32)] {
        for low in [0.08, 0.3] {
            let recipe = ViewRecipe { crop_scale: [low, 1.0], ..Recipe::simclr(32).shared() };
            for i in 0..N {
                let mut stream = Stream::keyed(11, &[width as u64, height as u64, i]);
                let crop = ViewParams::draw(&recipe, width, height, &mut stream).crop;
                let (w, h) = (crop.width as f64, crop.height as f64);
                for (name, value) in [
                    ("area", w * h / (width * height) as f64),
                    ("log_ratio", (w / h).ln()),
                    ("left", crop.x as f64),
                    ("top", crop.y as f64),
                ] {
                    ours.entry(format!("draw.crop.{width}.{height}.{low}.{name}")).or_default().push(value);
                }
            }
        }
    }
    let recipe = Recipe::simclr(32).shared();
    let recipe = ViewRecipe { jitter: 1.0, brightness: 0.8, contrast: 0.4, saturation: 1.0, hue: 0.2, ..recipe };
    for i in 0..N {
        let drawn = ViewParams::draw(&recipe, 32, 32, &mut Stream::keyed(12, &[i]));
        let jitter = drawn.jitter.expect("its probability is 1");
        let place = jitter.order.iter().position(|&op| op == JitterOp::Hue).expect("every order has it");
        for (name, value) in [
            ("brightness", f64::from(jitter.brightness)),
            ("contrast", f64::from(jitter.contrast)),
            ("saturation", f64::from(jitter.saturation)),
            ("hue", jitter.hue),
            ("place_of_hue", place as f64),
        ] {
            ours.entry(format!("draw.jitter.{name}")).or_default().push(value);
        }
    }
    assert_eq!(ours.len(), tensors.names().iter().filter(|n| n.starts_with("draw.")).count());
    for (name, values) in &ours {
        let tensor = tensors.tensor(name).expect(name);
        let expected: Vec<f64> = tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        compare(name, values, &expected[..11], expected[11]);
    }
}

fn compare(name: &str, values: &[f64], deciles: &[f64], mean: f64) {
    let n = values.len() as f64;
    let tolerance = 0.025;
    for (k, &decile) in deciles.iter().enumerate() {
        // Many values are equal (a crop has whole pixels): the decile lies somewhere among the equals.
        let slack = 1e-6;
        let below = values.iter().filter(|&&v| v < decile - slack).count() as f64 / n;
        let up_to = values.iter().filter(|&&v| v <= decile + slack).count() as f64 / n;
        let p = k as f64 / 10.0;
        assert!(
            below <= p + tolerance && up_to >= p - tolerance,
            "{name}: {below:.4} to {up_to:.4} of the draws lie below torchvision's {p} quantile {decile}"
        );
    }
    let ours = values.iter().sum::<f64>() / n;
    let spread = (values.iter().map(|v| (v - ours).powi(2)).sum::<f64>() / n).sqrt();
    assert!((ours - mean).abs() <= 5.0 * spread * (2.0 / n).sqrt(), "{name}: mean {ours}, torchvision's is {mean}");
}
