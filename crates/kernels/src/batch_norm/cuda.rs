//! Batch norm on a GPU: moments, numbers per channel, y; sums, numbers per channel, dx. Nothing is read back unless other ranks take part.

use candle_core::{DType, Result, Storage, Tensor};

use super::explicit::Output;
use super::inputs::Inputs;
use super::statistics::Moments;
use super::{NAME, Options, Saved};
use crate::cuda::columns::{Columns, MERGE_THREADS, MERGED, THREADS};
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules, named};
use crate::dense::input;

mod backward;

pub(super) use backward::{apply_sums, backward, gradients, host_sums};

/// What the kernels keep between the passes (`struct Kept`), each `[groups, C]`.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Mean, biased variance, gamma / std, and beta less what the rounding of the mean amounts to: f32.
    values: Tensor,
    /// What rounding the mean lost, and 1 / std: f64.
    fine: Tensor,
}

impl Kept {
    fn arg(&self, gpu: &Gpu) -> Result<Arg> {
        let (values, fine) = (Memory::of(NAME, gpu, &self.values)?, Memory::of(NAME, gpu, &self.fine)?);
        Ok(Arg::Struct(parts::<4>(values).iter().chain(&parts::<2>(fine)).map(|memory| memory.pointer()).collect()))
    }
}

/// N equal parts.
fn parts<const N: usize>(memory: Memory<'_>) -> [Memory<'_>; N] {
    let part = memory.len() / N;
    std::array::from_fn(|i| memory.part(i * part, part))
}

/// Starts a kernel that has one block for a few channels, and `rows` of such blocks.
///
/// # Safety
/// As [`Gpu::launch`].
unsafe fn launch_per_channel(gpu: &Gpu, name: &str, channels: usize, rows: usize, args: &mut [Arg]) -> Result<()> {
    let grid = [channels.div_ceil(MERGED) as u32, rows as u32, 1];
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&modules::BATCH_NORM, name, grid, [MERGE_THREADS as u32, 1, 1], 0, args) }
}

/// Starts a kernel on groups of rows, for the type of `of`.
///
/// # Safety
/// As [`Gpu::launch`].
unsafe fn launch_rows(
    gpu: &Gpu,
    name: &str,
    of: Memory,
    columns: Columns,
    groups: usize,
    args: &mut [Arg],
) -> Result<()> {
    let (name, grid) = (named(name, of.dtype())?, columns.grid(groups));
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&modules::BATCH_NORM, &name, grid, [THREADS as u32, 1, 1], 0, args) }
}

/// How arrays of x's shape, in `groups` parts, are divided among blocks.
fn division(arrays: &[Memory], channels: usize, groups: usize) -> Columns {
    Columns::new(arrays, arrays[0].len() / channels / groups, channels)
}

/// Mean and M2 of chunks of x's groups, each `[groups, chunks, C]` in f64, and how x was divided.
fn chunk_moments(gpu: &Gpu, x: Memory, channels: usize, groups: usize) -> Result<(Buffer, Columns)> {
    let columns = division(&[x], channels, groups);
    let chunks = gpu.alloc(DType::F64, 2 * groups * columns.chunks * channels)?;
    let [means, m2s] = parts(chunks.memory());
    let mut args = [x.into(), means.into(), m2s.into(), columns.into(), columns.vectors.into()];
    // SAFETY: `batch_norm_moments_*` reads the rows that the division names and writes a value per group, chunk and channel.
    unsafe { launch_rows(gpu, "batch_norm_moments", x, columns, groups, &mut args)? };
    Ok((chunks, columns))
}

/// Count, mean and M2 of each group, on the host: for ranks.
pub(super) fn moments(gpu: &Gpu, x: &Tensor, channels: usize, groups: usize) -> Result<Vec<Moments>> {
    let (chunks, columns) = chunk_moments(gpu, Memory::of(NAME, gpu, x)?, channels, groups)?;
    let [means, m2s] = parts(chunks.memory());
    let merged = gpu.alloc(DType::F64, 2 * groups * channels)?;
    let [mean, m2] = parts(merged.memory());
    let mut args = [means.into(), m2s.into(), columns.into(), mean.into(), m2.into()];
    // SAFETY: `batch_norm_merge` reads a value per group, chunk and channel, and writes one per group and channel.
    unsafe { launch_per_channel(gpu, "batch_norm_merge", channels, groups, &mut args)? };
    let values: Vec<f64> = merged.into_tensor(2 * groups * channels)?.to_vec1()?;
    let (mean, m2) = values.split_at(groups * channels);
    let each = mean.chunks_exact(channels).zip(m2.chunks_exact(channels));
    let count = columns.rows() as f64;
    Ok(each.map(|(mean, m2)| Moments { count, mean: mean.to_vec(), m2: m2.to_vec() }).collect())
}

