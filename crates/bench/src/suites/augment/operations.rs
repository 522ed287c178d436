//! Single operations on pictures of u8, with the same parameters for all programs, so that the pixels can be compared.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use candle_core::{Device, Tensor};
use diptych_augment::ops::{self, CropBox};
use diptych_augment::{IMAGENET_MEAN, IMAGENET_STD, Image, Interpolation, Recipe, Stream, ViewParams, normalize_into};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::views::{LIBRARIES, pool};
use crate::case::{Case, Memory, Runner, Tensors, Unit, Work};
use crate::setting::{Setting, cores_name};
use crate::suites::pictures::{PHOTOGRAPH, picture, stacked};

/// Side of the pictures, but of those that are cropped.
const SIDE: usize = 224;
/// Pictures of a run.
const IMAGES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    CropResize,
    Flip,
    Brightness,
    Contrast,
    Saturation,
    Hue,
    Grayscale,
    Blur,
    Solarize,
    Normalize,
}

const OPS: [Op; 10] = [
    Op::CropResize,
    Op::Flip,
    Op::Brightness,
    Op::Contrast,
    Op::Saturation,
    Op::Hue,
    Op::Grayscale,
    Op::Blur,
    Op::Solarize,
    Op::Normalize,
];

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::CropResize => "crop_resize",
            Self::Flip => "flip",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Saturation => "saturation",
            Self::Hue => "hue",
            Self::Grayscale => "grayscale",
            Self::Blur => "blur",
            Self::Solarize => "solarize",
            Self::Normalize => "normalize",
        }
    }

    /// The range of its factor (SimCLR's), shift or deviation.
    fn range(self) -> [f64; 2] {
        match self {
            Self::Brightness | Self::Contrast | Self::Saturation => [0.2, 1.8],
            Self::Hue => [-0.2, 0.2],
            Self::Blur => [0.1, 2.0],
            _ => [0.0, 1.0],
        }
    }
}

struct Operation {
    op: Op,
    cores: usize,
}

pub(super) fn cases(setting: &Setting) -> Vec<Box<dyn Case>> {
    let of = |cores| OPS.map(|op| Box::new(Operation { op, cores }) as Box<dyn Case>);
    setting.cores().into_iter().flat_map(of).collect()
}

impl Case for Operation {
    fn name(&self) -> String {
        format!("op_{}_{SIDE}px_{}", self.op.name(), cores_name(self.cores))
    }

    fn groups(&self) -> Vec<String> {
        vec![format!("operations at {SIDE} px, {}", cores_name(self.cores))]
    }

    fn unit(&self) -> Unit {
        Unit::ImagesPerSecond(IMAGES)
    }

    /// How near a library's arithmetic comes to Pillow's, whose bytes ours are: OpenCV and kornia shrink without a filter against aliasing and with
    /// another cubic; hue goes through coarser numbers, or finer ones; the blurs are a true Gaussian's, Pillow's is of boxes. Ours are Pillow's bytes of before
    /// version 13, which resamples the columns first where the height shrinks more than the width: that rounds differently, to 54.8 dB at the least in `tests/golden`.
    fn decibels(&self, variant: &str) -> Option<f64> {
        match (self.op, variant) {
            (Op::Normalize, _) => None,
            (Op::CropResize, "pil") => Some(55.0),
            (_, "pil") => Some(90.0),
            (Op::CropResize, "v2") => Some(50.0),
            (Op::CropResize, _) => Some(25.0),
            (Op::Hue, _) => Some(35.0),
            (Op::Flip, _) => Some(90.0),
            _ => Some(45.0),
        }
    }

    fn memory(&self) -> Memory {
        Memory::Ours
    }

