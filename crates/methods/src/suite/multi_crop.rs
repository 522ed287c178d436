//! Multi-crop belongs to the recipe of views, and every method takes it.

use super::*;

const SMALL: usize = 6;

fn with_small_crops(entry: &Entry, seed: u64) -> Result<Batch> {
    let mut batch = batch(entry, 6)?;
    for view in 0..2 {
        batch.views.0.push(Init::Normal(1.0).draw(&[6, SMALL, SMALL, 3], seed + view, "crop", &Device::Cpu)?);
    }
    Ok(batch)
}

/// Small crops behind the two large ones are seen by the loss, and gradients come back from it.
#[test]
fn every_method_learns_from_small_crops() -> Result<()> {
    for entry in REGISTRY {
        let loss = |seed| -> Result<Tensor> {
            let batch = with_small_crops(entry, seed)?;
            let mut method = build_on(entry, 1, &(Arc::new(Local) as Arc<dyn Collective>), 1, "")?;
            if method.surveys() {
                method.survey(&batch)?;
            }
            method.before_step(step(0))?;
            Ok(method.forward(&batch)?.loss.total)
        };
        let value = |loss: &Tensor| loss.to_scalar::<f32>();
        let (first, other) = (loss(10)?, loss(20)?);
        assert!(value(&first)?.is_finite() && value(&first)? != value(&other)?, "{}", entry.name);

        let mut method = build(entry, 1)?;
        let gradients = backward(&method.forward(&with_small_crops(entry, 10)?)?.loss.total)?;
        for (name, param) in method.params().trainable() {
            let gradient = gradients.get(&param.var);
            assert!(gradient.is_some_and(|g| norm(g).is_ok_and(f64::is_finite)), "{}: {name}", entry.name);
        }
    }
    Ok(())
}

/// A target must be global: one large view and a small one are not enough.
#[test]
fn two_views_of_different_sizes_are_refused() -> Result<()> {
    for entry in REGISTRY {
        let mut batch = with_small_crops(entry, 10)?;
        batch.views.0.remove(1);
        let error = build(entry, 1)?.forward(&batch).unwrap_err().to_string();
        assert!(error.contains("of the same size"), "{}: {error}", entry.name);
    }
    Ok(())
}
