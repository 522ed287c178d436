//! The Barlow Twins loss on a GPU, in the same two forms as on the CPU: C where D < N, two Gram matrices where not.
//!
//! Products go through cuBLAS, on views that are standardized in blocks just before; all else is in `cross_correlation.cu`. Both views are
//! read once for their moments and the diagonal of C. Nothing comes back to the host: the terms are numbers on the device.

use candle_core::{DType, Result, Tensor};

use super::NAME;
use crate::cuda::gemm::{Matrix, gemm, gemm_batched};
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules};

/// Columns and rows of a block of threads.
const LANES: usize = 32;
const GROUPS: usize = 8;
const THREADS: usize = LANES * GROUPS;
/// Blocks that sums over columns are shared out to; rows that are worth a block.
const BLOCKS: usize = 1024;
const ROWS: usize = 32;
/// Values of a block of a standardized view, 32 MiB: the block of both views and a gradient stay near the size of the last cache. Small in
/// tests, so that they see several blocks.
const VALUES: usize = if cfg!(test) { 1 << 12 } else { 1 << 23 };

/// What the backward pass needs beside the views.
pub(super) struct Saved {
    n: usize,
    d: usize,
    moments: Moments,
    form: Form,
    /// `sum_i (C_ii - 1)^2`, `[]`.
    pub(super) invariance: Tensor,
    /// `sum_{i != j} C_ij^2`, `[]`.
    pub(super) redundancy: Tensor,
}

/// In f64: `[2, D]`, `[2, D]` and `[D]`.
struct Moments {
    mean: Buffer,
    inverse: Buffer,
    /// Of C.
    diagonal: Buffer,
}

enum Form {
    /// C, `[D, D]`, and the sums of squares of its rows and its columns.
    Direct { c: Buffer, squares: Box<[Buffer; 2]> },
    /// A A^T and B B^T, `[2, N, N]`.
    Dual { grams: Buffer },
}

/// Rows and columns of the views.
#[derive(Clone, Copy)]
struct Part {
    rows: usize,
    width: usize,
    first_row: usize,
    first_column: usize,
}

impl Part {
    fn arg(self, d: usize) -> Arg {
        let word = |low: usize, high: usize| low as u64 | (high as u64) << 32;
        Arg::Struct(vec![word(self.rows, self.width), self.first_row as u64, word(self.first_column, d)])
    }

    /// Whether vectors of four columns lie in a part, in rows of `d` and in memory.
    fn vectors(self, arrays: &[Memory], d: usize) -> bool {
        let whole = [self.width, self.first_column, d].iter().all(|columns| columns.is_multiple_of(4));
        whole && arrays.iter().all(|memory| memory.vectors(4))
    }

    fn grid(self, vectors: bool, views: usize) -> [u32; 3] {
        let columns = LANES * if vectors { 4 } else { 1 };
        let down = self.rows.div_ceil(4 * GROUPS).min(u16::MAX as usize);
        [self.width.div_ceil(columns) as u32, down as u32, views as u32]
    }
}

/// Blocks of whole columns, or of whole rows.
fn column_parts(n: usize, d: usize) -> impl Iterator<Item = Part> {
    let width = (VALUES / n).next_multiple_of(64).max(64);
    (0..d).step_by(width).map(move |first| Part {
        rows: n,
        width: width.min(d - first),
        first_row: 0,
        first_column: first,
    })
}

fn row_parts(n: usize, d: usize) -> impl Iterator<Item = Part> {
    let rows = (VALUES / d).max(1);
    (0..n).step_by(rows).map(move |first| Part {
        rows: rows.min(n - first),
        width: d,
        first_row: first,
        first_column: 0,
    })
}

/// Rows of each chunk and the number of chunks, for sums over `rows` rows of each column.
fn chunks(rows: usize, columns: usize) -> [usize; 2] {
    let wanted = BLOCKS.div_ceil(columns.div_ceil(LANES)).min(rows.div_ceil(ROWS)).max(1);
    let each = rows.div_ceil(wanted);
    [each, rows.div_ceil(each)]
}

/// A number as kernels count; all here are below 2^31, which [`forward`] has seen to.
fn int(size: usize) -> Arg {
    Arg::from(size as i32)
}