    fn spec(&self) -> Value {
        json!({
            "kind": "operation", "operation": self.op.name(), "size": SIDE, "cores": self.cores, "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        })
    }

    fn variants(&self) -> Vec<&'static str> {
        LIBRARIES.into()
    }

    /// A picture read and one written.
    fn work(&self) -> Work {
        let each = if self.op == Op::Normalize { 5.0 } else { 2.0 };
        Work { flops: 0.0, bytes: (IMAGES * SIDE * SIDE * 3) as f64 * each }
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Runner>> {
        let size = if self.op == Op::CropResize { PHOTOGRAPH } else { [SIDE; 2] };
        let images: Vec<Image> = (0..IMAGES).into_par_iter().map(|i| picture(i, size)).collect::<Result<_>>()?;
        let mut stream = Stream::keyed(3, &[self.op as u64]);
        let [low, high] = self.op.range();
        let factors = images.iter().map(|_| stream.range(low, high)).collect();
        let recipe = Recipe::simclr(SIDE).shared();
        let boxes = images.iter().map(|image| ViewParams::draw(&recipe, image.width, image.height, &mut stream).crop);
        let floats = if self.op == Op::Normalize { SIDE * SIDE * 3 } else { 0 };
        let room = || Mutex::new(Room { image: Image::filled(SIDE, SIDE, [0; 3]), floats: vec![0.0; floats] });
        Ok(Box::new(Running {
            op: self.op,
            boxes: boxes.collect(),
            rooms: images.iter().map(|_| room()).collect(),
            images,
            factors,
            pool: pool(self.cores)?,
        }))
    }
}

/// Where what is made of one picture goes: kept from run to run, as a loader's threads keep theirs.
struct Room {
    image: Image,
    floats: Vec<f32>,
}

struct Running {
    op: Op,
    images: Vec<Image>,
    factors: Vec<f64>,
    boxes: Vec<CropBox>,
    rooms: Vec<Mutex<Room>>,
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Running {
    /// All operations but the first and the last change a picture in place: like other programs, ours leaves its input, so a copy is timed too.
    fn make(&self, i: usize) {
        let (from, factor) = (&self.images[i], self.factors[i]);
        let mut room = self.rooms[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Room { image, floats } = &mut *room;
        match self.op {
            Op::CropResize => {
                *image = ops::resized_crop(from, self.boxes[i], SIDE, SIDE, Interpolation::Bicubic);
                return;
            }
            Op::Normalize => return normalize_into(from, &IMAGENET_MEAN, &IMAGENET_STD, floats),
            _ => image.pixels.copy_from_slice(&from.pixels),
        }
        match self.op {
            Op::CropResize | Op::Normalize => {}
            Op::Flip => ops::flip(image),
            Op::Brightness => ops::brightness(image, factor as f32),
            Op::Contrast => ops::contrast(image, factor as f32),
            Op::Saturation => ops::saturation(image, factor as f32),
            Op::Hue => ops::hue(image, factor),
            Op::Grayscale => ops::grayscale(image),
            Op::Blur => ops::gaussian_blur(image, factor as f32),
            Op::Solarize => ops::solarize(image, 128),
        }
    }
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let n = self.images.len();
        // The peer gets the numbers that our f32 arithmetic sees.
        let factors: Vec<f32> = self.factors.iter().map(|factor| *factor as f32).collect();
        let boxes = self.boxes.iter().flat_map(|b| [b.x, b.y, b.width, b.height]).map(|v| v as f32).collect();
        Ok([
            ("images".into(), stacked(&self.images)?),
            ("factor".into(), Tensor::from_vec(factors, n, &Device::Cpu)?),
            ("box".into(), Tensor::from_vec::<_, f32>(boxes, (n, 4), &Device::Cpu)?),
        ]
        .into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        self.run()?;
        let made = |room: &Mutex<Room>| {
            let room = room.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match self.op {
                Op::Normalize => Tensor::from_vec(room.floats.clone(), (SIDE, SIDE, 3), &Device::Cpu),
                _ => Tensor::from_vec(room.image.pixels.clone(), (SIDE, SIDE, 3), &Device::Cpu),
            }
        };
        let made: Vec<Tensor> = self.rooms.iter().map(made).collect::<candle_core::Result<_>>()?;
        let pixels = Tensor::stack(&made, 0)?;
        Ok([("pixels".into(), pixels)].into())
    }

    fn run(&mut self) -> Result<()> {
        match &self.pool {
            None => (0..self.images.len()).for_each(|i| self.make(i)),
            Some(pool) => pool.install(|| (0..self.images.len()).into_par_iter().for_each(|i| self.make(i))),
        }
        Ok(())
    }
}
