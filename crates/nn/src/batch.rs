//! What a data loader hands to a method.

use candle_core::{DType, Result, Tensor, bail};

/// V views (random crops) of the same N images; each is `[N, H, W, C]`. Row i of every view shows image i.
#[derive(Clone, Debug)]
pub struct Views(pub Vec<Tensor>);

impl Views {
    /// The views as numbers of `dtype`. Networks compute in the precision of their images: bf16 images make bf16 activations.
    ///
    /// # Errors
    /// If the device can't convert.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.0.iter().map(|view| view.to_dtype(dtype)).collect::<Result<_>>().map(Self)
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
