//! Rows of embeddings against columns of embeddings on a GPU, without their matrix of logits: what NT-Xent and InfoNCE share.
//!
//! Forward ([`Problem::forward`]): tiles of logits on tensor cores (bf16, or f32 where the run allows TF32), or in exact f32, become a
//! maximum and a sum of exponentials of each row; parts of the columns are put together in order. Backward ([`Problem::weighted`]): the tiles
//! again, turned into weights, times the columns. 2 N M D flops forward, twice that backward for D up to a chunk (128 bf16 or 64 f32
//! values; the logits are made again for each further chunk); memory O((N + M) D). No sum depends on an order that varies: results are the
//! same in every run, on every GPU.

mod grid;
#[cfg(test)]
mod tests;

use candle_core::cuda_backend::gemm_reduced_precision_f32;
use candle_core::{DType, Result, Tensor, bail};

use crate::cuda::{Arg, Buffer, Gpu, Memory, modules, named};
use grid::{COLUMNS_BF16, COLUMNS_F32, ROWS, parts, shared_bytes};

const THREADS: u32 = 128;
/// Rows that a block takes where a warp has a row.
const WARPS: usize = 4;
/// Rows that a block takes where a thread has a row.
const JOIN: usize = 256;
/// Blocks that run at the same time on an H200 forward and backward, from their registers. Parts follow from these and not from the
/// device, so that results do too.
const SLOTS: [usize; 2] = [396, 264];
/// Up to this 1 / temperature all logits of rows at length 1 are within the range of exp below the highest that there can be.
const SHARED_MAXIMUM: f64 = 39.0;

/// How products are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arithmetic {
    Bf16,
    Tf32,
    F32,
}

impl Arithmetic {
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self::Bf16,
            _ if gemm_reduced_precision_f32() => Self::Tf32,
            _ => Self::F32,
        }
    }

    fn dtype(self) -> DType {
        if self == Self::Bf16 { DType::BF16 } else { DType::F32 }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
        }
    }

    /// Columns of a tile.
    fn columns(self) -> usize {
        if self == Self::Bf16 { COLUMNS_BF16 } else { COLUMNS_F32 }
    }

    /// `width` in whole 16 bytes.
    fn depth(self, width: usize) -> usize {
        width.next_multiple_of(16 / self.dtype().size_in_bytes())
    }
}

/// One column for each row, or none.
#[derive(Debug)]
pub(crate) enum Rule {
    /// `low + row` for rows below `half`, `high + row - half` for others.
    Steps {
        half: usize,
        low: usize,
        high: usize,
    },
    /// A list on the device.
    List(Buffer),
    Nobody,
}

impl Rule {
    /// The rule that a list follows; the list itself goes to the device only where it follows none.
    pub(crate) fn new(gpu: &Gpu, list: &[u32]) -> Result<Self> {
        match grid::steps(list) {
            Some([half, low, high]) => Ok(Self::Steps { half, low, high }),
            None => Ok(Self::List(gpu.upload(list)?)),
        }
    }

    /// The `Rule` of `contrast_index.h`.
    fn arg(&self) -> Arg {
        let words = |list: u64, [half, low, high]: [i32; 3]| {
            let word = |v: i32| u64::from(v as u32);
            Arg::Struct(vec![list, word(half) | word(low) << 32, word(high)])
        };
        match self {
            // Sizes fit: `Problem::new` has seen to it.
            Self::Steps { half, low, high } => words(0, [*half as i32, *low as i32, *high as i32]),
            Self::List(list) => words(list.pointer(), [0; 3]),
            Self::Nobody => words(0, [0, i32::MIN, i32::MIN]),
        }
    }
}

/// `[count, depth]` rows as tiles take them.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    memory: Memory<'a>,
    count: usize,
    depth: usize,
}

/// Rows made ready: at length 1, rounded to TF32, or with zeros behind them, as needed.
#[derive(Debug)]
pub(crate) struct Prepared {
    rows: Buffer,
    count: usize,
    depth: usize,
    /// 1 / length of each row in f64, 0 for a zero row; of rows that were normalized.
    inverse: Option<Buffer>,
}

impl Prepared {
    pub(crate) fn operand(&self) -> Operand<'_> {
        Operand { memory: self.rows.memory(), count: self.count, depth: self.depth }
    }
}

