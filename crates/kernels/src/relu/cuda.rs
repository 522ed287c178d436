//! ReLU on a GPU: one thread for 16 bytes.

use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::NAME;
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules, named};

const THREADS: u32 = 256;

pub(super) fn forward(x: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let gpu = Gpu::new(&x.device);
    let x = Memory::of_storage(NAME, x, layout)?;
    let y = gpu.alloc(x.dtype(), x.len())?;
    run(&gpu, "relu_forward", &[x], &y)?;
    Ok(y.into_storage())
}

pub(super) fn backward(gpu: &Gpu, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let arrays = [Memory::of(NAME, gpu, dy)?, Memory::of(NAME, gpu, y)?];
    let dx = gpu.alloc(y.dtype(), y.elem_count())?;
    run(gpu, "relu_backward", &arrays, &dx)?;
    dx.into_tensor(y.shape())
}

/// `name` on arrays of the output's size and type.
fn run(gpu: &Gpu, name: &str, inputs: &[Memory], output: &Buffer) -> Result<()> {
    let out = output.memory();
    let per_block = THREADS as usize * 16 / out.dtype().size_in_bytes();
    let aligned = inputs.iter().chain([&out]).all(|memory| memory.vectors(0));
    let mut args: Vec<Arg> = inputs.iter().map(|&memory| memory.into()).collect();
    args.extend([output.into(), (out.len() as i64).into(), aligned.into()]);
    let grid = [out.len().div_ceil(per_block) as u32, 1, 1];
    // SAFETY: the kernel takes the inputs, the output, their length and whether they are aligned, and stays below the length.
    unsafe { gpu.launch(&modules::RELU, &named(name, out.dtype())?, grid, [THREADS, 1, 1], 0, &mut args) }
}