/// The total, `[]` f32, and what its gradient needs.
pub(super) fn forward(gpu: &Gpu, z: [Memory; 2], d: usize, [lambda, eps]: [f64; 2]) -> Result<(Buffer, Saved)> {
    let n = z[0].len() / d;
    if n.max(d) > (i32::MAX as usize) / 4 {
        candle_core::bail!("{NAME}: [{n}, {d}] is too large for one GPU")
    }
    let moments = moments(gpu, z, [n, d], eps)?;
    let (form, terms, factor) = match d < n {
        true => direct(gpu, z, [n, d], &moments)?,
        false => dual(gpu, z, [n, d], &moments)?,
    };
    let [total, invariance, redundancy] = [(); 3].map(|()| gpu.alloc(DType::F32, 1));
    let (total, invariance, redundancy) = (total?, invariance?, redundancy?);
    let with_diagonal = matches!(form, Form::Dual { .. });
    let mut args = vec![(&moments.diagonal).into(), int(d), (&terms).into(), int(terms.memory().len())];
    args.extend([factor.into(), with_diagonal.into(), lambda.into()]);
    args.extend([(&total).into(), (&invariance).into(), (&redundancy).into()]);
    // SAFETY: these are its arguments: d values, as many terms as there are, and three numbers to write.
    unsafe { launch(gpu, "loss", [1, 1, 1], [THREADS, 1], &mut args)? };
    let (invariance, redundancy) = (invariance.into_tensor(())?, redundancy.into_tensor(())?);
    Ok((total, Saved { n, d, moments, form, invariance, redundancy }))
}

fn moments(gpu: &Gpu, [z1, z2]: [Memory; 2], [n, d]: [usize; 2], eps: f64) -> Result<Moments> {
    let [each, chunks] = chunks(n, d);
    let partial = gpu.alloc(DType::F64, chunks * 5 * d)?;
    let mut args = [z1.into(), z2.into(), int(n), int(d), int(each), (&partial).into()];
    // SAFETY: these are its arguments: both views `[n, d]`, and five sums for each chunk and column.
    unsafe { launch(gpu, "sums", [d.div_ceil(LANES), chunks, 1], [LANES, GROUPS], &mut args)? };
    let moments = Moments {
        mean: gpu.alloc(DType::F64, 2 * d)?,
        inverse: gpu.alloc(DType::F64, 2 * d)?,
        diagonal: gpu.alloc(DType::F64, d)?,
    };
    let mut args = vec![(&partial).into(), int(chunks), z1.into(), z2.into(), int(n), int(d), eps.into()];
    args.extend([(&moments.mean).into(), (&moments.inverse).into(), (&moments.diagonal).into()]);
    // SAFETY: these are its arguments: what was just summed, the views' first rows, and [2, d], [2, d] and [d] values to write.
    unsafe { launch(gpu, "moments", [d.div_ceil(THREADS), 1, 1], [THREADS, 1], &mut args)? };
    Ok(moments)
}

/// A part of both views standardized, `[2, rows, width]`.
fn standardized(gpu: &Gpu, z: [Memory; 2], d: usize, moments: &Moments, part: Part) -> Result<Buffer> {
    let len = part.rows * part.width;
    let out = gpu.alloc(DType::F32, 2 * len)?;
    let [out1, out2] = halves(&out);
    let vectors = part.vectors(&[z[0], z[1], out1, out2], d);
    let mut args = vec![part.arg(d), z[0].into(), z[1].into(), (&moments.mean).into(), (&moments.inverse).into()];
    args.extend([out1.into(), out2.into(), vectors.into()]);
    // SAFETY: these are its arguments; the part lies inside of the views, and `out` holds it twice.
    unsafe { launch(gpu, "standardize", part.grid(vectors, 2).map(|n| n as usize), [LANES, GROUPS], &mut args)? };
    Ok(out)
}

fn halves(both: &Buffer) -> [Memory<'_>; 2] {
    let len = both.memory().len() / 2;
    [0, 1].map(|i| both.memory().part(i * len, len))
}

