//! Views made on a GPU against those of `diptych_augment`: the same bytes, and the same numbers to the bit.

use candle_core::{DType, Device, Result, Tensor};
use diptych_augment::ops::{BoxFilter as CpuFilter, CropBox};
use diptych_augment::{Image, Interpolation, Jitter, JitterOp, Recipe, Stream, ViewParams, ViewRecipe};
use diptych_augment::{apply, normalize_into};
use half::bf16;

use super::*;
use crate::check::device;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A picture with even parts, edges and noise.
fn scene(width: usize, height: usize, seed: usize) -> Image {
    let value = |i: usize| {
        let (x, y) = (i % width, i / width);
        let noise = (i * i * 31 + seed * 77) % 251;
        match (x / 5 + y / 7 + seed) % 4 {
            0 => [noise as u8, (x * 4) as u8, (y * 5) as u8],
            1 => [250, 250, 251],
            2 => [(x * 3 + y) as u8, noise as u8, 0],
            _ => [(noise / 2) as u8, 90, (255 - noise) as u8],
        }
    };
    Image::new(width, height, (0..width * height).flat_map(value).collect()).unwrap()
}

/// The plan of a view as this op takes it.
fn view(picture: usize, params: &ViewParams) -> View {
    let CropBox { x, y, width, height } = params.crop;
    let color = |jitter: &Jitter, op| match op {
        JitterOp::Brightness => Color::Brightness(jitter.brightness),
        JitterOp::Contrast => Color::Contrast(jitter.contrast),
        JitterOp::Saturation => Color::Saturation(jitter.saturation),
        JitterOp::Hue => Color::Hue(jitter.hue),
    };
    View {
        picture,
        corner: [x, y],
        extent: [width, height],
        bicubic: params.interpolation == Interpolation::Bicubic,
        flip: params.flip,
        jitter: params.jitter.map_or([None; 4], |jitter| jitter.order.map(|op| Some(color(&jitter, op)))),
        grayscale: params.grayscale,
        blur: params.blur.map(|sigma| {
            let CpuFilter { radius, near, far } = CpuFilter::of_sigma(sigma);
            BoxFilter { radius, near, far }
        }),
        solarize: params.solarize,
    }
}

/// The images one after the other, with `gap` bytes before each.
fn buffer(images: &[Image], gap: usize) -> (Vec<u8>, Vec<Picture>) {
    let (mut bytes, mut pictures) = (Vec::new(), Vec::new());
    for image in images {
        bytes.extend(std::iter::repeat_n(7, gap));
        pictures.push(Picture { start: bytes.len(), width: image.width, height: image.height });
        bytes.extend(&image.pixels);
    }
    (bytes, pictures)
}

/// Holds views to the CPU's; each of `params` is of the image of its number.
fn check_views(images: &[Image], params: &[(usize, ViewParams)], size: usize, gap: usize) -> Result<()> {
    let device = &device()?;
    if device.is_cpu() {
        return Ok(());
    }
    let (bytes, pictures) = buffer(images, gap);
    let len = bytes.len();
    let bytes = Tensor::from_vec(bytes, len, device)?;
    let plans: Vec<View> = params.iter().map(|(picture, params)| view(*picture, params)).collect();
    for dtype in [DType::F32, DType::BF16] {
        let form = Form { size, mean: MEAN, std: STD, dtype };
        let made = views(&bytes, &pictures, &plans, &form)?;
        assert_eq!((made.dims(), made.dtype()), ([params.len(), size, size, 3].as_slice(), dtype));
        let made = made.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        for ((picture, params), made) in params.iter().zip(made.chunks(size * size * 3)) {
            let mut expected = vec![0f32; size * size * 3];
            normalize_into(&apply(&images[*picture], params), &MEAN, &STD, &mut expected);
            for (i, (&made, &expected)) in made.iter().zip(&expected).enumerate() {
                let expected = if dtype == DType::BF16 { bf16::from_f32(expected).to_f32() } else { expected };
                assert_eq!(made.to_bits(), expected.to_bits(), "value {i}: {made}, expected {expected}, of {params:?}");
            }
        }
    }
    Ok(())
}

