//! L2 normalization on a GPU: a warp for a row, or a block where rows are long.

use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::NAME;
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules, named};

const THREADS: usize = 256;
/// Bytes of a row that a warp takes on alone.
const SHORT: usize = 4096;

pub(super) fn forward(x: &CudaStorage, layout: &Layout, dim: usize) -> Result<CudaStorage> {
    let gpu = Gpu::new(&x.device);
    let x = Memory::of_storage(NAME, x, layout)?;
    let y = gpu.alloc(x.dtype(), x.len())?;
    run(&gpu, "l2_normalize_forward", &[x], &y, dim)?;
    Ok(y.into_storage())
}

pub(super) fn backward(gpu: &Gpu, dy: &Tensor, x: &Tensor, dim: usize) -> Result<Tensor> {
    let arrays = [Memory::of(NAME, gpu, dy)?, Memory::of(NAME, gpu, x)?];
    let dx = gpu.alloc(x.dtype(), x.elem_count())?;
    run(gpu, "l2_normalize_backward", &arrays, &dx, dim)?;
    dx.into_tensor(x.shape())
}

/// `name` on arrays of the output's shape and type.
fn run(gpu: &Gpu, name: &str, inputs: &[Memory], output: &Buffer, dim: usize) -> Result<()> {
    let out = output.memory();
    let rows = out.len() / dim;
    let team = if dim * out.dtype().size_in_bytes() <= SHORT { 32 } else { THREADS };
    let vectors = inputs.iter().chain([&out]).all(|memory| memory.vectors(dim));
    let mut args: Vec<Arg> = inputs.iter().map(|&memory| memory.into()).collect();
    args.extend([out.into(), (rows as i64).into(), (dim as i32).into(), (team as i32).into(), vectors.into()]);
    let grid = [rows.div_ceil(THREADS / team) as u32, 1, 1];
    // SAFETY: the kernel takes the inputs, the output, its rows and columns, how many threads share a row and whether rows may be
    // read as vectors, and stays below the rows.
    unsafe {
        gpu.launch(&modules::L2_NORMALIZE, &named(name, out.dtype())?, grid, [THREADS as u32, 1, 1], 0, &mut args)
    }
}
