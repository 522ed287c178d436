//! The backward pass on a GPU: sums, numbers per channel, dx.

use candle_core::{DType, Result, Tensor, bail};

use super::super::cpu::Sums as HostSums;
use super::super::explicit::Backward;
use super::super::{NAME, Saved};
use super::{division, launch_per_channel, launch_rows, parts};
use crate::cuda::columns::THREADS;
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules};
use crate::in_place::owned;

/// The backward pass over x's memory, and dy's. All but dy contiguous; x is nobody else's.
pub(in super::super) fn backward(
    gpu: &Gpu,
    saved: &Saved,
    x: Tensor,
    y: &Tensor,
    dy: Tensor,
    gamma: &Tensor,
    residual: bool,
) -> Result<Backward> {
    let (sums, dy) = masked_sums(gpu, saved, &x, y, dy, Some(gamma), residual)?;
    let lines = sums.lines_over_ranks(gpu, saved, gamma)?;
    let memory = Memory::of(NAME, gpu, &x)?;
    input_gradient(gpu, saved, [memory, Memory::of(NAME, gpu, &dy)?, memory], !residual, &lines)?;
    let (dgamma, dbeta) = sums.parameter_gradients()?;
    Ok(Backward { dx: x, dgamma, dbeta, dresidual: residual.then_some(dy) })
}

/// Gradients of x, if something asks for it, gamma and beta, in memory of their own. `recompute`: dy must still go through the ReLU, if there is
/// one; `batch`: x's gradient goes through the statistics.
pub(in super::super) fn gradients(
    gpu: &Gpu,
    saved: &Saved,
    x: &Tensor,
    dy: &Tensor,
    gamma: &Tensor,
    recompute: bool,
    batch: bool,
) -> Result<(Option<Tensor>, Tensor, Tensor)> {
    let incoming = if saved.relu() && recompute { Incoming::Recompute } else { Incoming::Masked };
    let sums = Sums::new(gpu, saved, x, dy, &incoming, batch.then_some(gamma))?;
    // Every rank must take part, whether or not its own x asks for a gradient.
    let lines = if batch { sums.lines_over_ranks(gpu, saved, gamma)? } else { sums.lines.clone() };
    let dx = match x.track_op() {
        false => None,
        true => {
            let (x_values, dy) = (Memory::of(NAME, gpu, x)?, Memory::of(NAME, gpu, dy)?);
            let dx = gpu.alloc(x.dtype(), x_values.len())?;
            input_gradient(gpu, saved, [x_values, dy, dx.memory()], recompute, &lines)?;
            Some(dx.into_tensor(x.shape())?)
        }
    };
    let (dgamma, dbeta) = sums.parameter_gradients()?;
    Ok((dx, dgamma, dbeta))
}

/// The first half of [`backward`] alone, its sums on the host.
pub(in super::super) fn host_sums(
    gpu: &Gpu,
    saved: &Saved,
    x: &Tensor,
    y: &Tensor,
    dy: Tensor,
    residual: bool,
) -> Result<(Vec<HostSums>, Tensor)> {
    let (sums, dy) = masked_sums(gpu, saved, x, y, dy, None, residual)?;
    Ok((sums.to_host()?, dy))
}

/// The second half of [`backward`] alone, over x's memory, from sums on the host.
pub(in super::super) fn apply_sums(
    gpu: &Gpu,
    saved: &Saved,
    x: &Tensor,
    dy: &Tensor,
    gamma: &Tensor,
    residual: bool,
    sums: &[HostSums],
) -> Result<()> {
    let lines = lines_of(gpu, saved, gamma, sums)?;
    let memory = Memory::of(NAME, gpu, x)?;
    input_gradient(gpu, saved, [memory, Memory::of(NAME, gpu, dy)?, memory], !residual, &lines)
}

/// How dy becomes the gradient behind the ReLU.
enum Incoming<'a> {
    /// There is no ReLU, or dy went through it before.
    Masked,
    /// dy where the normalized x is above 0 (no residual).
    Recompute,
    /// dy where y is above 0; what is masked is written to dy.
    Mask(&'a Tensor),
}