fn draw(recipe: &ViewRecipe, image: &Image, key: u64) -> ViewParams {
    ViewParams::draw(recipe, image.width, image.height, &mut Stream::keyed(11, &[key]))
}

/// Everything at once, at sizes that are and are not multiples of 4, of pictures that are enlarged and shrunk.
#[test]
fn views_equal_those_of_the_cpu() -> Result<()> {
    let images =
        [scene(64, 48, 1), scene(33, 71, 2), scene(1, 1, 3), scene(130, 90, 4), scene(3, 2, 5), scene(32, 32, 6)];
    for size in [32, 30, 7, 1] {
        let busy = ViewRecipe {
            jitter: 0.9,
            blur: 0.6,
            grayscale: 0.3,
            solarize: 0.4,
            blur_sigma: [0.1, 2.5],
            ..Recipe::byol(size).views()[1].clone()
        };
        let linear = ViewRecipe { interpolation: Interpolation::Bilinear, ..busy.clone() };
        let mut params = Vec::new();
        for key in 0..24 {
            let picture = key as usize % images.len();
            let recipe = if key % 5 == 1 { &linear } else { &busy };
            params.push((picture, draw(recipe, &images[picture], key)));
        }
        check_views(&images, &params, size, size % 3)?;
    }
    Ok(())
}

/// One operation at a time, at its extremes.
#[test]
fn every_operation_alone_equals_that_of_the_cpu() -> Result<()> {
    let size = 20;
    let images = [scene(41, 37, 9)];
    let plain = ViewParams {
        crop: CropBox { x: 3, y: 2, width: 30, height: 33 },
        size,
        interpolation: Interpolation::Bicubic,
        flip: false,
        jitter: None,
        grayscale: false,
        blur: None,
        solarize: None,
    };
    let whole = CropBox { x: 5, y: 7, width: size, height: size };
    let mut all = vec![
        plain,
        ViewParams { flip: true, ..plain },
        ViewParams { interpolation: Interpolation::Bilinear, ..plain },
        ViewParams { crop: whole, ..plain },
        ViewParams { crop: CropBox { width: 9, ..whole }, flip: true, ..plain },
        ViewParams { crop: CropBox { height: 5, ..whole }, ..plain },
        ViewParams { grayscale: true, ..plain },
    ];
    all.extend([0, 1, 128, 255].map(|threshold| ViewParams { solarize: Some(threshold), ..plain }));
    all.extend([0.05f32, 0.5, 1.0, 2.0, 5.0, 40.0].map(|sigma| ViewParams { blur: Some(sigma), ..plain }));
    let [brightness, contrast, saturation, hue] =
        [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue];
    let still = Jitter {
        order: [hue, contrast, brightness, saturation],
        brightness: 1.0,
        contrast: 1.0,
        saturation: 1.0,
        hue: 0.0,
    };
    let mut jitters = vec![still];
    for factor in [0.0, 0.2, 0.7731, 1.3, 2.5] {
        jitters.push(Jitter { brightness: factor, ..still });
        jitters.push(Jitter { contrast: factor, ..still });
        jitters.push(Jitter { saturation: factor, ..still });
    }
    jitters.extend([-0.5, -0.31, 0.001, 0.1, 0.5].map(|hue| Jitter { hue, ..still }));
    jitters.push(Jitter {
        order: [contrast, saturation, hue, brightness],
        brightness: 1.1,
        contrast: 0.6,
        saturation: 1.8,
        hue: 0.07,
    });
    all.extend(jitters.into_iter().map(|jitter| ViewParams { jitter: Some(jitter), ..plain }));
    let params: Vec<_> = all.into_iter().map(|params| (0, params)).collect();
    check_views(&images, &params, size, 1)
}

/// One view at the usual size, of a picture of the usual size, with all operations.
#[test]
fn a_view_of_224_pixels_equals_that_of_the_cpu() -> Result<()> {
    let images = [scene(500, 375, 12)];
    let recipe = ViewRecipe { jitter: 1.0, blur: 1.0, solarize: 1.0, ..Recipe::byol(224).views()[1].clone() };
    check_views(&images, &[(0, draw(&recipe, &images[0], 3))], 224, 0)
}

