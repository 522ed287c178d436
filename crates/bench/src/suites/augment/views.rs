//! Whole recipes, from decoded images to normalized views.
//!
//! No two programs draw the same views, so what is compared is what a network would see of them: the mean and the deviation of each channel over
//! all of them. That the pixels are right is said by the single operations, and by `tests/golden`.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use diptych_augment::{Image, Recipe, Stream, ViewRecipe, normalize_into, view};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::gpu::OnGpu;
use crate::bars::{Bar, Measure};
use crate::case::{Case, Memory, Runner, Scale, Tensors, Tolerance, Unit, Work};
use crate::setting::{Setting, cores_name};
use crate::suites::pictures::{PHOTOGRAPH, Statistics, picture, stacked};

/// Views that are compared: chance is small beside the tolerance.
const COMPARED: usize = 256;

/// The peer's variants for views on a CPU.
pub(crate) const LIBRARIES: [&str; 4] = ["pil", "v2", "albumentations", "kornia"];

/// The recipe of that name.
pub(crate) fn recipe(name: &str, size: usize) -> Recipe {
    match name {
        "byol" => Recipe::byol(size),
        "barlow_twins" => Recipe::barlow_twins(size),
        "mocov2" => Recipe::mocov2(size),
        _ => Recipe::simclr(size),
    }
}

/// What the peer is told of a view.
pub(crate) fn told(view: &ViewRecipe) -> Value {
    let ViewRecipe { size, crop_scale, crop_ratio, interpolation, flip, jitter, brightness, contrast, .. } = view;
    let ViewRecipe { saturation, hue, grayscale, blur, blur_sigma, solarize, solarize_threshold, mean, std, .. } = view;
    json!({
        "size": size, "crop_scale": crop_scale, "crop_ratio": crop_ratio, "interpolation": interpolation, "flip": flip,
        "jitter": jitter, "brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue,
        "grayscale": grayscale, "blur": blur, "blur_sigma": blur_sigma, "solarize": solarize,
        "solarize_threshold": solarize_threshold, "mean": mean, "std": std,
    })
}

/// Brightness alone moves a view's mean by about the deviation of its pixels; over n views chance is a root of n smaller, and this is several
/// times that. It shows a program that makes other views altogether, or none.
pub(crate) fn tolerance(views: usize) -> Tolerance {
    let norm = 5.0 / (views as f64).sqrt();
    Tolerance { norm, largest: 2.0 * norm }
}

/// On a GPU one view of each image, on a CPU all views of the recipe.
struct Views {
    recipe: &'static str,
    size: usize,
    image: [usize; 2],
    images: usize,
    cores: usize,
    scale: Scale,
}

pub(super) fn cases(setting: &Setting) -> Vec<Box<dyn Case>> {
    let scale = setting.scale;
    let boxed = |views: Views| Box::new(views) as Box<dyn Case>;
    if scale != Scale::Cpu {
        let (images, image, size) = if scale == Scale::Gpu { (512, PHOTOGRAPH, 224) } else { (24, [50, 38], 24) };
        return ["simclr", "mocov2"].map(|recipe| boxed(Views { recipe, size, image, images, cores: 1, scale })).into();
    }
    let mut cases = Vec::new();
    for (size, image, images) in [(224, PHOTOGRAPH, 32), (32, [32, 32], 256)] {
        for recipe in ["simclr", "byol", "barlow_twins"] {
            let each = setting.cores().into_iter();
            cases.extend(each.map(|cores| boxed(Views { recipe, size, image, images, cores, scale })));
        }
    }
    cases
}

impl Views {
    fn recipes(&self) -> Vec<ViewRecipe> {
        let mut views = recipe(self.recipe, self.size).views();
        views.truncate(if self.scale == Scale::Cpu { usize::MAX } else { 1 });
        views
    }

    fn count(&self) -> usize {
        self.images * self.recipes().len()
    }

    /// Runs of which the views are compared.
    fn repeats(&self) -> usize {
        if self.scale == Scale::Cpu { COMPARED.div_ceil(self.count()) } else { 1 }
    }
}