/// Sums of all of x's groups, and dy: contiguous, and masked where there is both a ReLU and a residual.
fn masked_sums(
    gpu: &Gpu,
    saved: &Saved,
    x: &Tensor,
    y: &Tensor,
    dy: Tensor,
    gamma: Option<&Tensor>,
    residual: bool,
) -> Result<(Sums, Tensor)> {
    let mask = saved.relu() && residual;
    let dy = if mask { owned(dy, &[x, y])? } else { dy.contiguous()? };
    let y = y.contiguous()?;
    let incoming = match (saved.relu(), residual) {
        (false, _) => Incoming::Masked,
        (true, false) => Incoming::Recompute,
        (true, true) => Incoming::Mask(&y),
    };
    Ok((Sums::new(gpu, saved, x, &dy, &incoming, gamma)?, dy))
}

/// Sums over a rank's rows, and what they make of the gradient of x.
struct Sums {
    /// Sums of dy' and of dy' x_hat: f64, `[2, groups, C]`.
    sums: Tensor,
    /// `slope` and `shift` of dx = scale dy' - shift - slope (x - mean): f32, `[2, groups, C]`.
    lines: Tensor,
    dgamma: Buffer,
    dbeta: Buffer,
    rows: usize,
}

impl Sums {
    /// `gamma`: None where no gradient goes through the statistics. `dy`: contiguous, and for [`Incoming::Mask`] nobody else's.
    fn new(
        gpu: &Gpu,
        saved: &Saved,
        x: &Tensor,
        dy: &Tensor,
        incoming: &Incoming,
        gamma: Option<&Tensor>,
    ) -> Result<Self> {
        let (kept, groups, channels) = (saved.device()?, saved.groups(), saved.channels());
        let (x, dy) = (Memory::of(NAME, gpu, x)?, Memory::of(NAME, gpu, dy)?);
        let (name, y) = match incoming {
            Incoming::Masked => ("batch_norm_sums", x),
            Incoming::Recompute => ("batch_norm_sums_relu", x),
            Incoming::Mask(y) => ("batch_norm_sums_mask", Memory::of(NAME, gpu, y)?),
        };
        let columns = division(&[dy, y, x], channels, groups);
        let chunks = gpu.alloc(DType::F64, 2 * groups * columns.chunks * channels)?;
        let [firsts, seconds] = parts(chunks.memory());
        let mut args = [dy.into(), y.into(), x.into(), kept.arg(gpu)?].into_iter().collect::<Vec<Arg>>();
        args.extend([columns.into(), columns.vectors.into(), firsts.into(), seconds.into()]);
        // SAFETY: the kernels read the rows that the division names, and write a value per group, chunk and channel; the
        // third writes those rows of dy too, which the caller says is nobody else's.
        unsafe { launch_rows(gpu, name, x, columns, groups, &mut args)? };
        let sums = gpu.alloc(DType::F64, 2 * groups * channels)?.into_tensor((2, groups, channels))?;
        let lines = gpu.alloc(DType::F32, 2 * groups * channels)?.into_tensor((2, groups, channels))?;
        let (dgamma, dbeta) = (gpu.alloc(DType::F32, channels)?, gpu.alloc(DType::F32, channels)?);
        let gamma = gamma.map(|gamma| Memory::of(NAME, gpu, gamma)).transpose()?;
        let mut args = vec![firsts.into(), seconds.into(), columns.into(), (groups as i32).into()];
        args.extend([gamma.map_or(0u64.into(), Arg::from), kept.arg(gpu)?]);
        args.extend(parts::<2>(Memory::of(NAME, gpu, &sums)?).map(Arg::from));
        args.extend(parts::<2>(Memory::of(NAME, gpu, &lines)?).map(Arg::from));
        args.extend([Arg::from(&dgamma), Arg::from(&dbeta)]);
        // SAFETY: `batch_norm_total` reads a value per group, chunk and channel, gamma unless that is null, and what was kept; it
        // writes all of `sums`, `lines` and the gradients.
        unsafe { launch_per_channel(gpu, "batch_norm_total", channels, 1, &mut args)? };
        Ok(Self { sums, lines, dgamma, dbeta, rows: columns.rows() })
    }

