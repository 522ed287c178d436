//! What ops on two sets of embeddings ask of their inputs.

use candle_core::{Result, Tensor, bail};

use crate::dense::input;

/// `z1`, `z2` as contiguous tensors, when both are `[N, D]` of one shape, f32, with N >= 2 and D >= 1.
pub(crate) fn pair(op: &str, z1: &Tensor, z2: &Tensor) -> Result<(Tensor, Tensor)> {
    if z1.dims() != z2.dims() {
        bail!("{op}: the two views must have one shape, are {:?} and {:?}", z1.dims(), z2.dims())
    }
    let &[n, d] = z1.dims() else { bail!("{op}: embeddings are [N, D], got shape {:?}", z1.dims()) };
    if n < 2 || d == 0 {
        bail!("{op}: needs at least 2 rows and 1 column, got [{n}, {d}]")
    }
    Ok((input(op, "z1", z1)?, input(op, "z2", z2)?))
}
