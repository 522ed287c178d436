//! A part of the rows, for what costs more than a pass over all of them.

use candle_core::{Result, Tensor};

/// At most `most` rows of `x`, spread evenly over it, and their places.
pub(crate) fn sample(x: &Tensor, most: usize) -> Result<(Tensor, Vec<u32>)> {
    let rows = x.dim(0)?;
    let n = rows.min(most);
    let places: Vec<u32> = (0..n).map(|i| (i * rows / n) as u32).collect();
    let some = if n == rows { x.clone() } else { x.index_select(&Tensor::new(places.as_slice(), x.device())?, 0)? };
    Ok((some, places))
}
