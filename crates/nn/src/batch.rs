//! What a data loader hands to a method.

use candle_core::{DType, Device, Result, Tensor, bail};

/// V views (random crops) of the same N images; each is `[N, H, W, C]`. Row i of every view shows image i.
#[derive(Clone, Debug)]
pub struct Views(pub Vec<Tensor>);

impl Views {
    /// The views on a device, as numbers of `dtype`. Networks compute in the precision of their images: bf16 images make bf16 activations.
    ///
    /// # Errors
    /// If the device can't convert, or has no room.
    pub fn to(&self, device: &Device, dtype: DType) -> Result<Self> {
        self.0.iter().map(|view| view.to_device(device)?.to_dtype(dtype)).collect::<Result<_>>().map(Self)
    }

    /// The two views of a method that takes exactly two.
    ///
    /// # Errors
    /// If there are not exactly two.
    pub fn pair(&self) -> Result<[&Tensor; 2]> {
        match self.0.as_slice() {
            [x1, x2] => Ok([x1, x2]),
            other => bail!("this method takes 2 views of each image, the recipe's augment.views makes {}", other.len()),
        }
    }
}

/// One step's input.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The views of the batch's images.
    pub views: Views,
    /// One label per image, where the data set has them; no method looks at it.
    pub labels: Option<Vec<u32>>,
    /// The images' places in the data set.
    pub index: Vec<u32>,
}

impl Batch {
    /// `count` images from `start` on, with all their views.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn rows(&self, start: usize, count: usize) -> Result<Self> {
        let end = start + count;
        if end > self.index.len() {
            bail!("a batch of {} images has no rows {start} to {end}", self.index.len())
        }
        Ok(Self {
            views: Views(self.views.0.iter().map(|view| view.narrow(0, start, count)).collect::<Result<_>>()?),
            labels: self.labels.as_ref().map(|labels| labels[start..end].to_vec()),
            index: self.index[start..end].to_vec(),
        })
    }

    /// The batch in `count` parts of consecutive images, all of the same size.
    ///
    /// # Errors
    /// If its images do not divide into so many parts.
    pub fn parts(&self, count: usize) -> Result<Vec<Self>> {
        let images = self.index.len();
        if count == 0 || !images.is_multiple_of(count) {
            bail!("{images} images do not divide into {count} parts of the same size")
        }
        let rows = images / count;
        (0..count).map(|part| self.rows(part * rows, rows)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn parts_hold_consecutive_rows_of_everything() -> Result<()> {
        let view = Tensor::arange(0f32, 12.0, &Device::Cpu)?.reshape((6, 1, 1, 2))?;
        let batch = Batch { views: Views(vec![view]), labels: Some((10..16).collect()), index: (0..6).collect() };
        let parts = batch.parts(3)?;
        assert_eq!(parts.iter().map(|part| part.index.clone()).collect::<Vec<_>>(), [[0, 1], [2, 3], [4, 5]]);
        assert_eq!(parts[1].labels, Some(vec![12, 13]));
        assert_eq!(parts[2].views.0[0].flatten_all()?.to_vec1::<f32>()?, [8.0, 9.0, 10.0, 11.0]);
        assert!(batch.parts(4).unwrap_err().to_string().contains("6 images do not divide into 4 parts"));
        assert!(batch.rows(4, 3).is_err());
        Ok(())
    }
}
