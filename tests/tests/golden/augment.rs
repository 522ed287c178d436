//! The operations of `diptych-augment` and the middle crop of its draws against Pillow and torchvision, on small and odd pictures.
//!
//! Values: tests/fixtures/make_augment.py. Pictures are compared byte for byte: all operations are exact.

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

/// `image` after the operation of that name; `args` are those of the function in `ops`.
pub(crate) fn operate(op: &str, args: &[serde_json::Value], image: &Image) -> Image {
    let number = |i: usize| args[i].as_f64().expect("a number");
    let size = |i: usize| number(i) as usize;
    let mut out = image.clone();
    match op {
        "brightness" => ops::brightness(&mut out, number(0) as f32),
        "contrast" => ops::contrast(&mut out, number(0) as f32),
        "saturation" => ops::saturation(&mut out, number(0) as f32),
        "hue" => ops::hue(&mut out, number(0)),
        "grayscale" => ops::grayscale(&mut out),
        "flip" => ops::flip(&mut out),
        "solarize" => ops::solarize(&mut out, number(0) as u8),
        "blur" => ops::gaussian_blur(&mut out, number(0) as f32),
        "center_view" => out = ops::center_view(image, size(0)),
        "resized_crop" => {
            let crop = CropBox { x: size(0), y: size(1), width: size(2), height: size(3) };
            out = ops::resized_crop(image, crop, size(4), size(5), interpolation(&args[6]));
        }
        other => panic!("the fixture has an unknown operation {other}"),
    }
    out
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
        let got = operate(&case.op, &case.args, &image(&tensors, &format!("image.{}", case.image)));
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
        let number = |i: usize| case.args[i].as_f64().expect("a number");
        let three = |from: usize| std::array::from_fn(|c| number(from + c) as f32);
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

/// The parameters of a view as the fixtures hold them.
#[derive(Deserialize)]
pub(crate) struct View {
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
    pub(crate) fn params(&self) -> ViewParams {
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
