//! Which rows share the statistics of a batch norm.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};
use diptych_comm::{Collective, Local};
use diptych_kernels::batch_norm::Ranks;

/// How the rows of a global batch, those of all ranks below each other, are cut into groups with statistics of their own.
///
/// One group is a batch norm over all ranks. As many groups as ranks is one that every rank does for itself. On one rank, several groups are
/// the split batch norm of MoCo.
#[derive(Clone, Debug)]
pub struct NormGroups {
    comm: Arc<dyn Collective>,
    total: usize,
}

impl Default for NormGroups {
    /// One rank, one group.
    fn default() -> Self {
        Self { comm: Arc::new(Local), total: 1 }
    }
}

impl NormGroups {
    /// `total` groups over all ranks of `comm`.
    ///
    /// # Errors
    /// If neither the groups divide by the ranks, nor the ranks by the groups.
    pub fn new(comm: &Arc<dyn Collective>, total: usize) -> Result<Self> {
        let ranks = comm.size();
        if total == 0 || !(total.is_multiple_of(ranks) || ranks.is_multiple_of(total)) {
            bail!(
                "trainer.bn_groups = {total} over {ranks} ranks: one of both numbers must be a multiple of the other, \
                 so that groups and ranks share no rows in part"
            )
        }
        Ok(Self { comm: comm.clone(), total })
    }

    /// How many groups the rows of this rank make.
    pub fn on_this_rank(&self) -> usize {
        (self.total / self.comm.size()).max(1)
    }

    /// The ranks that share a group with this one, where there are others.
    pub(crate) fn sharing(&self) -> Option<Arc<dyn Ranks>> {
        let count = self.comm.size() / self.total.min(self.comm.size());
        let first = self.comm.rank() / count * count;
        (count > 1).then(|| Arc::new(Gather { comm: self.comm.clone(), first, count }) as Arc<dyn Ranks>)
    }

    /// The statistics `[groups, C]` of all groups of the run, for running statistics that are the same on every rank.
    pub(crate) fn all(&self, statistics: &Tensor) -> Result<Tensor> {
        if self.total == 1 || self.comm.size() == 1 {
            return Ok(statistics.clone());
        }
        let channels = statistics.elem_count() / self.on_this_rank();
        self.comm.all_gather(&statistics.reshape(((), channels))?)
    }
}

/// What some consecutive ranks gave.
struct Gather {
    comm: Arc<dyn Collective>,
    first: usize,
    count: usize,
}

impl Ranks for Gather {
    fn gather(&self, values: &[f64]) -> Result<Vec<Vec<f64>>> {
        let mine = Tensor::from_slice(values, (1, values.len()), &Device::Cpu)?;
        self.comm.all_gather(&mine)?.narrow(0, self.first, self.count)?.to_vec2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_comm::threads;

    #[test]
    fn groups_and_ranks_divide_each_other() {
        let shapes = threads::run(4, |comm| -> Result<Vec<(usize, usize)>> {
            [1, 2, 4, 8]
                .into_iter()
                .map(|total| {
                    let groups = NormGroups::new(&comm, total)?;
                    let shared = groups.sharing().map_or(Ok(vec![]), |ranks| ranks.gather(&[comm.rank() as f64]))?;
                    assert!(shared.is_empty() || shared.contains(&vec![comm.rank() as f64]));
                    // Every rank makes the same calls, so those without others to share with wait at none.
                    Ok((groups.on_this_rank(), shared.len()))
                })
                .collect()
        })
        .unwrap();
        assert!(shapes.iter().all(|shape| *shape == [(1, 4), (1, 2), (1, 0), (2, 0)]), "{shapes:?}");
        let error = threads::run(4, |comm| NormGroups::new(&comm, 3)).unwrap_err().to_string();
        assert!(error.contains("bn_groups = 3 over 4 ranks"), "{error}");
    }
}