    /// Slope and shift; where there are ranks, of sums over the rows of all of them, which are gathered on the host.
    fn lines_over_ranks(&self, gpu: &Gpu, saved: &Saved, gamma: &Tensor) -> Result<Tensor> {
        match saved.has_ranks() {
            false => Ok(self.lines.clone()),
            true => lines_of(gpu, saved, gamma, &saved.all_sums(&self.to_host()?)?),
        }
    }

    fn to_host(&self) -> Result<Vec<HostSums>> {
        let values: Vec<Vec<Vec<f64>>> = self.sums.to_vec3()?;
        let count = self.rows as f64;
        let each = values[0].iter().zip(&values[1]);
        Ok(each.map(|(beta, gamma)| HostSums { count, gamma: gamma.clone(), beta: beta.clone() }).collect())
    }

    /// Gradients of gamma and beta, `[C]`.
    fn parameter_gradients(self) -> Result<(Tensor, Tensor)> {
        let channels = self.lines.dim(2)?;
        Ok((self.dgamma.into_tensor(channels)?, self.dbeta.into_tensor(channels)?))
    }
}

/// Slope and shift of sums on the host.
fn lines_of(gpu: &Gpu, saved: &Saved, gamma: &Tensor, sums: &[HostSums]) -> Result<Tensor> {
    let (groups, channels) = (saved.groups(), saved.channels());
    if sums.len() != groups || sums.iter().any(|s| s.beta.len() != channels || s.gamma.len() != channels) {
        bail!("{NAME}: {} sums for {groups} groups of {channels} channels", sums.len())
    }
    let betas = sums.iter().flat_map(|s| s.beta.iter().map(|v| v / s.count));
    let means: Vec<f64> = betas.chain(sums.iter().flat_map(|s| s.gamma.iter().map(|v| v / s.count))).collect();
    let means = gpu.upload(&means)?;
    let lines = gpu.alloc(DType::F32, 2 * groups * channels)?;
    let mut args: Vec<Arg> = parts::<2>(means.memory()).map(Arg::from).into();
    args.extend([(channels as i64).into(), ((groups * channels) as i64).into()]);
    args.extend([Memory::of(NAME, gpu, gamma)?.into(), saved.device()?.arg(gpu)?]);
    args.extend(parts::<2>(lines.memory()).map(Arg::from));
    let grid = [(groups * channels).div_ceil(THREADS) as u32, 1, 1];
    // SAFETY: `batch_norm_slopes` reads and writes a value per group and channel, below their number, and reads gamma.
    unsafe { gpu.launch(&modules::BATCH_NORM, "batch_norm_slopes", grid, [THREADS as u32, 1, 1], 0, &mut args)? };
    lines.into_tensor((2, groups, channels))
}

/// Writes the gradient of x to `dx`, which may be x's memory. `recompute`: dy must still go through the ReLU, if there is one.
fn input_gradient(gpu: &Gpu, saved: &Saved, [x, dy, dx]: [Memory; 3], recompute: bool, lines: &Tensor) -> Result<()> {
    let columns = division(&[x, dy, dx], saved.channels(), saved.groups());
    let mut args = vec![dy.into(), x.into(), dx.into(), saved.device()?.arg(gpu)?];
    args.extend(parts::<2>(Memory::of(NAME, gpu, lines)?).map(Arg::from));
    args.extend([columns.into(), columns.vectors.into()]);
    let name = if saved.relu() && recompute { "batch_norm_dx_relu" } else { "batch_norm_dx" };
    // SAFETY: both kernels read and write the rows that the division names, each value of x before that of dx.
    unsafe { launch_rows(gpu, name, x, columns, saved.groups(), &mut args) }
}
