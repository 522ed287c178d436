//! What every method of the registry must do.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use diptych_backbones::{BackboneConfig, ResNet};
use diptych_comm::{Collective, Local};
use diptych_nn::{Backbone, Batch, Init, Layout, Role, Scope, Views, backward};
use diptych_optim::{Optimizer, Rules, Sgd};

use crate::{Build, Embeddings, Entry, Method, Parts, REGISTRY, Step, pass};

mod chunks;
mod multi_crop;
mod ranks;
mod resume;

const SIZE: usize = 8;
/// Steps of the run that methods are built for, and of an epoch.
const TOTAL: u64 = 10;
const EPOCH: u64 = 2;

/// Settings of a method in the small: short heads, dictionaries that wrap.
fn settings(name: &str) -> toml::Table {
    let text = match name {
        "moco" => "projector = [16, 8]\nqueue = 11",
        "byol" => "projector = [16, 8]\npredictor_hidden = 12",
        "simsiam" => "projector = [16, 8]\npredictor_hidden = 6",
        "swav" => {
            "projector = [16, 8]\nprototypes = 5\nqueue = 17\nqueue_start_epoch = 0\nfreeze_prototypes_epochs = 0"
        }
        "deepcluster" => "projector = [16, 8]\nprototypes = [4, 3, 5]",
        "adco" => "projector = [16, 8]\nnegatives = 9",
        "contrastive_clustering" => "projector = [16, 8]\nclusters = 4",
        _ => "projector = [16, 8]",
    };
    toml::from_str(text).unwrap()
}

fn build(entry: &Entry, seed: u64) -> Result<Box<dyn Method>> {
    let mut method = build_on(entry, seed, &(Arc::new(Local) as Arc<dyn Collective>), 1, "")?;
    if method.surveys() {
        method.survey(&batch(entry, 6)?)?;
    }
    method.before_step(step(0))?;
    Ok(method)
}

/// A method on one of several ranks, with `bn_groups` groups over all of them and further settings. Nothing has been surveyed.
fn build_on(
    entry: &Entry,
    seed: u64,
    comm: &Arc<dyn Collective>,
    bn_groups: usize,
    more: &str,
) -> Result<Box<dyn Method>> {
    let config = BackboneConfig { name: "resnet_tiny".into(), base: Some(4), ..BackboneConfig::default() };
    let architecture = config.architecture(SIZE).map_err(candle_core::Error::wrap)?;
    let mut table = settings(entry.name);
    table.extend(more.parse::<toml::Table>().unwrap());
    let table = (entry.resolve)(table, architecture.out_dim())?;
    let backbone =
        |scope: &mut Scope| -> Result<Box<dyn Backbone>> { Ok(Box::new(ResNet::new(scope, &architecture)?)) };
    (entry.build)(&Build {
        config: &table,
        backbone: &backbone,
        comm,
        bn_groups,
        device: &Device::Cpu,
        seed,
        dataset_len: 64,
        total_steps: TOTAL,
    })
}

fn step(index: u64) -> Step {
    Step { index, total: TOTAL, epoch: index / EPOCH, steps_per_epoch: EPOCH }
}

/// What a step of a run sees: other views in each, of images that come again in every epoch.
fn batch_at(entry: &Entry, n: usize, index: u64) -> Result<Batch> {
    let views = (0..entry.views as u64)
        .map(|v| Init::Normal(1.0).draw(&[n, SIZE, SIZE, 3], 10 * index + v, "view", &Device::Cpu))
        .collect::<Result<_>>()?;
    let first = (index % EPOCH) as usize * n;
    Ok(Batch { views: Views(views), labels: None, index: (first..first + n).map(|i| (i % 64) as u32).collect() })
}

/// Everything that a method is made of: parameters, running statistics, targets, queues.
fn state(method: &dyn Method) -> Result<Vec<(String, Tensor)>> {
    let mut all = Vec::new();
    let stores = [("params", method.params())].into_iter().chain(method.extra_state());
    for (store, params) in stores {
        for (name, tensor) in params.tensors(Layout::Ohwi)? {
            all.push((format!("{store}/{name}"), tensor));
        }
    }
    Ok(all)
}

/// SGD with momentum.
fn optimizer() -> Box<dyn Optimizer> {
    Box::new(Sgd::new(0.9, 1e-4, false, Rules::default()))
}

/// The norm of a tensor as one long vector.
fn norm(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}

/// `||a - b||`.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    norm(&(a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?)
}

fn batch(entry: &Entry, n: usize) -> Result<Batch> {
    batch_at(entry, n, 0)
}

/// Biases that a batch norm takes away again: their gradient is rounding and nothing more.
fn taken_away(method: &str, name: &str) -> bool {
    match method {
        "byol" => ["projector.0.bias", "predictor.0.bias"].contains(&name),
        "swav" | "deepcluster" => name == "projector.0.bias",
        _ => false,
    }
}

