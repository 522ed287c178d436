//! The ceiling of the embedded data set: the quickstart's backbone trained with labels.
//!
//! `cargo run --release -p diptych --example supervised [EPOCHS]` prints the accuracy on the test split. It is also how
//! to train one's own objective on Diptych's crates: a loader, a backbone, a linear layer, an optimizer.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::log_softmax;
use diptych::augment::{Recipe as Augment, ViewOverrides};
use diptych::backbones::ResNet;
use diptych::data::{Loader, LoaderConfig, Synthetic, eval_batches, synthetic::Split};
use diptych::nn::{Backbone, Group, Linear, ParamStore, backward};
use diptych::optim::{Optimizer, Rules, Schedule, Sgd, WarmupCosine};
use diptych::trainer::Recipe;

const BATCH: usize = 128;

fn main() -> Result<()> {
    let epochs: u64 = std::env::args().nth(1).map_or(Ok(15), |text| text.parse()).context("EPOCHS is a number")?;
    let recipe = Recipe::resolve("quickstart", diptych::recipes::find("simclr/quickstart")?)?;
    let size = recipe.augment.size;
    let train = Arc::new(Synthetic::new(0, Split::Train, 10_000, size));
    let test = Arc::new(Synthetic::new(0, Split::Test, 2_000, size));

    let mut params = ParamStore::new(0, &Device::Cpu);
    let backbone = ResNet::new(&mut params.scope(Group::Trunk), &recipe.backbone.architecture(size)?)?;
    let head = Linear::new(&mut params.scope(Group::Projector).pp("fc"), backbone.out_dim(), 10, true)?;

    let mild = Augment { crop_scale: [0.6, 1.0], jitter: 0.0, grayscale: 0.0, blur: 0.0, ..recipe.augment };
    let augment = Augment { views: vec![ViewOverrides::default()], ..mild };
    let steps = epochs * (10_000 / BATCH as u64);
    let config = LoaderConfig {
        batch_size: BATCH,
        recipe: augment,
        end: Some(steps),
        cache_bytes: 1 << 30,
        ..Default::default()
    };
    let schedule = WarmupCosine { base: 0.1, warmup: steps / 20, total: steps, final_ratio: 0.0 };
    let mut optimizer = Sgd::new(0.9, 5e-4, true, Rules::default());

    for (step, batch) in Loader::new(train, config)?.enumerate() {
        let batch = batch?;
        let labels = Tensor::new(batch.labels.context("drawn images have labels")?, &Device::Cpu)?;
        let logits = head.forward(&backbone.forward_t(&batch.views.0[0], true)?, true)?;
        let picked = log_softmax(&logits, D::Minus1)?.gather(&labels.unsqueeze(1)?, 1)?;
        let loss = picked.mean_all()?.neg()?;
        optimizer.step(&params, &backward(&loss)?, schedule.at(step as u64))?;
        if step % 50 == 0 {
            println!("step {step} of {steps}: loss {:.3}", loss.to_scalar::<f32>()?);
        }
    }

    let (mut right, mut all) = (0, 0);
    for batch in eval_batches(test, 256, size, recipe.augment.mean, recipe.augment.std, 1, 0.0)? {
        let batch = batch?;
        let logits = head.forward(&backbone.forward_t(&batch.images, false)?, false)?;
        let predicted = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let labels = batch.labels.context("drawn images have labels")?;
        right += predicted.iter().zip(&labels).filter(|(a, b)| a == b).count();
        all += labels.len();
    }
    println!("supervised accuracy on {all} test images: {:.1} %", 100.0 * right as f64 / all as f64);
    Ok(())
}
