//! Random views of 224 pixels from decoded images, normalized.
//!
//! No two programs draw the same views, so what is compared is what a network would see of them: the mean and the deviation of each channel over all of
//! them. That the pixels are right is `tests/golden`'s affair.

mod gpu;

use anyhow::Result;
use candle_core::{Device, Tensor};
use diptych_augment::{Image, Recipe, Stream, ViewRecipe, normalize_into, view};
use gpu::OnGpu;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Runner, Scale, Tensors, Tolerance, Unit, Work};

/// Width and height of the images: the usual size in ImageNet.
const IMAGE: [usize; 2] = [500, 375];

struct Views {
    images: usize,
    image: [usize; 2],
    recipe: &'static str,
    size: usize,
    scale: Scale,
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let (images, image, size) = match scale {
        Scale::Cpu => (128, IMAGE, 224),
        Scale::Gpu => (512, IMAGE, 224),
        Scale::Tiny => (24, [50, 38], 24),
    };
    ["simclr", "mocov2"].map(|recipe| Box::new(Views { images, image, recipe, size, scale }) as Box<dyn Case>).into()
}

impl Views {
    fn recipe(&self) -> ViewRecipe {
        let recipe = if self.recipe == "simclr" { Recipe::simclr(self.size) } else { Recipe::mocov2(self.size) };
        recipe.views().remove(0)
    }
}

/// A picture with large and small shapes, as photographs have: waves of three lengths.
fn picture(index: usize, [width, height]: [usize; 2]) -> Result<Image> {
    let mut stream = Stream::keyed(0, &[index as u64]);
    let mut waves = || {
        [3.0, 11.0, 47.0].map(|cycles| {
            let (across, down, phase) =
                (stream.range(-cycles, cycles), stream.range(-cycles, cycles), stream.range(0.0, 6.3));
            (across * 6.3 / width as f64, down * 6.3 / height as f64, phase, stream.range(10.0, 40.0))
        })
    };
    let channels = [waves(), waves(), waves()];
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in &channels {
                let sum: f64 = channel
                    .iter()
                    .map(|(across, down, phase, size)| size * (across * x as f64 + down * y as f64 + phase).sin())
                    .sum();
                pixels.push((128.0 + sum).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Ok(Image::new(width, height, pixels)?)
}

impl Case for Views {
    fn name(&self) -> String {
        format!("views_{}_{}px", self.recipe, self.size)
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn unit(&self) -> Unit {
        Unit::ViewsPerSecond(self.images)
    }

    /// Brightness alone moves a view's mean by about the deviation of its pixels; over n views chance is a root of n smaller, and this is
    /// several times that. It shows a program that makes other views altogether, or none.
    fn tolerance(&self) -> Tolerance {
        let norm = 5.0 / (self.images as f64).sqrt();
        Tolerance { norm, largest: 2.0 * norm }
    }

    fn spec(&self) -> Value {
        let ViewRecipe { crop_scale, crop_ratio, flip, jitter, brightness, contrast, saturation, hue, .. } =
            self.recipe();
        let ViewRecipe { grayscale, blur, blur_sigma, mean, std, interpolation, .. } = self.recipe();
        json!({
            "kind": "views", "size": self.size, "crop_scale": crop_scale, "crop_ratio": crop_ratio, "flip": flip,
            "interpolation": interpolation, "jitter": jitter, "brightness": brightness, "contrast": contrast,
            "saturation": saturation, "hue": hue, "grayscale": grayscale, "blur": blur, "blur_sigma": blur_sigma,
            "mean": mean, "std": std,
        })
    }

    fn variants(&self) -> Vec<&'static str> {
        vec!["image by image"]
    }

    fn bars(&self) -> Vec<Bar> {
        let what = format!("views of 224 px on the device ({}), a second", self.recipe);
        if self.scale == Scale::Gpu { vec![Bar::new(what, Measure::Speed, 10_000.0)] } else { Vec::new() }
    }

    /// Images read, views written in f32.
    fn work(&self) -> Work {
        let [width, height] = self.image;
        let (image, view) = (3.0 * (width * height) as f64, 3.0 * 4.0 * (self.size * self.size) as f64);
        Work { flops: 0.0, bytes: self.images as f64 * (image + view) }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let images: Vec<Image> =
            (0..self.images).into_par_iter().map(|i| picture(i, self.image)).collect::<Result<_>>()?;
        if device.is_cuda() {
            return Ok(Box::new(OnGpu::new(images, self.recipe(), device)?));
        }
        Ok(Box::new(OnCpu { images, recipe: self.recipe(), round: 0 }))
    }
}

/// Images as the peer gets them: `[n, height, width, 3]` u8.
fn stacked(images: &[Image]) -> Result<Tensors> {
    let (height, width) = (images[0].height, images[0].width);
    let pixels: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
    let tensor = Tensor::from_vec(pixels, (images.len(), height, width, 3), &Device::Cpu)?;
    Ok([("images".into(), tensor)].into())
}

/// Mean and deviation of each channel of `[n, s, s, 3]` views.
fn statistics(views: &[f32]) -> Result<Tensors> {
    let count = (views.len() / 3) as f64;
    let sums = |power: i32| [0, 1, 2].map(|c| views.iter().skip(c).step_by(3).map(|v| f64::from(*v).powi(power)).sum());
    let (sum, squares): ([f64; 3], [f64; 3]) = (sums(1), sums(2));
    let of = |c: usize| {
        let mean = sum[c] / count;
        [mean, (squares[c] / count - mean * mean).max(0.0).sqrt()]
    };
    let values: Vec<f32> = (0..3).flat_map(of).map(|v| v as f32).collect();
    Ok([("mean and deviation".into(), Tensor::from_vec(values, (3, 2), &Device::Cpu)?)].into())
}

/// As the loader makes them, by all threads.
struct OnCpu {
    images: Vec<Image>,
    recipe: ViewRecipe,
    round: u64,
}

impl OnCpu {
    fn views(&mut self) -> Vec<f32> {
        self.round += 1;
        let (recipe, round) = (&self.recipe, self.round);
        let mut out = vec![0f32; self.images.len() * recipe.size * recipe.size * 3];
        let each = out.par_chunks_mut(recipe.size * recipe.size * 3).zip(&self.images).enumerate();
        each.for_each(|(i, (out, image))| {
            let made = view(image, recipe, &mut Stream::keyed(1, &[round, i as u64]));
            let [mean, std] = [recipe.mean, recipe.std].map(|numbers| numbers.rgb().unwrap_or_default());
            normalize_into(&made, &mean, &std, out);
        });
        out
    }
}

impl Runner for OnCpu {
    fn inputs(&self) -> Result<Tensors> {
        stacked(&self.images)
    }

    fn outputs(&mut self) -> Result<Tensors> {
        statistics(&self.views())
    }

    fn run(&mut self) -> Result<()> {
        std::hint::black_box(self.views());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_by_hand() -> Result<()> {
        let found = statistics(&[1.0, 0.0, 5.0, 3.0, 0.0, 5.0])?;
        let values = found["mean and deviation"].to_vec2::<f32>()?;
        assert_eq!(values, [[2.0, 1.0], [0.0, 0.0], [5.0, 0.0]]);
        Ok(())
    }

    #[test]
    fn pictures_differ_and_use_the_range() -> Result<()> {
        let (a, b) = (picture(0, [50, 40])?, picture(1, [50, 40])?);
        assert_ne!(a, b);
        let (least, most) = (a.pixels.iter().min().unwrap(), a.pixels.iter().max().unwrap());
        assert!(*least < 90 && *most > 160, "{least} to {most}");
        Ok(())
    }
}