/// A large view, which a block blurs in narrower parts.
#[test]
fn a_large_view_equals_that_of_the_cpu() -> Result<()> {
    let images = [scene(90, 61, 14)];
    let recipe = ViewRecipe { jitter: 0.0, blur: 1.0, ..Recipe::simclr(772).shared() };
    check_views(&images, &[(0, draw(&recipe, &images[0], 5))], 772, 0)
}

/// A batch that is made lot by lot equals the one that is made at once.
#[cfg(feature = "cuda")]
#[test]
fn lots_change_nothing() -> Result<()> {
    let device = &device()?;
    let Some(gpu) = crate::cuda::Gpu::of(&Tensor::zeros(1, DType::U8, device)?) else { return Ok(()) };
    let images = [scene(40, 30, 1), scene(9, 90, 2)];
    let (bytes, pictures) = buffer(&images, 0);
    let len = bytes.len();
    let bytes = Tensor::from_vec(bytes, len, device)?;
    let recipe = ViewRecipe { blur: 0.5, jitter: 0.5, ..Recipe::simclr(10).shared() };
    let plans: Vec<View> =
        (0..11).map(|key| (key as usize % 2, key)).map(|(i, key)| view(i, &draw(&recipe, &images[i], key))).collect();
    let form = Form { size: 10, mean: MEAN, std: STD, dtype: DType::F32 };
    let whole = views(&bytes, &pictures, &plans, &form)?.flatten_all()?.to_vec1::<f32>()?;
    for room in [0, 9_000] {
        let parts = cuda::within(room, &gpu, &bytes, &pictures, &plans, &form)?;
        assert_eq!(parts.flatten_all()?.to_vec1::<f32>()?, whole);
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_by_name() -> Result<()> {
    let bytes = Tensor::zeros(60, DType::U8, &Device::Cpu)?;
    let picture = Picture { start: 0, width: 5, height: 4 };
    let fine = View {
        picture: 0,
        corner: [1, 1],
        extent: [4, 3],
        bicubic: true,
        flip: false,
        jitter: [None; 4],
        grayscale: false,
        blur: None,
        solarize: None,
    };
    let form = Form { size: 8, mean: MEAN, std: STD, dtype: DType::F32 };
    let error = |bytes: &Tensor, picture: Picture, view: View, form: Form| {
        views(bytes, &[picture], &[view], &form).unwrap_err().to_string()
    };
    let message = error(&bytes, picture, fine, form);
    assert!(
        message.starts_with("augment: the pictures are on the CPU; there, diptych_augment::apply makes the views"),
        "{message}"
    );
    let cases = [
        (Picture { start: 1, ..picture }, fine, form, "picture 0, 5x4 from byte 1 on, is not inside of 60 bytes"),
        (Picture { height: 0, ..picture }, fine, form, "5x0"),
        (Picture { height: usize::MAX, ..picture }, fine, form, "is not inside of 60 bytes"),
        (picture, View { picture: 1, ..fine }, form, "view 0 shows picture 1 of 1"),
        (
            picture,
            View { corner: [2, 1], ..fine },
            form,
            "view 0 is a crop of 4x3 at (2, 1), not inside of a picture of 5x4",
        ),
        (picture, View { extent: [0, 3], ..fine }, form, "a crop of 0x3"),
        (picture, View { jitter: [Some(Color::Contrast(0.5)); 4], ..fine }, form, "more than one contrast"),
        (picture, fine, Form { size: 0, ..form }, "views of 0 pixels in F32; expected 1 to 8192"),
        (picture, fine, Form { dtype: DType::F64, ..form }, "in F64"),
    ];
    for (picture, view, form, expected) in cases {
        let message = error(&bytes, picture, view, form);
        assert!(message.contains(expected), "{message}");
    }
    assert!(error(&bytes.to_dtype(DType::F32)?, picture, fine, form).contains("expected bytes, U8 [B]"));
    Ok(())
}