/// `rows` `[.., width]`, one or two arrays after each other, as an operand of their own.
pub(crate) fn prepare(
    gpu: &Gpu,
    arithmetic: Arithmetic,
    rows: [Memory; 2],
    width: usize,
    normalized: bool,
) -> Result<Prepared> {
    let [x, y] = rows;
    let first = x.len() / width;
    let count = first + y.len() / width;
    let depth = arithmetic.depth(width);
    let out = gpu.alloc(arithmetic.dtype(), count * depth)?;
    let inverse = if normalized { Some(gpu.alloc(DType::F64, count)?) } else { None };
    let rounded = arithmetic == Arithmetic::Tf32;
    let mut args = vec![x.into(), y.into()];
    args.extend(ints("contrast", [first, count, width, depth])?);
    args.extend([rounded.into(), (&out).into(), inverse.as_ref().map_or(0u64.into(), Arg::from)]);
    // SAFETY: these are the arguments of `prepare`, which reads `count` rows of the two arrays and writes as many of `out` and `inverse`.
    unsafe { by_warps(gpu, &named("contrast_prepare", x.dtype())?, count, &mut args)? };
    Ok(Prepared { rows: out, count, depth, inverse })
}

/// `rows` `[.., width]` as they are where that serves, else prepared.
pub(crate) fn ready(gpu: &Gpu, arithmetic: Arithmetic, rows: Memory, width: usize) -> Result<Option<Prepared>> {
    if arithmetic != Arithmetic::Tf32 && rows.vectors(width) {
        return Ok(None);
    }
    prepare(gpu, arithmetic, [rows, rows.part(0, 0)], width, false).map(Some)
}

/// The operand of rows that may have been prepared.
pub(crate) fn operand<'a>(prepared: &'a Option<Prepared>, rows: Memory<'a>, width: usize) -> Operand<'a> {
    match prepared {
        Some(prepared) => prepared.operand(),
        None => Operand { memory: rows, count: rows.len() / width, depth: width },
    }
}

/// Rows against columns, and who belongs to whom.
pub(crate) struct Problem<'a> {
    pub(crate) arithmetic: Arithmetic,
    pub(crate) rows: Operand<'a>,
    pub(crate) columns: Operand<'a>,
    pub(crate) temperature: f64,
    /// Whether rows and columns have length 1 (or 0), so that logits have a bound.
    pub(crate) bounded: bool,
    pub(crate) positive: &'a Rule,
    pub(crate) excluded: &'a Rule,
}

/// What becomes a weight of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weights {
    /// Its share in the row, less 1 for the row's positive.
    Rows,
    /// The row's share in the column, less 1 for the column's positive: rows and columns have changed places.
    Columns,
    /// The sum of both.
    Both,
}

/// What the rows' exponentials come to.
#[derive(Debug)]
pub(crate) struct Joined {
    /// `[]` f32: the mean over rows of log-sum-exp less the positive's logit.
    pub(crate) loss: Buffer,
    /// `[N]`, as weights need it: the log-sum-exp, or what stands for it where a ceiling serves all rows.
    pub(crate) of_rows: Buffer,
    /// `[N]`: the share of a positive beside the columns, less 1.
    pub(crate) beside: Option<Buffer>,
}