/// C, and for each of its rows what is off the diagonal.
fn direct(gpu: &Gpu, z: [Memory; 2], [n, d]: [usize; 2], moments: &Moments) -> Result<(Form, Buffer, f64)> {
    let c = gpu.alloc(DType::F32, d * d)?;
    for part in row_parts(n, d) {
        let both = standardized(gpu, z, d, moments, part)?;
        let [a, b] = halves(&both).map(|half| Matrix::rows(half, d));
        let add = if part.first_row == 0 { 0.0 } else { 1.0 };
        gemm(NAME, gpu, [d, d, part.rows], 1.0 / n as f32, a.t(), b, add, Matrix::rows(c.memory(), d))?;
    }
    let [rows, off] = [gpu.alloc(DType::F64, d)?, gpu.alloc(DType::F64, d)?];
    let mut args = [(&c).into(), int(d), (&rows).into(), (&off).into()];
    // SAFETY: these are its arguments: `[d, d]`, and two values for each row.
    unsafe { launch(gpu, "row_squares", [d, 1, 1], [THREADS, 1], &mut args)? };
    let [each, chunks] = chunks(d, d);
    let partial = gpu.alloc(DType::F64, chunks * d)?;
    let mut args = [(&c).into(), int(d), int(each), (&partial).into()];
    // SAFETY: these are its arguments: `[d, d]`, and a sum for each chunk and column.
    unsafe { launch(gpu, "column_squares", [d.div_ceil(LANES), chunks, 1], [LANES, GROUPS], &mut args)? };
    let columns = merged(gpu, &partial, [chunks, 1, d])?;
    Ok((Form::Direct { c, squares: Box::new([rows, columns]) }, off, 1.0))
}

/// The Gram matrices, and the parts of their inner product.
fn dual(gpu: &Gpu, z: [Memory; 2], [n, d]: [usize; 2], moments: &Moments) -> Result<(Form, Buffer, f64)> {
    let grams = gpu.alloc(DType::F32, 2 * n * n)?;
    for part in column_parts(n, d) {
        let both = standardized(gpu, z, d, moments, part)?;
        let rows = Matrix::rows(both.memory(), part.width).every(n * part.width);
        let add = if part.first_column == 0 { 0.0 } else { 1.0 };
        let to = Matrix::rows(grams.memory(), n).every(n * n);
        gemm_batched(NAME, gpu, 2, [n, n, part.width], 1.0, rows, rows.t(), add, to)?;
    }
    let blocks = (n * n).div_ceil(THREADS * 16).min(BLOCKS);
    let terms = gpu.alloc(DType::F64, blocks)?;
    let [a, b] = halves(&grams);
    let mut args = [a.into(), b.into(), Arg::from((n * n) as i64), (&terms).into()];
    // SAFETY: these are its arguments: n^2 values of both, and a term for each block.
    unsafe { launch(gpu, "dot", [blocks, 1, 1], [THREADS, 1], &mut args)? };
    Ok((Form::Dual { grams }, terms, 1.0 / (n * n) as f64))
}

/// `[count, columns]`: the sums of chunks' parts `[chunks, count, columns]`.
fn merged(gpu: &Gpu, partial: &Buffer, [chunks, count, columns]: [usize; 3]) -> Result<Buffer> {
    let out = gpu.alloc(DType::F64, count * columns)?;
    let mut args = [partial.into(), int(chunks), int(count), int(columns), (&out).into()];
    // SAFETY: these are its arguments, whose sizes the caller gives as it has allocated them.
    unsafe { launch(gpu, "merge", [columns.div_ceil(THREADS), count, 1], [THREADS, 1], &mut args)? };
    Ok(out)
}

