//! The losses alone: a plain Candle model and candle-nn's optimizer, with NT-Xent or Barlow Twins from Diptych.
//!
//! `cargo run --release -p diptych --example losses_alone [STEPS]` trains a small model on drawn images under each loss, and
//! prints how alike it finds two views of one image, and views of two.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear};
use diptych::augment::Recipe;
use diptych::data::{Dataset, Synthetic, synthetic::Split};
use diptych::losses::{Balance, BarlowTwins, NtXent};
use diptych::metrics::{negative_cosine, positive_cosine};
use diptych::random::Stream;

const BATCH: usize = 64;
const PIXELS: usize = 16 * 16 * 3;

struct Model(Linear, Linear);

impl Model {
    fn new(vars: VarBuilder) -> candle_core::Result<Self> {
        Ok(Self(linear(PIXELS, 128, vars.pp("hidden"))?, linear(128, 32, vars.pp("out"))?))
    }
}

impl Module for Model {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.1.forward(&self.0.forward(x)?.gelu()?)
    }
}

/// Two views of the images of a step, `[N, PIXELS]` each: row i of both is one image.
fn views(images: &Synthetic, step: usize) -> Result<[Tensor; 2]> {
    let recipe = Recipe { crop_scale: [0.5, 1.0], blur: 0.0, ..Recipe::simclr(16) };
    let view = |which: u64, out: &mut Vec<f32>| -> Result<()> {
        for row in 0..BATCH {
            let index = (step * BATCH + row) % images.len();
            let mut random = Stream::keyed(0, &[step as u64, row as u64, which]);
            let made = images.get(index)?.random_view(&recipe.views()[0], &mut random);
            made.normalize_onto(&recipe.mean, &recipe.std, out);
        }
        Ok(())
    };
    let mut pixels = [Vec::new(), Vec::new()];
    (0..2).try_for_each(|which| view(which as u64, &mut pixels[which]))?;
    let [a, b] = pixels.map(|values| Tensor::from_vec(values, (BATCH, PIXELS), &Device::Cpu));
    Ok([a?, b?])
}

fn main() -> Result<()> {
    let steps: usize = std::env::args().nth(1).map_or(Ok(150), |text| text.parse())?;
    let images = Synthetic::new(0, Split::Train, 2000, 32);
    for name in ["NT-Xent", "Barlow Twins"] {
        let weights = VarMap::new();
        let model = Model::new(VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu))?;
        let mut optimizer = AdamW::new(weights.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() })?;
        for step in 0..steps {
            let [x1, x2] = views(&images, step)?;
            let (z1, z2) = (model.forward(&x1)?, model.forward(&x2)?);
            let loss = match name {
                "NT-Xent" => NtXent::new(0.2).loss(&z1, &z2)?,
                _ => BarlowTwins { balance: Balance::Lambda(0.02) }.loss(&z1, &z2)?,
            };
            optimizer.backward_step(&loss.total)?;
            if step % 50 == 0 {
                println!("{name}, step {step}: loss {:.3}", loss.total.to_scalar::<f32>()?);
            }
        }
        // Images that it has not been trained on, where the steps do not reach them.
        let [x1, x2] = views(&images, steps)?;
        let (z1, z2) = (model.forward(&x1)?, model.forward(&x2)?);
        let (one, two) = (positive_cosine(&z1, &z2)?, negative_cosine(&z1, &z2)?);
        println!("{name}: cosine of two views of one image {one:.2}, of two images {two:.2}");
    }
    Ok(())
}