impl Problem<'_> {
    /// log2(e) / temperature: logits are counted in powers of 2.
    fn scale(&self) -> f64 {
        std::f64::consts::LOG2_E / self.temperature
    }

    /// What no logit exceeds by much, or infinity.
    fn ceiling(&self) -> f32 {
        if self.bounded && 1.0 / self.temperature <= SHARED_MAXIMUM { self.scale() as f32 } else { f32::INFINITY }
    }

    /// Tiles of columns that a block takes, and parts into which columns are divided so.
    fn parts(&self, slots: usize, chunks: usize) -> [usize; 2] {
        let tiles = self.columns.count.div_ceil(self.arithmetic.columns());
        parts(self.rows.count.div_ceil(ROWS) * chunks, tiles, slots)
    }

    /// The `Sides` of `contrast.cu`.
    fn sides(&self, tiles: usize) -> Result<Arg> {
        let Operand { memory: rows, count: n, depth } = self.rows;
        let Operand { memory: columns, count: m, .. } = self.columns;
        // Rows of tiles may be counted beyond the last.
        if n.max(m) > (i32::MAX as usize) - 2 * ROWS || depth > 1 << 20 {
            bail!("contrast: {n} rows against {m} of {depth} values are too many for one GPU")
        }
        let word = |low: usize, high: usize| low as u64 | (high as u64) << 32;
        Ok(Arg::Struct(vec![rows.pointer(), columns.pointer(), word(n, m), word(depth, tiles)]))
    }

    fn shared(&self) -> u32 {
        shared_bytes(self.arithmetic.dtype().size_in_bytes(), self.arithmetic == Arithmetic::F32, self.rows.depth)
    }

    /// The loss, and what weights need of the rows. `beside`: logits of positives that are no columns
    /// ([`positives_beside`]).
    pub(crate) fn forward(&self, gpu: &Gpu, beside: Option<Buffer>) -> Result<Joined> {
        let n = self.rows.count;
        let [tiles, parts] = self.parts(SLOTS[0], 1);
        let partial = gpu.alloc(DType::F32, 2 * parts * n)?;
        let found = if beside.is_none() { Some(gpu.alloc(DType::F32, n)?) } else { None };
        let positives = beside.as_ref().or(found.as_ref()).map_or(0u64.into(), Arg::from);
        let mut args = vec![self.sides(tiles)?, (self.scale() as f32).into(), self.ceiling().into()];
        args.extend([self.positive.arg(), self.excluded.arg(), (&partial).into(), positives]);
        let grid = [n.div_ceil(ROWS) as u32, parts as u32, 1];
        let name = format!("contrast_forward_{}", self.arithmetic.suffix());
        // SAFETY: these are the arguments of `forward`. It reads whole rows of both sides, and writes to `partial` for each part and row, and
        // the logit of each row's positive, which the rule puts among the columns, or which is there already.
        unsafe { gpu.launch(&modules::CONTRAST, &name, grid, [THREADS, 1, 1], self.shared(), &mut args)? };
        self.join(gpu, &partial, parts, found, beside)
    }

    fn join(
        &self,
        gpu: &Gpu,
        partial: &Buffer,
        parts: usize,
        found: Option<Buffer>,
        beside: Option<Buffer>,
    ) -> Result<Joined> {
        let n = self.rows.count;
        // Tiles read four at a time.
        let of_rows = gpu.alloc(DType::F32, n.next_multiple_of(4))?;
        let blocks = n.div_ceil(JOIN);
        let terms = gpu.alloc(DType::F64, blocks)?;
        let positives = beside.as_ref().or(found.as_ref()).map_or(0u64.into(), Arg::from);
        let mut args = vec![partial.into()];
        args.extend(ints("contrast", [parts, n])?);
        args.extend([positives, beside.as_ref().map_or(0u64.into(), Arg::from), self.ceiling().into()]);
        args.extend([(&of_rows).into(), (&terms).into()]);
        let name = "contrast_join";
        // SAFETY: these are its arguments; it reads `parts` pairs and a positive for each of n rows, and writes a value for each row, and over the
        // positives if they lie beside the columns, and a term for each block.
        unsafe { gpu.launch(&modules::CONTRAST_ROWS, name, [blocks as u32, 1, 1], [JOIN as u32, 1, 1], 0, &mut args)? };
        let loss = gpu.alloc(DType::F32, 1)?;
        let mut args = [(&terms).into(), Arg::from(blocks as i32), Arg::from(1.0 / n as f64), (&loss).into()];
        // SAFETY: as above; it reads a term for each block and writes one number.
        unsafe { gpu.launch(&modules::CONTRAST_ROWS, "contrast_loss", [1, 1, 1], [JOIN as u32, 1, 1], 0, &mut args)? };
        Ok(Joined { loss, of_rows, beside })
    }

    /// `[parts, N, depth]`: for each row the sum over a part of the columns of weight times column. `of`: what [`Joined`] says of
    /// the rows, or of the columns where they are what asks.
    pub(crate) fn weighted(&self, gpu: &Gpu, weights: Weights, of: &Buffer) -> Result<(Buffer, usize)> {
        let Operand { count: n, depth, .. } = self.rows;
        let chunk = grid::ROW_BYTES / self.arithmetic.dtype().size_in_bytes();
        let chunks = depth.div_ceil(chunk);
        let [tiles, parts] = self.parts(SLOTS[1], chunks);
        let sums = gpu.alloc(DType::F32, parts * n * depth)?;
        let name = match weights {
            Weights::Rows => "rows",
            Weights::Columns => "columns",
            Weights::Both if self.ceiling() == f32::INFINITY => "both",
            Weights::Both => "shared",
        };
        let rows = if weights == Weights::Columns { 0u64.into() } else { of.into() };
        let columns = if weights == Weights::Rows { 0u64.into() } else { of.into() };
        let mut args = vec![self.sides(tiles)?, (self.scale() as f32).into(), self.ceiling().into(), rows, columns];
        args.extend([self.positive.arg(), self.excluded.arg(), (&sums).into()]);
        let grid = [n.div_ceil(ROWS) as u32, parts as u32, chunks as u32];
        let name = format!("contrast_{name}_{}", self.arithmetic.suffix());
        // SAFETY: these are the arguments of `backward`, which reads whole rows of both sides, a value for each row or column (`of`, in
        // whole vectors), and writes all of `sums`.
        unsafe { gpu.launch(&modules::CONTRAST, &name, grid, [THREADS, 1, 1], self.shared(), &mut args)? };
        Ok((sums, parts))
    }
}

