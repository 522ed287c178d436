//! What every method of the registry must do.

use std::sync::Arc;

use candle_core::{DType, Device, Result};
use diptych_backbones::{BackboneConfig, ResNet};
use diptych_comm::{Collective, Local};
use diptych_nn::{Backbone, Batch, Init, Role, Scope, Views, backward};

use crate::{Build, Embeddings, Entry, Method, REGISTRY, Step};

const SIZE: usize = 8;

/// Settings of a method in the small: short heads, dictionaries that wrap.
fn settings(name: &str) -> toml::Table {
    let text = match name {
        "moco" => "projector = [16, 8]\nqueue = 11",
        "byol" => "projector = [16, 8]\npredictor_hidden = 12",
        "simsiam" => "projector = [16, 8]\npredictor_hidden = 6",
        "swav" => {
            "projector = [16, 8]\nprototypes = 5\nqueue = 15\nqueue_start_epoch = 0\nfreeze_prototypes_epochs = 0"
        }
        "deepcluster" => "projector = [16, 8]\nprototypes = [4, 3, 5]",
        "adco" => "projector = [16, 8]\nnegatives = 9",
        "contrastive_clustering" => "projector = [16, 8]\nclusters = 4",
        _ => "projector = [16, 8]",
    };
    toml::from_str(text).unwrap()
}

fn build(entry: &Entry, seed: u64) -> Result<Box<dyn Method>> {
    let config = BackboneConfig { name: "resnet_tiny".into(), base: Some(4), ..BackboneConfig::default() };
    let architecture = config.architecture(SIZE).map_err(candle_core::Error::wrap)?;
    let table = (entry.resolve)(settings(entry.name), architecture.out_dim())?;
    let backbone =
        |scope: &mut Scope| -> Result<Box<dyn Backbone>> { Ok(Box::new(ResNet::new(scope, &architecture)?)) };
    let comm: Arc<dyn Collective> = Arc::new(Local);
    let mut method = (entry.build)(&Build {
        config: &table,
        backbone: &backbone,
        comm: &comm,
        bn_groups: 1,
        device: &Device::Cpu,
        seed,
        dataset_len: 64,
        total_steps: 10,
    })?;
    if method.surveys() {
        method.survey(&batch(entry, 6)?)?;
    }
    method.before_step(Step { index: 0, total: 10, epoch: 0, steps_per_epoch: 5 })?;
    Ok(method)
}

fn batch(entry: &Entry, n: usize) -> Result<Batch> {
    let views = (0..entry.views)
        .map(|v| Init::Normal(1.0).draw(&[n, SIZE, SIZE, 3], v as u64, "view", &Device::Cpu))
        .collect::<Result<_>>()?;
    Ok(Batch { views: Views(views), labels: None, index: (0..n as u32).collect() })
}

/// A projector's last norm without a shift leaves nothing that a bias before it could change.
#[test]
fn every_trainable_parameter_has_a_gradient() -> Result<()> {
    for entry in REGISTRY {
        let mut method = build(entry, 1)?;
        let gradients = backward(&method.forward(&batch(entry, 6)?)?.loss.total)?;
        for (name, param) in method.params().trainable() {
            let gradient =
                gradients.get(&param.var).unwrap_or_else(|| panic!("{}: {name} has no gradient", entry.name));
            let norm = gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
            assert!(norm > 0.0 && norm.is_finite(), "{}: {name} has a gradient of norm {norm}", entry.name);
        }
        for (name, param) in method.params().iter().filter(|(_, param)| param.role == Role::Buffer) {
            assert!(gradients.get(&param.var).is_none(), "{}: buffer {name} has a gradient", entry.name);
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