/// Both gradients, `[N, D]` f32, of `upstream` (`[]` f32) times (invariance + lambda redundancy).
pub(super) fn backward(
    gpu: &Gpu,
    saved: &Saved,
    z: [&Tensor; 2],
    lambda: f64,
    upstream: &Tensor,
) -> Result<[Tensor; 2]> {
    let (n, d) = (saved.n, saved.d);
    let views = [Memory::of(NAME, gpu, z[0])?, Memory::of(NAME, gpu, z[1])?];
    let out = [gpu.alloc(DType::F32, n * d)?, gpu.alloc(DType::F32, n * d)?];
    let back = Back { gpu, saved, lambda, upstream: Memory::of(NAME, gpu, upstream)? };
    match &saved.form {
        Form::Direct { c, squares } => {
            for part in row_parts(n, d) {
                let both = standardized(gpu, views, d, &saved.moments, part)?;
                let g = gpu.alloc(DType::F32, part.rows * d)?;
                for (i, out) in out.iter().enumerate() {
                    let other = Matrix::rows(halves(&both)[1 - i], d);
                    let c = Matrix::rows(c.memory(), d);
                    let (c, to) = (if i == 0 { c.t() } else { c }, Matrix::rows(g.memory(), d));
                    gemm(NAME, gpu, [part.rows, d, d], 2.0 * lambda as f32, other, c, 0.0, to)?;
                    back.part(part, i, &g, &both, [Some(&squares[i]), None], out)?;
                }
            }
        }
        Form::Dual { grams } => {
            for part in column_parts(n, d) {
                let both = standardized(gpu, views, d, &saved.moments, part)?;
                let g = gpu.alloc(DType::F32, n * part.width)?;
                for (i, out) in out.iter().enumerate() {
                    let own = Matrix::rows(halves(&both)[i], part.width);
                    let gram = Matrix::rows(halves(grams)[1 - i], n);
                    let (factor, to) = ((2.0 * lambda / n as f64) as f32, Matrix::rows(g.memory(), part.width));
                    gemm(NAME, gpu, [n, part.width, n], factor, gram, own, 0.0, to)?;
                    let sums = back.sums(part, i, &g, &both)?;
                    back.part(part, i, &g, &both, [None, Some(&sums)], out)?;
                }
            }
        }
    }
    let [d1, d2] = out;
    Ok([d1.into_tensor((n, d))?, d2.into_tensor((n, d))?])
}

struct Back<'a> {
    gpu: &'a Gpu,
    saved: &'a Saved,
    lambda: f64,
    upstream: Memory<'a>,
}

impl Back<'_> {
    /// `[2, width]`: of each column of view i's gradient its sum, and that with the view itself.
    fn sums(&self, part: Part, i: usize, g: &Buffer, both: &Buffer) -> Result<Buffer> {
        let [each, chunks] = chunks(part.rows, part.width);
        let partial = self.gpu.alloc(DType::F64, chunks * 2 * part.width)?;
        let diagonal = self.saved.moments.diagonal.memory().part(part.first_column, part.width);
        let mut args = vec![g.into(), halves(both)[i].into(), halves(both)[1 - i].into()];
        args.extend([int(part.rows), int(part.width), int(each), diagonal.into(), self.lambda.into()]);
        args.push((&partial).into());
        let grid = [part.width.div_ceil(LANES), chunks, 1];
        // SAFETY: these are its arguments: three parts, their columns of the diagonal, and two sums for each chunk and column.
        unsafe { launch(self.gpu, "back_sums", grid, [LANES, GROUPS], &mut args)? };
        merged(self.gpu, &partial, [chunks, 2, part.width])
    }

    /// Writes a part of view i's gradient; what lies along the view follows from C's `squares` or from `sums`.
    fn part(
        &self,
        part: Part,
        i: usize,
        g: &Buffer,
        both: &Buffer,
        [squares, sums]: [Option<&Buffer>; 2],
        out: &Buffer,
    ) -> Result<()> {
        let Saved { n, d, moments, .. } = self.saved;
        let [own, other] = [halves(both)[i], halves(both)[1 - i]];
        let pointer = |buffer: Option<&Buffer>| buffer.map_or(0, Buffer::pointer);
        let columns = Arg::Struct(vec![
            moments.diagonal.pointer(),
            halves(&moments.inverse)[i].pointer(),
            pointer(squares),
            pointer(sums),
            self.lambda.to_bits(),
            *n as u64,
        ]);
        let vectors = part.vectors(&[g.memory(), own, other, out.memory()], *d);
        let mut args = vec![part.arg(*d), g.into(), own.into(), other.into(), columns];
        args.extend([self.upstream.into(), out.into(), vectors.into()]);
        let grid = part.grid(vectors, 1).map(|n| n as usize);
        // SAFETY: these are its arguments: three parts, values for all columns or for the part's, and the gradient, in which the part lies.
        unsafe { launch(self.gpu, "back", grid, [LANES, GROUPS], &mut args) }
    }
}

/// Starts a kernel of `cross_correlation.cu`.
///
/// # Safety
/// As [`Gpu::launch`].
unsafe fn launch(gpu: &Gpu, name: &str, grid: [usize; 3], block: [usize; 2], args: &mut [Arg]) -> Result<()> {
    let name = format!("cross_correlation_{name}");
    let (grid, block) = (grid.map(|n| n as u32), [block[0] as u32, block[1] as u32, 1]);
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&modules::CROSS_CORRELATION, &name, grid, block, 0, args) }
}
