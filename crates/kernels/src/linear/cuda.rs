//! The fully connected layer on a GPU: cuBLAS for the three products, and kernels for the bias.

use candle_core::{CudaStorage, DType, Layout, Result, Tensor};

use super::{Extents, NAME};
use crate::cuda::gemm::{Matrix, gemm};
use crate::cuda::{Arg, Buffer, Gpu, Memory, cast, modules, named};

/// Threads of a block: LINEAR_WARPS of `linear_index.h`.
const THREADS: u32 = 8 * 32;

/// Rows that a block goes through: enough to pay for its start, in at most 32,768 blocks below each other.
fn rows_per_part(rows: usize) -> usize {
    rows.div_ceil(32_768).max(128)
}

/// A custom op's argument.
pub(super) type Argument<'a> = (&'a CudaStorage, &'a Layout);

pub(super) fn forward(x: Argument, w: Argument, bias: Option<Argument>, e: Extents) -> Result<CudaStorage> {
    let gpu = Gpu::new(&x.0.device);
    let of = |(storage, layout)| Memory::of_storage(NAME, storage, layout);
    let (x, w) = (of(x)?, of(w)?);
    let w = cast(NAME, &gpu, w, x.dtype())?;
    let (a, b) = (Matrix::rows(x, e.inputs), Matrix::rows(w.memory(), e.inputs).t());
    let dims = [e.rows, e.outputs, e.inputs];
    // With a bias the products' sums stay f32 until it has been added.
    let sums = gpu.alloc(if bias.is_some() { DType::F32 } else { x.dtype() }, e.rows * e.outputs)?;
    gemm(NAME, &gpu, dims, 1.0, a, b, 0.0, Matrix::rows(sums.memory(), e.outputs))?;
    let Some(bias) = bias else { return Ok(sums.into_storage()) };
    if x.dtype() == DType::F32 {
        add_bias(&gpu, sums.memory(), of(bias)?, sums.memory(), e)?;
        return Ok(sums.into_storage());
    }
    let y = gpu.alloc(x.dtype(), e.rows * e.outputs)?;
    add_bias(&gpu, sums.memory(), of(bias)?, y.memory(), e)?;
    Ok(y.into_storage())
}

/// `y = sums + bias`; `y` may be `sums`.
fn add_bias(gpu: &Gpu, sums: Memory, bias: Memory, y: Memory, e: Extents) -> Result<()> {
    let vectors = sums.vectors(e.outputs) && bias.vectors(0) && y.vectors(0);
    let args = &mut [sums.into(), bias.into(), y.into()].into_iter().chain(walk(e, vectors)).collect::<Vec<_>>();
    let grid = [e.outputs.div_ceil(32 * 4) as u32, e.rows.div_ceil(rows_per_part(e.rows)) as u32, 1];
    // SAFETY: the kernel takes the three arrays and `walk`'s numbers, and stays below the extents, which are the arrays'.
    unsafe { gpu.launch(&modules::LINEAR, &named("linear_bias", y.dtype())?, grid, [THREADS, 1, 1], 0, args) }
}

/// How the kernels go through rows and columns.
fn walk(e: Extents, vectors: bool) -> [Arg; 4] {
    [(e.rows as i64).into(), (e.outputs as i64).into(), (rows_per_part(e.rows) as i64).into(), vectors.into()]
}

pub(super) fn input_grad(gpu: &Gpu, w: &Tensor, dy: &Tensor, e: Extents) -> Result<Tensor> {
    let dy = Memory::of(NAME, gpu, dy)?;
    let w = cast(NAME, gpu, Memory::of(NAME, gpu, w)?, dy.dtype())?;
    let dx = gpu.alloc(dy.dtype(), e.rows * e.inputs)?;
    let (a, b, c) =
        (Matrix::rows(dy, e.outputs), Matrix::rows(w.memory(), e.inputs), Matrix::rows(dx.memory(), e.inputs));
    gemm(NAME, gpu, [e.rows, e.inputs, e.outputs], 1.0, a, b, 0.0, c)?;
    dx.into_tensor((e.rows, e.inputs))
}

pub(super) fn weight_grad(gpu: &Gpu, x: &Tensor, dy: &Tensor, e: Extents) -> Result<Tensor> {
    let (x, dy) = (Memory::of(NAME, gpu, x)?, Memory::of(NAME, gpu, dy)?);
    let dw = gpu.alloc(DType::F32, e.outputs * e.inputs)?;
    let (a, b, c) = (Matrix::rows(dy, e.outputs).t(), Matrix::rows(x, e.inputs), Matrix::rows(dw.memory(), e.inputs));
    gemm(NAME, gpu, [e.outputs, e.inputs, e.rows], 1.0, a, b, 0.0, c)?;
    dw.into_tensor((e.outputs, e.inputs))
}

pub(super) fn bias_grad(gpu: &Gpu, dy: &Tensor, e: Extents) -> Result<Tensor> {
    let dy = Memory::of(NAME, gpu, dy)?;
    let count = e.rows.div_ceil(rows_per_part(e.rows));
    let parts = gpu.alloc(DType::F64, count * e.outputs)?;
    let tile = 32 * 16 / dy.dtype().size_in_bytes();
    let args = &mut [dy.into(), (&parts).into()].into_iter().chain(walk(e, dy.vectors(e.outputs))).collect::<Vec<_>>();
    let grid = [e.outputs.div_ceil(tile) as u32, count as u32, 1];
    // SAFETY: the kernel takes dy, a row of sums for each part, and `walk`'s numbers, and stays below the extents.
    unsafe {
        gpu.launch(&modules::LINEAR, &named("linear_column_sums", dy.dtype())?, grid, [THREADS, 1, 1], 0, args)?;
    }
    let db: Buffer = gpu.alloc(DType::F32, e.outputs)?;
    let args = &mut [(&parts).into(), (&db).into(), (e.outputs as i64).into(), (count as i32).into()];
    let grid = [e.outputs.div_ceil(THREADS as usize) as u32, 1, 1];
    // SAFETY: the kernel takes the parts, the result, its length and the number of parts.
    unsafe { gpu.launch(&modules::LINEAR, "linear_sum_parts", grid, [THREADS, 1, 1], 0, args)? };
    db.into_tensor(e.outputs)
}
