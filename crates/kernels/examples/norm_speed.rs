//! How fast batch norm is here: `cargo run --release -p diptych-kernels --example norm_speed [SECONDS [THREADS [NAME]]]`.
//!
//! Prints milliseconds of the forward and the backward pass of batch norm with residual and ReLU on shapes of ResNets, the
//! bytes that they must move, and their rate as a share of a plain copy's, timed in turn with them.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use diptych_kernels::batch_norm::{self, Options};
use rayon::prelude::*;

/// The median of times, in seconds.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn seconds<R>(f: impl FnOnce() -> Result<R>) -> Result<(f64, R)> {
    let start = Instant::now();
    let result = f()?;
    Ok((start.elapsed().as_secs_f64(), result))
}

/// One parallel copy of `from` to `to`.
fn copy(from: &[u8], to: &mut [u8]) {
    let chunk = 1 << 18;
    to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
}

fn main() -> Result<()> {
    diptych_kernels::keep_freed_memory();
    let argument = |i| std::env::args().nth(i);
    let budget = Duration::from_secs_f64(argument(1).and_then(|v| v.parse().ok()).unwrap_or(0.5));
    let threads = argument(2).and_then(|v| v.parse().ok()).unwrap_or(0);
    let name = argument(3).unwrap_or_default();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(candle_core::Error::wrap)?;
    println!(
        "{:<20} {:>5} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
        "shape", "type", "with", "fwd ms", "bwd ms", "MB fwd", "MB bwd", "GB/s", "copy GB/s", "share"
    );
    for shape in
        [[128, 32, 32, 64], [128, 4, 4, 512], [32, 56, 56, 64], [32, 56, 56, 256], [32, 14, 14, 1024], [32, 7, 7, 2048]]
    {
        for dtype in [DType::F32, DType::BF16] {
            for (what, residual, relu) in [("-", false, false), ("relu", false, true), ("add relu", true, true)] {
                if format!("{shape:?} {dtype:?} {what}").contains(&name) {
                    row(shape, dtype, what, residual, relu, budget)?;
                }
            }
        }
    }
    Ok(())
}

fn row(shape: [usize; 4], dtype: DType, what: &str, residual: bool, relu: bool, budget: Duration) -> Result<()> {
    let random = || Tensor::randn(0f32, 1.0, &shape, &Device::Cpu)?.to_dtype(dtype);
    let (source, r, source_dy) = (random()?, random()?, random()?);
    let gamma = Tensor::ones(shape[3], DType::F32, &Device::Cpu)?;
    let beta = Tensor::zeros(shape[3], DType::F32, &Device::Cpu)?;
    let options = Options { relu, ..Options::default() };
    let size = source.elem_count() * dtype.size_in_bytes();
    let (from, mut to) = (vec![1u8; size], vec![2u8; size]);
    let (mut forward, mut backward, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    // The values of x and dy after the first round do not matter, as long as they stay finite.
    let (mut x, mut dy) = (source.copy()?, source_dy.copy()?);
    while start.elapsed() < budget || forward.len() < 3 {
        let (time, out) = seconds(|| batch_norm::forward(&x, &gamma, &beta, residual.then_some(&r), &options))?;
        forward.push(time);
        let (time, back) = seconds(|| batch_norm::backward(&out.saved, x, &out.y, dy, &gamma, residual))?;
        backward.push(time);
        let (time, ()) = seconds(|| {
            copy(&from, &mut to);
            Ok(())
        })?;
        copies.push(time);
        (x, dy) = (back.dx, back.dresidual.unwrap_or(out.y));
    }
    let megabytes = size as f64 / 1e6;
    // Forward: x twice, the residual, y. Backward: dy and x twice, dx; with both residual and ReLU also y and the masked dy.
    let passes = [3 + usize::from(residual), 5 + 2 * usize::from(residual && relu)].map(|n| n as f64 * megabytes);
    let [forward, backward, copy] = [&mut forward, &mut backward, &mut copies].map(|times| median(times));
    let rate = (passes[0] + passes[1]) / (forward + backward) / 1e3;
    let copy_rate = 2.0 * megabytes / copy / 1e3;
    println!(
        "{:<20} {:>5} {what:>9} {:>8.2} {:>8.2} {:>8.0} {:>8.0} {rate:>8.1} {copy_rate:>10.1} {:>7.0}%",
        format!("{shape:?}"),
        if dtype == DType::F32 { "f32" } else { "bf16" },
        forward * 1e3,
        backward * 1e3,
        passes[0],
        passes[1],
        100.0 * rate / copy_rate
    );
    Ok(())
}