/// `[N]`: logits (in powers of 2) of rows `[N, width]` and the positives beside the columns, as [`Problem::forward`] takes them.
pub(crate) fn positives_beside(gpu: &Gpu, [q, k]: [Memory; 2], width: usize, temperature: f64) -> Result<Buffer> {
    let n = q.len() / width;
    let out = gpu.alloc(DType::F32, n)?;
    let mut args = vec![q.into(), k.into()];
    args.extend(ints("contrast", [n, width])?);
    args.extend([(std::f64::consts::LOG2_E / temperature).into(), (&out).into()]);
    // SAFETY: these are the arguments of `positives_of`, which reads n rows of both and writes n numbers.
    unsafe { by_warps(gpu, &named("contrast_positives", q.dtype())?, n, &mut args)? };
    Ok(out)
}

/// A gradient for `[N, width]` rows, but for its factor: weighted sums of columns, and a weight of one more row.
pub(crate) struct Gradient<'a> {
    pub(crate) n: usize,
    pub(crate) width: usize,
    pub(crate) sums: Option<&'a (Buffer, usize)>,
    /// `[N, width]` and `[N]`.
    pub(crate) beside: Option<(Memory<'a>, &'a Buffer)>,
    /// The loss's upstream gradient, `[]` f32.
    pub(crate) upstream: Memory<'a>,
    pub(crate) factor: f64,
}

impl Gradient<'_> {
    /// The `Gradient` of `contrast_rows.cu`.
    fn arg(&self, depth: usize) -> Arg {
        let (sums, parts) = self.sums.map_or((0, 0), |(sums, parts)| (sums.pointer(), *parts));
        let (other, weights) = self.beside.map_or((0, 0), |(other, weights)| (other.pointer(), weights.pointer()));
        let word = |low: usize, high: usize| low as u64 | (high as u64) << 32;
        Arg::Struct(vec![sums, word(parts, self.n), word(depth, 0), other, weights, self.width as u64])
    }

    fn depth(&self) -> usize {
        self.sums.map_or(0, |(sums, parts)| sums.memory().len() / (parts * self.n))
    }

    /// The gradient in the type of its rows.
    pub(crate) fn finish(&self, gpu: &Gpu, dtype: DType) -> Result<Tensor> {
        let out = gpu.alloc(dtype, self.n * self.width)?;
        let mut args = [self.arg(self.depth()), self.upstream.into(), self.factor.into(), (&out).into()];
        // SAFETY: these are the arguments of `finish`, which reads all parts of n rows and n rows of `beside`, and writes n rows.
        unsafe { by_warps(gpu, &named("contrast_finish", dtype)?, self.n, &mut args)? };
        out.into_tensor((self.n, self.width))
    }

    /// The gradients through the normalization for two views, `[N / 2, width]` each.
    pub(crate) fn finish_normalized(&self, gpu: &Gpu, views: [Memory; 2], prepared: &Prepared) -> Result<[Tensor; 2]> {
        let dtype = views[0].dtype();
        let first = self.n / 2;
        let [dx, dy] = [gpu.alloc(dtype, first * self.width)?, gpu.alloc(dtype, first * self.width)?];
        let inverse = prepared.inverse.as_ref().map_or(0u64.into(), Arg::from);
        let mut args = vec![self.arg(self.depth()), self.upstream.into(), self.factor.into()];
        args.extend([views[0].into(), views[1].into(), Arg::from(first as i32), inverse, (&dx).into(), (&dy).into()]);
        // SAFETY: these are the arguments of `finish_normalized`, which reads all parts of n rows, the views and the lengths, and writes
        // n rows in all.
        unsafe { by_warps(gpu, &named("contrast_finish_normalized", dtype)?, self.n, &mut args)? };
        Ok([dx.into_tensor((first, self.width))?, dy.into_tensor((first, self.width))?])
    }
}

/// Starts a kernel of `contrast_rows.cu` in which a warp has a row.
///
/// # Safety
/// As [`Gpu::launch`].
unsafe fn by_warps(gpu: &Gpu, name: &str, rows: usize, args: &mut [Arg]) -> Result<()> {
    let grid = [rows.div_ceil(WARPS) as u32, 1, 1];
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&modules::CONTRAST_ROWS, name, grid, [THREADS, 1, 1], 0, args) }
}

/// Sizes as kernels count them.
fn ints<const N: usize>(op: &str, sizes: [usize; N]) -> Result<Vec<Arg>> {
    let one = |size: usize| match i32::try_from(size) {
        Ok(size) => Ok(Arg::from(size)),
        Err(_) => bail!("{op}: {size} rows are too many for one GPU"),
    };
    sizes.into_iter().map(one).collect()
}