impl Case for Views {
    fn name(&self) -> String {
        let cores = if self.scale == Scale::Cpu { format!("_{}", cores_name(self.cores)) } else { String::new() };
        format!("views_{}_{}px{cores}", self.recipe, self.size)
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn unit(&self) -> Unit {
        Unit::ViewsPerSecond(self.count())
    }

    fn tolerance(&self) -> Tolerance {
        tolerance(self.count() * self.repeats())
    }

    fn memory(&self) -> Memory {
        if self.scale == Scale::Cpu { Memory::Ours } else { Memory::Live }
    }

    fn spec(&self) -> Value {
        let mut views: Vec<Value> = self.recipes().iter().map(told).collect();
        if self.scale == Scale::Cpu {
            return json!({
                "kind": "pipeline", "source": "images", "views": views, "cores": self.cores, "repeats": self.repeats(),
            });
        }
        let mut told = views.remove(0);
        told["kind"] = "views".into();
        told
    }

    fn variants(&self) -> Vec<&'static str> {
        if self.scale == Scale::Cpu { LIBRARIES.into() } else { vec!["image by image"] }
    }

    fn bars(&self) -> Vec<Bar> {
        let what = format!("views of 224 px on the device ({}), a second", self.recipe);
        if self.scale == Scale::Gpu { vec![Bar::new(what, Measure::Speed, 10_000.0)] } else { Vec::new() }
    }

    /// Images read, views written in f32.
    fn work(&self) -> Work {
        let [width, height] = self.image;
        let (image, view) = (3.0 * (width * height) as f64, 3.0 * 4.0 * (self.size * self.size) as f64);
        Work { flops: 0.0, bytes: self.images as f64 * image + self.count() as f64 * view }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let images: Vec<Image> =
            (0..self.images).into_par_iter().map(|i| picture(i, self.image)).collect::<Result<_>>()?;
        if device.is_cuda() {
            return Ok(Box::new(OnGpu::new(images, self.recipes().remove(0), device)?));
        }
        let threads = if self.scale == Scale::Cpu { self.cores } else { rayon::current_num_threads() };
        Ok(Box::new(OnCpu {
            out: vec![0.0; self.count() * self.size * self.size * 3],
            images,
            recipes: self.recipes(),
            repeats: self.repeats(),
            pool: pool(threads)?,
            round: 0,
        }))
    }
}

/// Threads for a case: none beside the caller's for one core.
pub(super) fn pool(threads: usize) -> Result<Option<Arc<rayon::ThreadPool>>> {
    if threads == 1 {
        return Ok(None);
    }
    Ok(Some(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?)))
}

/// As the loader makes them.
struct OnCpu {
    images: Vec<Image>,
    recipes: Vec<ViewRecipe>,
    repeats: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
    out: Vec<f32>,
    round: u64,
}

impl OnCpu {
    /// View `v` of image `i` into the part of the batch that is its.
    fn view(&self, v: usize, i: usize, out: &mut [f32]) {
        let recipe = &self.recipes[v];
        let made = view(&self.images[i], recipe, &mut Stream::keyed(1, &[self.round, i as u64, v as u64]));
        let [mean, std] = [recipe.mean, recipe.std].map(|numbers| numbers.rgb().unwrap_or_default());
        normalize_into(&made, &mean, &std, out);
    }
}

impl Runner for OnCpu {
    fn inputs(&self) -> Result<Tensors> {
        Ok([("images".into(), stacked(&self.images)?)].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        let mut statistics = Statistics::default();
        for _ in 0..self.repeats {
            self.run()?;
            statistics.add(&self.out);
        }
        statistics.tensors()
    }

    fn run(&mut self) -> Result<()> {
        self.round += 1;
        let mut out = std::mem::take(&mut self.out);
        let size = self.recipes[0].size;
        let (n, len) = (self.images.len(), size * size * 3);
        let each = |(at, out): (usize, &mut [f32])| self.view(at / n, at % n, out);
        match &self.pool {
            None => out.chunks_mut(len).enumerate().for_each(each),
            Some(pool) => pool.install(|| out.par_chunks_mut(len).enumerate().for_each(each)),
        }
        self.out = std::hint::black_box(out);
        Ok(())
    }
}
