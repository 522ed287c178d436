//! A method of one's own behind the trait `Method`: alignment and uniformity (Wang and Isola, ICML 2020, arXiv:2005.10242).
//!
//! `cargo run --release -p diptych --example custom_method [STEPS]` trains it on drawn images and prints what it learned.
//! A method that recipes can name is the same code and one word more: see `docs/add-a-method.md`.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use diptych::augment::{Recipe as Augment, ViewOverrides};
use diptych::backbones::{BackboneConfig, ResNet};
use diptych::data::{Dataset, Loader, LoaderConfig, Synthetic, synthetic::Split};
use diptych::eval::{Transform, estimate_statistics, features, knn};
use diptych::heads::{Mlp, projector};
use diptych::losses::Loss;
use diptych::methods::{Embeddings, Forward, Method, Parts, pass};
use diptych::nn::{Backbone, Batch, Group, ParamStore};
use diptych::optim::{Optimizer, Rules, Sgd};

struct Spread {
    params: ParamStore,
    backbone: ResNet,
    projector: Mlp,
}

impl Spread {
    fn new() -> anyhow::Result<Self> {
        let mut params = ParamStore::new(/* seed */ 0, &Device::Cpu);
        let architecture = BackboneConfig { name: "resnet_tiny".into(), ..Default::default() }.architecture(32)?;
        let backbone = ResNet::new(&mut params.scope(Group::Trunk).pp("backbone"), &architecture)?;
        let blocks = projector::simclr(&[256, 64]);
        let mut scope = params.scope(Group::Projector);
        let projector = Mlp::new(&mut scope.pp("projector"), backbone.out_dim(), &blocks)?;
        Ok(Self { params, backbone, projector })
    }
}

/// The log of the mean over pairs of exp(-2 d^2), d the distance of two embeddings on the sphere (eq. 3).
fn uniformity(z: &Tensor) -> Result<Tensor> {
    let n = z.dim(0)? as f64;
    // d^2 = 2 - 2 cos; the pairs of an embedding with itself give 1 each.
    let pairs = ((z.matmul(&z.t()?)? * 4.0)? - 4.0)?.exp()?.sum_all()?;
    ((pairs - n)? / (n * (n - 1.0)))?.log()
}

impl Method for Spread {
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let z = |view: &Tensor| {
            let z = self.projector.forward(&self.backbone.forward_t(view, true)?, true)?;
            z.broadcast_div(&z.sqr()?.sum_keepdim(1)?.sqrt()?)
        };
        let live = batch.views.0.iter().map(z).collect::<Result<Vec<Tensor>>>()?;
        let watched = live.iter().map(Tensor::detach).collect();
        Ok(Embeddings { global: live.len(), live, watched, fixed: Vec::new() })
    }
    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let [a, b] = embeddings.live.as_slice() else { candle_core::bail!("this method takes two views") };
        let alignment = (a - b)?.sqr()?.sum(1)?.mean_all()?; // eq. 2
        let total = (&alignment + ((uniformity(a)? + uniformity(b)?)? / 2.0)?)?;
        Ok(Forward::new(Loss { total, parts: vec![("alignment", alignment.detach())] }, embeddings))
    }
    fn couples_batch(&self) -> bool {
        true
    }
    fn params(&self) -> &ParamStore {
        &self.params
    }
    fn backbone(&self) -> &dyn Backbone {
        &self.backbone
    }
}

fn main() -> anyhow::Result<()> {
    let steps: u64 = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    let sizes = if steps < 10 { (64, 32) } else { (4000, 1000) };
    let train: Arc<dyn Dataset> = Arc::new(Synthetic::new(0, Split::Train, sizes.0, 32));
    let test: Arc<dyn Dataset> = Arc::new(Synthetic::new(0, Split::Test, sizes.1, 32));
    let mut method = Spread::new()?;
    let recipe =
        Augment { crop_scale: [0.2, 1.0], blur: 0.0, views: vec![ViewOverrides::default(); 2], ..Augment::simclr(32) };
    let transform = Transform { size: 32, mean: recipe.mean, std: recipe.std, ..Transform::default() };
    let accuracy = |method: &Spread| -> anyhow::Result<f64> {
        let of = |set: &Arc<dyn Dataset>| features(method.backbone(), set, &transform);
        Ok(100.0 * knn(&of(&train)?, &of(&test)?, 20, 0.07)?.accuracy)
    };
    estimate_statistics(method.backbone(), &train, &transform)?;
    println!("20-NN accuracy before training: {:.1} %", accuracy(&method)?);

    let batch_size = 128.min(sizes.0);
    let config = LoaderConfig { batch_size, recipe, end: Some(steps), cache_bytes: 1 << 28, ..Default::default() };
    let mut optimizer = Sgd::new(0.9, 1e-4, false, Rules::default());
    for (step, batch) in Loader::new(train.clone(), config)?.enumerate() {
        let done = pass(&mut method, &batch?, Parts::Whole, &diptych::comm::Local)?;
        let Some(gradients) = done.gradients else { anyhow::bail!("the loss of step {step} is not finite") };
        optimizer.step(method.params(), &gradients, 0.06)?;
        if step % 20 == 0 {
            println!("step {step}: loss {:.3}", done.forward.loss.total.to_scalar::<f32>()?);
        }
    }
    println!("20-NN accuracy after {steps} steps: {:.1} %", accuracy(&method)?);
    Ok(())
}