/// The forward pass; with moments of all ranks' rows where they are `given`.
pub(super) fn forward(gpu: &Gpu, given: Option<&[Moments]>, inputs: &Inputs, options: &Options) -> Result<Output> {
    let (channels, groups) = (inputs.channels(), options.groups);
    let (chunks, columns) = match given {
        None => chunk_moments(gpu, Memory::of(NAME, gpu, &inputs.x)?, channels, groups)?,
        Some(moments) => {
            let means = moments.iter().flat_map(|m| &m.mean);
            let values: Vec<f64> = means.chain(moments.iter().flat_map(|m| &m.m2)).copied().collect();
            let values = gpu.upload(&values)?;
            (values, Columns::merged(moments[0].count as usize, channels))
        }
    };
    let kept = prepare(gpu, parts(chunks.memory()), columns, inputs, options)?;
    let shape = if groups == 1 { vec![channels] } else { vec![groups, channels] };
    let [mean, var] = [0, 1].map(|i| kept.values.get(i)?.reshape(shape.as_slice()));
    let (mean, var) = (mean?, var?);
    let y = apply(gpu, &kept, inputs, options)?;
    Ok(Output { y, saved: Saved::on_device(options, channels, kept), mean, var, rows: columns.rows() })
}

/// The forward pass with constants for mean and variance, `[C]`.
pub(super) fn forward_constant(
    gpu: &Gpu,
    mean: &Tensor,
    var: &Tensor,
    inputs: &Inputs,
    options: &Options,
) -> Result<(Storage, Saved)> {
    let wide = |t: &Tensor| t.to_dtype(DType::F64)?.contiguous();
    let (mean, var) = (wide(mean)?, wide(var)?);
    // Of one row, M2 is the variance.
    let columns = Columns::merged(1, inputs.channels());
    let chunks = [Memory::of(NAME, gpu, &mean)?, Memory::of(NAME, gpu, &var)?];
    let kept = prepare(gpu, chunks, columns, inputs, options)?;
    let y = apply(gpu, &kept, inputs, options)?;
    Ok((y, Saved::on_device(options, inputs.channels(), kept)))
}

/// What the passes need per channel, from the moments of chunks.
fn prepare(gpu: &Gpu, chunks: [Memory; 2], columns: Columns, inputs: &Inputs, options: &Options) -> Result<Kept> {
    let (channels, groups) = (inputs.channels(), options.groups);
    let shape = |arrays| (arrays, groups, channels);
    let kept = Kept {
        values: gpu.alloc(DType::F32, 4 * groups * channels)?.into_tensor(shape(4))?,
        fine: gpu.alloc(DType::F64, 2 * groups * channels)?.into_tensor(shape(2))?,
    };
    let (gamma, beta) = (Memory::of(NAME, gpu, &inputs.gamma)?, Memory::of(NAME, gpu, &inputs.beta)?);
    let [means, m2s] = chunks;
    let mut args =
        [means.into(), m2s.into(), columns.into(), gamma.into(), beta.into(), options.eps.into(), kept.arg(gpu)?];
    // SAFETY: `batch_norm_prepare` reads a value per group, chunk and channel, gamma and beta, and writes all of `kept`.
    unsafe { launch_per_channel(gpu, "batch_norm_prepare", channels, groups, &mut args)? };
    Ok(kept)
}

/// y's values.
fn apply(gpu: &Gpu, kept: &Kept, inputs: &Inputs, options: &Options) -> Result<Storage> {
    let x = Memory::of(NAME, gpu, &inputs.x)?;
    let residual = inputs.residual.as_ref().map(|r| Memory::of(NAME, gpu, r)).transpose()?;
    let y = gpu.alloc(x.dtype(), x.len())?;
    let arrays: Vec<Memory> = [Some(x), residual, Some(y.memory())].into_iter().flatten().collect();
    let columns = division(&arrays, inputs.channels(), options.groups);
    let mut args: Vec<Arg> = arrays.iter().map(|&memory| memory.into()).collect();
    args.extend([kept.arg(gpu)?, columns.into(), columns.vectors.into(), options.relu.into()]);
    let name = if residual.is_some() { "batch_norm_apply_add" } else { "batch_norm_apply" };
    // SAFETY: both kernels take x, the residual if that is in the name, and y, and touch the rows that the division names.
    unsafe { launch_rows(gpu, name, x, columns, options.groups, &mut args)? };
    Ok(Storage::Cuda(y.into_storage()))
}

/// Moves running statistics `[C]` towards those of a batch, `[groups, C]`.
pub(super) fn update_running(
    gpu: &Gpu,
    running: [&Tensor; 2],
    batch: [&Tensor; 2],
    momentum: f64,
    unbiased: f64,
) -> Result<()> {
    let channels = running[0].elem_count();
    let batch = [input(NAME, "mean", batch[0])?, input(NAME, "var", batch[1])?];
    let groups = batch[0].elem_count() / channels;
    let mut args = Vec::new();
    for tensor in running.into_iter().chain(&batch) {
        args.push(Memory::of(NAME, gpu, tensor)?.into());
    }
    let weight = momentum / groups as f64;
    args.extend([(channels as i32).into(), (groups as i32).into()]);
    args.extend([1.0 - momentum, weight, weight * unbiased].map(Arg::from));
    let grid = [channels.div_ceil(THREADS) as u32, 1, 1];
    // SAFETY: `batch_norm_running` reads a value per group and channel, and changes one per channel of the running statistics.
    unsafe { gpu.launch(&modules::BATCH_NORM, "batch_norm_running", grid, [THREADS as u32, 1, 1], 0, &mut args) }
}
