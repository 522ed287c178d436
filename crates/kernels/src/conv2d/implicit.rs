//! Launches of our own convolution kernels (`conv2d.cu`, `conv2d_weight_grad.cu`): any sizes, without cuDNN.

use candle_core::{DType, Result};

use super::geometry::Geometry;
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules};

/// THREADS and STAGES of `conv2d_tile.h`, and the larger side of a tile of a result.
const THREADS: u32 = 256;
const STAGES: usize = 4;
const TILE: usize = 128;

/// Blocks that the weight gradient wants: what an H200 runs at once, twice. A constant, so that shapes alone decide how a sum is cut.
const BLOCKS: usize = 2 * 2 * 132;

/// `y` of `x` and `w` (of x's type).
pub(super) fn forward(gpu: &Gpu, tf32: bool, g: &Geometry, x: Memory, w: Memory, y: Memory) -> Result<()> {
    let side = side(g.o);
    let vectors = x.vectors(g.c) && w.vectors(g.c);
    let args = &mut [sizes(g), x.into(), w.into(), y.into(), vectors.into(), pairs(&[y], g.o).into()];
    let grid = [blocks(g.n * g.oh * g.ow, TILE, g.o, side), 1, 1];
    let name = named("conv2d_forward", x.dtype(), tf32, side);
    // SAFETY: the kernel takes the sizes, the arrays of these sizes, and how they may be read and written, and stays inside of the sizes.
    unsafe { gpu.launch(&modules::CONV2D, &name, grid, [THREADS, 1, 1], shared(side), args) }
}

/// `dx` of `w` (f32, `[o, kh, kw, c]`) and `dy`, plus `add`.
pub(super) fn input_grad(
    gpu: &Gpu,
    tf32: bool,
    g: &Geometry,
    w: Memory,
    dy: Memory,
    add: Option<Memory>,
    dx: Memory,
) -> Result<()> {
    let w = turned(gpu, g, w, dy.dtype())?;
    let (side, phases) = (side(g.c), g.stride * g.stride);
    let vectors = dy.vectors(g.o) && w.memory().vectors(g.o);
    let pairs = pairs(&[Some(dx), add].into_iter().flatten().collect::<Vec<_>>(), g.c);
    let add = add.map_or(Arg::from(0u64), Arg::from);
    let args = &mut [sizes(g), dy.into(), (&w).into(), add, dx.into(), vectors.into(), pairs.into()];
    let largest = g.n * g.h.div_ceil(g.stride) * g.w.div_ceil(g.stride);
    let grid = [blocks(largest, TILE, g.c, side), 1, phases as u32];
    let name = named("conv2d_input_grad", dy.dtype(), tf32, side);
    // SAFETY: the kernel takes the sizes, the arrays of these sizes (or no address for `add`), and how they may be read and written.
    unsafe { gpu.launch(&modules::CONV2D, &name, grid, [THREADS, 1, 1], shared(side), args) }
}

/// `dw`, f32, of `x` and `dy`.
pub(super) fn weight_grad(gpu: &Gpu, tf32: bool, g: &Geometry, x: Memory, dy: Memory, dw: Memory) -> Result<()> {
    let (side, terms, pixels) = (side(g.o), g.kh * g.kw * g.c, g.n * g.oh * g.ow);
    let (per_part, count) = parts(pixels, blocks(g.o, side, terms, TILE) as usize);
    let room = if count > 1 { Some(gpu.alloc(DType::F32, count * dw.len())?) } else { None };
    let to = room.as_ref().map_or(dw, Buffer::memory);
    let per = Arg::from(per_part as i32);
    let args = &mut [sizes(g), x.into(), dy.into(), to.into(), per, x.vectors(g.c).into(), dy.vectors(g.o).into()];
    let grid = [blocks(g.o, side, terms, TILE), count as u32, 1];
    let name = named("conv2d_weight_grad", x.dtype(), tf32, side);
    // SAFETY: the kernel takes the sizes, the arrays of these sizes, room for a result of each part, and how much a part is.
    unsafe { gpu.launch(&modules::CONV2D_WEIGHT_GRAD, &name, grid, [THREADS, 1, 1], shared(side), args)? };
    let Some(room) = room else { return Ok(()) };
    let args = &mut [(&room).into(), dw.into(), (dw.len() as i64).into(), (count as i32).into()];
    let grid = [dw.len().div_ceil(THREADS as usize) as u32, 1, 1];
    // SAFETY: the kernel takes the parts, the result, its length and the number of parts.
    unsafe { gpu.launch(&modules::CONV2D_WEIGHT_GRAD, "conv2d_sum_parts", grid, [THREADS, 1, 1], 0, args) }
}

/// The weights as `[c, kh, kw, o]` in another type.
fn turned(gpu: &Gpu, g: &Geometry, w: Memory, dtype: DType) -> Result<Buffer> {
    let turned = gpu.alloc(dtype, w.len())?;
    let taps = g.kh * g.kw;
    let args = &mut [w.into(), (&turned).into(), (g.o as i32).into(), (taps as i32).into(), (g.c as i32).into()];
    let grid = [g.c.div_ceil(32) as u32, g.o.div_ceil(32) as u32, taps as u32];
    let name = crate::cuda::named("conv2d_turn", dtype)?;
    // SAFETY: the kernel takes the weights, room for as many, and their three extents.
    unsafe { gpu.launch(&modules::CONV2D_WEIGHT_GRAD, &name, grid, [THREADS, 1, 1], 0, args)? };
    Ok(turned)
}

/// The tile's side along `channels`: the one that reaches less beyond them.
fn side(channels: usize) -> usize {
    if (1..=TILE / 2).contains(&(channels % TILE)) { TILE / 2 } else { TILE }
}

/// Blocks for a result of these rows and columns.
fn blocks(rows: usize, tile_rows: usize, columns: usize, tile_columns: usize) -> u32 {
    (rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns)) as u32
}

/// Pixels of a part of the weight gradient's sums, and the number of parts, for `tiles` tiles of the result.
fn parts(pixels: usize, tiles: usize) -> (usize, usize) {
    // A part is worth its start from some 16 tiles' depth on.
    let wanted = (BLOCKS / tiles).clamp(1, pixels.div_ceil(512));
    let per_part = pixels.div_ceil(wanted).next_multiple_of(32);
    (per_part, pixels.div_ceil(per_part))
}

/// Bytes of shared memory: a row of a tile is 64 bytes.
fn shared(side: usize) -> u32 {
    (STAGES * (TILE + side) * 64) as u32
}

/// Whether rows of `columns` values may be written two at a time.
fn pairs(arrays: &[Memory], columns: usize) -> bool {
    columns.is_multiple_of(2) && arrays.iter().all(|a| a.pointer().is_multiple_of(2 * a.dtype().size_in_bytes() as u64))
}

fn named(name: &str, dtype: DType, tf32: bool, side: usize) -> String {
    let arithmetic = match dtype {
        DType::BF16 => "bf16",
        _ if tf32 => "tf32",
        _ => "f32",
    };
    format!("{name}_{arithmetic}_{side}")
}

/// `ConvSizes` of `conv2d_index.h`.
fn sizes(g: &Geometry) -> Arg {
    let sizes = [g.n, g.h, g.w, g.c, g.o, g.kh, g.kw, g.stride, g.padding, g.oh, g.ow, 0];
    Arg::Struct(sizes.chunks(2).map(|two| two[0] as u64 | (two[1] as u64) << 32).collect())
}
