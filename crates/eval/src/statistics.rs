//! Batch-norm statistics for a network that was never trained.

use std::sync::Arc;

use anyhow::{Result, bail};
use diptych_data::{Dataset, Subset};
use diptych_nn::Backbone;
use diptych_random::Stream;

use crate::Transform;

/// Images per batch.
const BATCH: usize = 32;
/// Batches: with batch norm's momentum of 0.1, 0.02 % of the initial statistics remain.
const BATCHES: usize = 80;

/// Lets the batch norms of `backbone` see images of `dataset`, so that their running statistics are those of the data.
///
/// A random network with its initial statistics (mean 0, variance 1) hardly tells images apart, and would make every trained one look good. 80
/// batches of 32 images in an order of its own go through it in training mode; nothing but running statistics changes. A smaller set goes
/// through several times.
///
/// # Errors
/// If there are fewer than 2 images, too many cannot be decoded, or the backbone refuses them.
pub fn estimate_statistics(backbone: &dyn Backbone, dataset: &Arc<dyn Dataset>, transform: &Transform) -> Result<()> {
    if dataset.len() < 2 {
        bail!("batch-norm statistics need at least 2 images, there are {}", dataset.len())
    }
    let batch = BATCH.min(dataset.len());
    // Folders are sorted by class: in that order, the last classes alone would make the statistics.
    let mut stream = Stream::named(0, "eval.statistics");
    let mut order: Vec<u32> = Vec::new();
    while order.len() < batch * BATCHES {
        order.extend(stream.permutation(dataset.len()).into_iter().map(|i| i as u32));
    }
    order.truncate(batch * BATCHES);
    let shuffled: Arc<dyn Dataset> = Arc::new(Subset::new(dataset.clone(), order)?);
    for batch in transform.batches(shuffled, batch)? {
        let images = batch?.images;
        if images.dim(0)? > 1 {
            backbone.forward_t(&images.to_device(&backbone.device())?, true)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, transform};
    use crate::{features, forward};
    use candle_core::{Device, Tensor};
    use diptych_nn::{BatchNorm, Group, ParamStore};

    /// A batch norm over colors, then their mean.
    struct Normed(BatchNorm);

    impl Backbone for Normed {
        fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
            diptych_kernels::global_avg_pool(&self.0.forward(x, train)?)
        }

        fn stages(&self, _x: &Tensor, _train: bool) -> candle_core::Result<Vec<Tensor>> {
            Ok(Vec::new())
        }

        fn out_dim(&self) -> usize {
            3
        }
    }

    /// Afterwards the features of a set that is sorted by class have mean 0 over the whole set, and the same run gives the same bits.
    #[test]
    fn statistics_are_those_of_the_whole_set() -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(600, 3));
        let run = |workers| -> Result<Vec<Vec<f32>>> {
            let mut params = ParamStore::new(0, &Device::Cpu);
            let backbone = Normed(BatchNorm::new(&mut params.scope(Group::Trunk), 3, 1.0)?);
            estimate_statistics(&backbone, &dataset, &transform(50, workers))?;
            Ok(features(&backbone, &dataset, &transform(50, 1))?.x.to_vec2()?)
        };
        let x = run(1)?;
        for c in 0..3 {
            let mean = x.iter().map(|row| row[c]).sum::<f32>() / 600.0;
            let power = x.iter().map(|row| row[c] * row[c]).sum::<f32>() / 600.0;
            assert!(mean.abs() < 0.05 && (0.8..1.05).contains(&power), "channel {c}: mean {mean}, power {power}");
        }
        assert!(x == run(3)?, "the number of workers changes the statistics");
        Ok(())
    }

    #[test]
    fn nothing_is_learned_from_one_image() -> Result<()> {
        let mut params = ParamStore::new(0, &Device::Cpu);
        let backbone = Normed(BatchNorm::new(&mut params.scope(Group::Trunk), 3, 1.0)?);
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(1, 1));
        assert!(estimate_statistics(&backbone, &dataset, &transform(4, 1)).is_err());
        let one = Tensor::ones((1, 2, 2, 3), candle_core::DType::F32, &Device::Cpu)?;
        assert_eq!(forward(&backbone, &one)?.dims(), [1, 3]);
        Ok(())
    }
}
