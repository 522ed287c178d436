//! NT-Xent on a GPU: both views' rows against themselves.

use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::NAME;
use crate::contrast::{Arithmetic, Gradient, Prepared, Problem, Rule, Weights, prepare};
use crate::cuda::{Buffer, Gpu, Memory};

/// What the backward pass needs.
pub(super) struct Saved {
    arithmetic: Arithmetic,
    /// `[2N, D]`: the rows of both views at length 1 (or 0), rounded as products need them.
    z: Prepared,
    /// `[2N]`: what stands for each row's log-sum-exp.
    of_rows: Buffer,
}

/// Each row's positive is its other view, and no row sees itself.
struct Views {
    positive: Rule,
    excluded: Rule,
}

impl Views {
    fn of(n: usize) -> Self {
        let steps = |low, high| Rule::Steps { half: n, low, high };
        Self { positive: steps(n, 0), excluded: steps(0, n) }
    }

    fn problem<'a>(&'a self, arithmetic: Arithmetic, z: &'a Prepared, temperature: f64) -> Problem<'a> {
        let (rows, columns) = (z.operand(), z.operand());
        let (positive, excluded) = (&self.positive, &self.excluded);
        Problem { arithmetic, rows, columns, temperature, bounded: true, positive, excluded }
    }
}

pub(super) fn forward(
    s1: &CudaStorage,
    l1: &Layout,
    s2: &CudaStorage,
    l2: &Layout,
    temperature: f64,
) -> Result<(CudaStorage, Saved)> {
    let gpu = Gpu::new(&s1.device);
    let views = [Memory::of_storage(NAME, s1, l1)?, Memory::of_storage(NAME, s2, l2)?];
    let arithmetic = Arithmetic::of(views[0].dtype());
    let &[n, d] = l1.dims() else { candle_core::bail!("{NAME}: embeddings are [N, D], got {:?}", l1.dims()) };
    let z = prepare(&gpu, arithmetic, views, d, true)?;
    let joined = Views::of(n).problem(arithmetic, &z, temperature).forward(&gpu, None)?;
    Ok((joined.loss.into_storage(), Saved { arithmetic, z, of_rows: joined.of_rows }))
}

/// The gradients for both views of `upstream` times the loss.
pub(super) fn backward(
    gpu: &Gpu,
    saved: &Saved,
    z: [&Tensor; 2],
    upstream: &Tensor,
    temperature: f64,
) -> Result<[Tensor; 2]> {
    let views = [Memory::of(NAME, gpu, z[0])?, Memory::of(NAME, gpu, z[1])?];
    let (n, d) = z[0].dims2()?;
    let sums =
        Views::of(n).problem(saved.arithmetic, &saved.z, temperature).weighted(gpu, Weights::Both, &saved.of_rows)?;
    let upstream = Memory::of(NAME, gpu, upstream)?;
    let factor = 1.0 / (2.0 * n as f64 * temperature);
    let gradient = Gradient { n: 2 * n, width: d, sums: Some(&sums), beside: None, upstream, factor };
    gradient.finish_normalized(gpu, views, &saved.z)
}
