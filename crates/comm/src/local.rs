//! One rank: every collective is the identity.

use candle_core::{Result, Tensor, bail};

use crate::Collective;

/// The collective of a run with one rank.
///
/// Results share their storage with the argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Collective for Local {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.detach())
    }

    fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() == 0 {
            bail!("all_gather needs rows, but its tensor has no dimension");
        }
        Ok(x.detach())
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        if root != 0 {
            bail!("broadcast from rank {root}, but there is one rank, 0");
        }
        Ok(x.detach())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn one_rank_gets_its_own_values_without_a_graph() {
        let x = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let y = x.affine(2.0, 0.0).unwrap();
        for result in [Local.all_reduce_sum(&y), Local.all_gather(&y), Local.broadcast(&y, 0)] {
            let result = result.unwrap();
            assert_eq!(result.to_vec2::<f32>().unwrap(), [[2.0, 4.0], [6.0, 8.0]]);
            assert!(!result.track_op());
        }
        assert!(Local.broadcast(&y, 1).is_err());
        assert!(Local.all_gather(&Tensor::new(1f32, &Device::Cpu).unwrap()).is_err());
    }
}
