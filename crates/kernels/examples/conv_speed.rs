//! How fast the convolution is here: `cargo run --release -p diptych-kernels --example conv_speed [SECONDS [BATCH]]`.
//!
//! Prints GFLOP/s of the forward pass and of the whole step (forward and both gradients), the best of repeated calls,
//! for the layers of small ResNets. The step includes what Candle adds around the op.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor, Var};
use diptych_kernels::conv2d;

/// The shortest time of a call within this long, in seconds.
fn best(budget: Duration, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < budget {
        let one = Instant::now();
        f()?;
        best = best.min(one.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0.5);
    let batch = std::env::args().nth(2).and_then(|v| v.parse().ok());
    let budget = Duration::from_secs_f64(seconds);
    println!("{:<34} {:>12} {:>12} {:>10} {:>10}", "layer", "fwd GFLOP/s", "step GFLOP/s", "fwd ms", "step ms");
    for (name, n, size, c, o, kernel, stride) in [
        ("cifar stem 3x3", 128, 32, 3, 32, 3, 1),
        ("48x48 stem 3x3/2", 128, 48, 3, 32, 3, 2),
        ("imagenet stem 7x7/2", 8, 224, 3, 64, 7, 2),
        ("3x3 32x32 16", 128, 32, 16, 16, 3, 1),
        ("3x3 32x32 32", 128, 32, 32, 32, 3, 1),
        ("3x3 32x32 64", 128, 32, 64, 64, 3, 1),
        ("3x3/2 32x32 64-128", 128, 32, 64, 128, 3, 2),
        ("1x1/2 32x32 64-128", 128, 32, 64, 128, 1, 2),
        ("3x3 16x16 128", 128, 16, 128, 128, 3, 1),
        ("3x3 8x8 256", 128, 8, 256, 256, 3, 1),
        ("3x3 4x4 512", 128, 4, 512, 512, 3, 1),
        ("1x1 56x56 64-256", 8, 56, 64, 256, 1, 1),
        ("1x1 7x7 2048-512", 32, 7, 2048, 512, 1, 1),
    ] {
        let (device, n) = (Device::Cpu, batch.unwrap_or(n));
        let x = Var::from_tensor(&Tensor::randn(0f32, 1.0, (n, size, size, c), &device)?)?;
        let w = Var::from_tensor(&Tensor::randn(0f32, 0.1, (o, kernel, kernel, c), &device)?)?;
        let padding = kernel / 2;
        let y = conv2d(x.as_tensor(), w.as_tensor(), stride, padding)?;
        let flop = 2.0 * (y.elem_count() * kernel * kernel * c) as f64;
        let dy = Tensor::ones(y.dims(), DType::F32, &device)?;
        // A stem's input is data: it gets no gradient.
        let (image, passes) = if c == 3 { (x.as_detached_tensor(), 2.0) } else { (x.as_tensor().clone(), 3.0) };
        let forward = best(budget, || conv2d(&image, w.as_tensor(), stride, padding).map(|_| ()))?;
        let step = best(budget, || {
            conv2d(&image, w.as_tensor(), stride, padding)?.mul(&dy)?.sum_all()?.backward().map(|_| ())
        })?;
        println!(
            "{name:<34} {:>12.0} {:>12.0} {:>10.2} {:>10.2}",
            flop / forward / 1e9,
            passes * flop / step / 1e9,
            forward * 1e3,
            step * 1e3
        );
    }
    Ok(())
}
