//! Shuffle-BN (He et al. 2020, arXiv:1911.05722, section 3.3): keys go through their encoder in another order than queries.
//!
//! Where batch statistics are taken by groups, a query and its key would share them, and the statistics alone would tell which belong together.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use diptych_comm::{Collective, all_gather};
use diptych_random::Stream;

use crate::Build;

/// Keeps the stream of the order apart from every other use of the seed.
const SHUFFLE: u64 = u64::from_be_bytes(*b"shuffbn\0");

/// The order in which keys go through their encoder, over all ranks.
pub(crate) struct Shuffle {
    comm: Arc<dyn Collective>,
    seed: u64,
    on: bool,
}

impl Shuffle {
    /// With one group of statistics the order changes nothing, and is left as it is.
    pub(crate) fn new(build: &Build, wanted: bool) -> Self {
        Self { comm: build.comm.clone(), seed: build.seed, on: wanted && build.bn_groups > 1 }
    }

    /// What `encode` makes of `x` `[N, ..]`, `[N, D]` in the rows' own order; the order in between is drawn by (seed, step, view).
    ///
    /// Gradients go back through it, if `encode` has any.
    pub(crate) fn encode(
        &self,
        x: &Tensor,
        step: u64,
        view: usize,
        encode: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if !self.on {
            return encode(x);
        }
        let (rows, rank) = (x.dim(0)?, self.comm.rank());
        let order = Stream::keyed(self.seed, &[SHUFFLE, step, view as u64]).permutation(rows * self.comm.size());
        let mut place = vec![0u32; order.len()];
        order.iter().zip(0u32..).for_each(|(&row, at)| place[row] = at);
        let order: Vec<u32> = order.into_iter().map(|row| row as u32).collect();
        let own = |of: &[u32]| Tensor::new(&of[rank * rows..(rank + 1) * rows], x.device());
        let shuffled = self.comm.all_gather(x)?.index_select(&own(&order)?, 0)?;
        all_gather(&self.comm, &encode(&shuffled)?)?.index_select(&own(&place)?, 0)
    }
}
