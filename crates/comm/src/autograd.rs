//! Collectives inside a graph.
//!
//! Both compute their value before they enter the graph; the node carries it, and the collective for the way back.
//!
//! With rank r's objective L_r and y = all_reduce(x), each L_s depends on each x_r through y, so
//! `d(sum_s L_s) / dx_r = sum_s dL_s / dy`: the gradient goes back as a SUM. The run's objective is the *mean* of L_s; its
//! 1/W enters once, when parameter gradients are averaged over ranks. Dividing here too would count it twice.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};

use crate::Collective;

/// The sum of `x` over all ranks, differentiable: the gradient of each rank's `x` is the sum over ranks of the result's.
///
/// Every rank must run the backward pass, over graphs in which these operations stand in the same order.
///
/// # Errors
/// As [`Collective::all_reduce_sum`].
pub fn all_reduce(comm: &Arc<dyn Collective>, x: &Tensor) -> Result<Tensor> {
    if comm.size() == 1 {
        return Ok(x.clone());
    }
    let value = comm.all_reduce_sum(x)?;
    x.contiguous()?.apply_op1(Node { kind: Kind::AllReduce, comm: comm.clone(), value })
}

/// All ranks' `x`, `[N, ..]` each, as `[size * N, ..]`, differentiable: the gradient of each rank's `x` is its own rows
/// of the sum over ranks of the result's.
///
/// Every rank must run the backward pass, over graphs in which these operations stand in the same order.
///
/// # Errors
/// As [`Collective::all_gather`].
pub fn all_gather(comm: &Arc<dyn Collective>, x: &Tensor) -> Result<Tensor> {
    let value = comm.all_gather(x)?;
    if comm.size() == 1 {
        return Ok(x.clone());
    }
    x.contiguous()?.apply_op1(Node { kind: Kind::AllGather, comm: comm.clone(), value })
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    AllReduce,
    AllGather,
}

/// One application of a collective in a graph.
struct Node {
    kind: Kind,
    comm: Arc<dyn Collective>,
    value: Tensor,
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::AllReduce => "all_reduce",
            Kind::AllGather => "all_gather",
        }
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let value = self.value.force_contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) if layout.start_offset() == 0 => Ok((storage.clone(), value.shape().clone())),
            _ => bail!("{}: the collective moved the tensor off the CPU", self.name()),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let value = self.value.force_contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => bail!("{}: the collective moved the tensor off its device", self.name()),
        }
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let sum = self.comm.all_reduce_sum(gradient)?;
        match self.kind {
            Kind::AllReduce => Ok(Some(sum)),
            Kind::AllGather => {
                let rows = x.dim(0)?;
                Ok(Some(sum.narrow(0, self.comm.rank() * rows, rows)?))
            }
        }
    }
}