/// In one of the first three steps at least; and what no optimizer may touch has none.
#[test]
fn every_trainable_parameter_has_a_gradient() -> Result<()> {
    for entry in REGISTRY {
        let mut method = build(entry, 1)?;
        let mut optimizer = optimizer();
        let mut largest: Vec<(String, f64)> = Vec::new();
        for index in 0..3 {
            if index > 0 {
                method.before_step(step(index))?;
            }
            let batch = batch_at(entry, 6, index)?;
            let gradients = pass(method.as_mut(), &batch, Parts::Whole, &Local)?.gradients.expect("a finite loss");
            let named: Vec<(String, f64)> = method
                .params()
                .trainable()
                .map(|(name, param)| Ok((name.to_string(), gradients.get(&param.var).map_or(Ok(0.0), norm)?)))
                .collect::<Result<_>>()?;
            let whole = named.iter().map(|(_, norm)| norm * norm).sum::<f64>().sqrt();
            let shares = named.into_iter().map(|(name, norm)| (name, norm / whole));
            match largest.is_empty() {
                true => largest = shares.collect(),
                false => largest.iter_mut().zip(shares).for_each(|((_, most), (_, share))| *most = most.max(share)),
            }
            let buffers = method.params().iter().filter(|(_, param)| param.role == Role::Buffer);
            let stores = method.extra_state();
            let further = stores.iter().flat_map(|(_, store)| store.iter());
            for (name, param) in buffers.chain(further) {
                assert!(gradients.get(&param.var).is_none(), "{}: {name} has a gradient", entry.name);
            }
            optimizer.step(method.params(), &gradients, 0.02)?;
            method.after_step(step(index))?;
        }
        for (name, share) in largest {
            let idle = share < 1e-6;
            assert_eq!(idle, taken_away(entry.name, &name), "{}: {name} has {share:.1e} of the gradient", entry.name);
        }
    }
    Ok(())
}

/// To first order a step of size lr against the gradient lowers the loss by lr ||g||^2.
#[test]
fn a_small_step_lowers_the_loss_as_the_gradient_says() -> Result<()> {
    for entry in REGISTRY {
        let (mut method, batch) = (build(entry, 2)?, batch(entry, 6)?);
        let held = method.embed(&batch)?;
        let before = method.objective(&held, &batch.index)?.loss.total;
        let gradients = backward(&before)?;
        let mut square = 0.0;
        for (_, param) in method.params().trainable() {
            square += f64::from(gradients.get(&param.var).unwrap().sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let value = f64::from(before.to_scalar::<f32>()?);
        // Small enough for the first order, large enough for f32 to tell the two losses apart.
        let lr = 2e-3 * value.abs().max(1.0) / square;
        for (_, param) in method.params().trainable() {
            let step = (gradients.get(&param.var).unwrap() * lr)?;
            param.var.set(&(param.var.as_detached_tensor() - step)?)?;
        }
        let moved = Embeddings { fixed: held.fixed, ..method.embed(&batch)? };
        let after = f64::from(method.objective(&moved, &batch.index)?.loss.total.to_scalar::<f32>()?);
        let ratio = (value - after) / (lr * square);
        assert!((ratio - 1.0).abs() < 0.05, "{}: the loss fell by {ratio} of what the gradient says", entry.name);
    }
    Ok(())
}

#[test]
fn the_seed_decides_the_start_and_nothing_else_does() -> Result<()> {
    for entry in REGISTRY {
        let loss = |seed| build(entry, seed)?.forward(&batch(entry, 6)?)?.loss.total.to_scalar::<f32>();
        assert_eq!(loss(3)?.to_bits(), loss(3)?.to_bits(), "{}", entry.name);
        assert_ne!(loss(3)?, loss(4)?, "{}", entry.name);
    }
    Ok(())
}

#[test]
fn embeddings_come_one_a_view_without_a_graph() -> Result<()> {
    for entry in REGISTRY {
        let forward = build(entry, 5)?.forward(&batch(entry, 6)?)?;
        assert_eq!(forward.embeddings.len(), entry.views, "{}", entry.name);
        for z in &forward.embeddings {
            assert_eq!((z.dims(), z.dtype(), z.track_op()), (&[6, 8][..], DType::F32, false), "{}", entry.name);
        }
    }
    Ok(())
}

#[test]
fn a_wrong_number_of_views_is_refused() -> Result<()> {
    for entry in REGISTRY {
        let mut batch = batch(entry, 4)?;
        batch.views.0.pop();
        let error = build(entry, 6)?.forward(&batch).unwrap_err().to_string();
        assert!(error.contains("takes 2 views"), "{}: {error}", entry.name);
    }
    Ok(())
}

#[test]
fn wrong_settings_are_named() {
    for (name, table, word) in [
        ("simclr", "temperature = 0.0", "temperature"),
        ("simclr", "projector = []", "projector"),
        ("barlow_twins", "projector = [8, 0]", "projector"),
        ("barlow_twins", "lambda = -1.0", "lambda"),
        ("barlow_twins", "lamda = 1.0", "lamda"),
    ] {
        let entry = crate::find(name).unwrap();
        let error = (entry.resolve)(toml::from_str(table).unwrap(), 8).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
