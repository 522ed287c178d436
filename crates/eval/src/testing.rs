//! A data set and a network for tests.

use candle_core::Tensor;
use diptych_augment::{Image, Picture};
use diptych_data::{DataError, Dataset};
use diptych_nn::Backbone;
use diptych_random::Stream;

use crate::Transform;

/// Noisy 8 x 8 pictures, one hue per class, sorted by class as folders are.
pub(crate) struct Colors {
    len: usize,
    names: Vec<String>,
}

impl Colors {
    pub(crate) fn new(len: usize, classes: u32) -> Self {
        Self { len, names: (0..classes).map(|c| format!("class {c}")).collect() }
    }
}

impl Dataset for Colors {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, i: usize) -> Result<Picture, DataError> {
        let class = self.label(i).unwrap_or_default() as usize;
        let mut stream = Stream::keyed(3, &[i as u64]);
        let pixels = (0..8 * 8 * 3)
            .map(|p| {
                let level = if p % 3 == class % 3 { 170.0 } else { 60.0 };
                (level + 50.0 * stream.uniform()) as u8
            })
            .collect();
        Image::new(8, 8, pixels).map(Into::into).map_err(|e| DataError::Invalid(e.to_string()))
    }

    fn label(&self, i: usize) -> Option<u32> {
        Some((i * self.names.len() / self.len) as u32)
    }

    fn classes(&self) -> &[String] {
        &self.names
    }

    fn name(&self, i: usize) -> String {
        format!("{i:05}")
    }

    fn fingerprint(&self) -> u64 {
        self.len as u64
    }
}

/// The mean color as a representation: F = 3.
pub(crate) struct MeanColor;

impl Backbone for MeanColor {
    fn forward_t(&self, x: &Tensor, _train: bool) -> candle_core::Result<Tensor> {
        diptych_kernels::global_avg_pool(x)
    }

    fn stages(&self, _x: &Tensor, _train: bool) -> candle_core::Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    fn out_dim(&self) -> usize {
        3
    }
}

/// Pictures of 8 pixels, mean 0.5, standard deviation 0.25.
pub(crate) fn transform(batch_size: usize, workers: usize) -> Transform {
    Transform { size: 8, mean: [0.5; 3].into(), std: [0.25; 3].into(), batch_size, workers, max_error_share: 0.05 }
}
