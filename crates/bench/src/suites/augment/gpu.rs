//! Views made on a GPU from decoded images that lie there: the host draws what is random and tells the device.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_augment::ops::{BoxFilter as Filter, CropBox};
use diptych_augment::{Image, Interpolation, Jitter, JitterOp, Stream, ViewParams, ViewRecipe};
use diptych_kernels::augment::{BoxFilter, Color, Form, Picture, View, views};

use crate::case::{Runner, Tensors};
use crate::suites::pictures::{Statistics, stacked};

pub(super) struct OnGpu {
    images: Vec<Image>,
    bytes: Tensor,
    pictures: Vec<Picture>,
    recipe: ViewRecipe,
    round: u64,
}

impl OnGpu {
    pub(super) fn new(images: Vec<Image>, recipe: ViewRecipe, device: &Device) -> Result<Self> {
        let (mut bytes, mut pictures) = (Vec::new(), Vec::new());
        for Image { width, height, pixels } in &images {
            pictures.push(Picture { start: bytes.len(), width: *width, height: *height });
            bytes.extend_from_slice(pixels);
        }
        let len = bytes.len();
        Ok(Self { images, bytes: Tensor::from_vec(bytes, len, device)?, pictures, recipe, round: 0 })
    }

    fn views(&mut self) -> Result<Tensor> {
        self.round += 1;
        let plan = |(i, picture): (usize, &Picture)| {
            let mut stream = Stream::keyed(1, &[self.round, i as u64]);
            plan(i, &ViewParams::draw(&self.recipe, picture.width, picture.height, &mut stream))
        };
        let plans: Vec<View> = self.pictures.iter().enumerate().map(plan).collect();
        let ViewRecipe { size, mean, std, .. } = self.recipe;
        let [mean, std] = [mean, std].map(|numbers| numbers.rgb().unwrap_or_default());
        Ok(views(&self.bytes, &self.pictures, &plans, &Form { size, mean, std, dtype: DType::F32 })?)
    }
}

/// A drawn view as the operation takes it.
fn plan(picture: usize, params: &ViewParams) -> View {
    let CropBox { x, y, width, height } = params.crop;
    let color = |jitter: Jitter, op| match op {
        JitterOp::Brightness => Color::Brightness(jitter.brightness),
        JitterOp::Contrast => Color::Contrast(jitter.contrast),
        JitterOp::Saturation => Color::Saturation(jitter.saturation),
        JitterOp::Hue => Color::Hue(jitter.hue),
    };
    let blur = |sigma| {
        let Filter { radius, near, far } = Filter::of_sigma(sigma);
        BoxFilter { radius, near, far }
    };
    View {
        picture,
        corner: [x, y],
        extent: [width, height],
        bicubic: params.interpolation == Interpolation::Bicubic,
        flip: params.flip,
        jitter: params.jitter.map_or([None; 4], |jitter| jitter.order.map(|op| Some(color(jitter, op)))),
        grayscale: params.grayscale,
        blur: params.blur.map(blur),
        solarize: params.solarize,
    }
}

impl Runner for OnGpu {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("images".into(), stacked(&self.images)?)].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let mut statistics = Statistics::default();
        statistics.add(&self.views()?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?);
        statistics.tensors()
    }

    fn run(&mut self) -> Result<()> {
        self.views().map(drop)
    }
}
