//! How fast convolution is here: `cargo run --release -p diptych-kernels --example conv_speed [SECONDS [FILTER [THREADS [SHARE]]]]`.
//!
//! Prints GFLOP/s of the forward pass and of both gradients, in f32 and in bf16, for every convolution of a ResNet-50 at 224
//! pixels (32 images) and of a CIFAR ResNet-18 (128 images): the best of repeated calls within SECONDS each, and in percent of
//! the multiply-adds that the machine's registers reach without memory. More than 100 is possible: FLOPs are those of the
//! definition, and Winograd's algorithm needs fewer. FILTER keeps the lines that hold all of its parts,
//! separated by commas (`3x3/1,f32`); SHARE divides the number of images. On
//! one thread times are of the processor, not of the clock, so that others who use the machine disturb less.
#![allow(unsafe_code)] // One loop of intrinsics, to know the peak.

use candle_core::{DType, Device, Result, Tensor};
use diptych_kernels::{conv2d, isa, keep_freed_memory};

/// Seconds since some moment: of this process on the processor, or of the clock.
fn now(processor: bool) -> f64 {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let clock = if processor { libc::CLOCK_PROCESS_CPUTIME_ID } else { libc::CLOCK_MONOTONIC };
        // SAFETY: `time` outlives the call, which writes to it.
        unsafe { libc::clock_gettime(clock, &mut time) };
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    }
    #[cfg(not(unix))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        let _ = processor;
        START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
    }
}

/// The shortest time of a call within `budget` seconds.
fn best(budget: f64, processor: bool, mut f: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    f()?;
    let (start, mut best) = (now(processor), f64::INFINITY);
    while now(processor) - start < budget {
        let one = now(processor);
        f()?;
        best = best.min(now(processor) - one);
    }
    Ok(best)
}

/// Multiply-adds of 24 registers, in GFLOP/s of one thread.
#[cfg(target_arch = "x86_64")]
fn peak() -> f64 {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    fn wide(rounds: usize, x: f32) -> f32 {
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(0.5));
        let mut sums = [x; 24];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(*sum, x, y));
        }
        _mm512_reduce_add_ps(sums.iter().fold(x, |a, b| _mm512_add_ps(a, *b)))
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow(rounds: usize, x: f32) -> f32 {
        let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(0.5));
        let mut sums = [x; 12];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(*sum, x, y));
        }
        _mm256_cvtss_f32(sums.iter().fold(x, |a, b| _mm256_add_ps(a, *b)))
    }
    let rounds = 100_000;
    let mut best = 0f64;
    for _ in 0..20 {
        let start = now(true);
        let x = std::hint::black_box(0.99);
        let (value, width) = if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has the feature that the function enables, asked in the line above.
            (unsafe { wide(rounds, x) }, 24 * 16)
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            (unsafe { narrow(rounds, x) }, 12 * 8)
        } else {
            return f64::NAN;
        };
        std::hint::black_box(value);
        best = best.max((2 * rounds * width) as f64 / (now(true) - start) / 1e9);
    }
    best
}

#[cfg(not(target_arch = "x86_64"))]
fn peak() -> f64 {
    f64::NAN
}

/// A layer: its name, images, their size, channels in and out, kernel and stride.
type Layer = (String, usize, usize, usize, usize, usize, usize);

fn layers() -> Vec<Layer> {
    let mut all: Vec<Layer> = vec![("r50 stem".into(), 32, 224, 3, 64, 7, 2)];
    let mut before = 64;
    for (stage, (width, size)) in [(64, 56), (128, 28), (256, 14), (512, 7)].into_iter().enumerate() {
        let stride = if stage == 0 { 1 } else { 2 };
        let mut add =
            |name: &str, size, c, o, k, s| all.push((format!("r50 l{} {name}", stage + 1), 32, size, c, o, k, s));
        add("1x1 a0", size * stride, before, width, 1, 1);
        if stride == 2 {
            add("3x3/2", 2 * size, width, width, 3, 2);
            add("ds", 2 * size, before, 4 * width, 1, 2);
        }
        add("3x3", size, width, width, 3, 1);
        add("1x1 c", size, width, 4 * width, 1, 1);
        add("1x1 a1", size, 4 * width, width, 1, 1);
        before = 4 * width;
    }
    all.push(("r18 stem".into(), 128, 32, 3, 64, 3, 1));
    for (stage, (width, size)) in [(64, 32), (128, 16), (256, 8), (512, 4)].into_iter().enumerate() {
        let mut add =
            |name: &str, size, c, k, s| all.push((format!("r18 l{} {name}", stage + 1), 128, size, c, width, k, s));
        if stage > 0 {
            add("3x3/2", 2 * size, width / 2, 3, 2);
            add("ds", 2 * size, width / 2, 1, 2);
        }
        add("3x3", size, width, 3, 1);
    }
    all
}

fn main() -> Result<()> {
    keep_freed_memory();
    let mut args = std::env::args().skip(1);
    let budget = args.next().and_then(|v| v.parse().ok()).unwrap_or(0.2);
    let filter = args.next().unwrap_or_default();
    let threads = args.next().and_then(|v| v.parse().ok()).unwrap_or(0);
    let share: usize = args.next().and_then(|v| v.parse().ok()).unwrap_or(1).max(1);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(candle_core::Error::wrap)?;
    let threads = rayon::current_num_threads();
    let peak = peak() * threads as f64;
    println!("{threads} threads, {}, peak {peak:.0} GFLOP/s; GFLOP/s (percent of the peak)", isa());
    println!("{:<14} {:<32} {:>5} {:>12} {:>12} {:>12}", "layer", "shape", "", "forward", "input grad", "weight grad");
    let device = Device::Cpu;
    for (name, n, size, c, o, kernel, stride) in layers() {
        let n = n.div_ceil(share);
        let line = |dtype: DType| {
            let shape = format!("{n}x{size}x{size} {c}->{o} {kernel}x{kernel}/{stride}");
            format!("{name:<14} {shape:<32} {:>5}", format!("{dtype:?}").to_lowercase())
        };
        let wanted = |dtype: &DType| filter.split(',').all(|part| line(*dtype).contains(part));
        let dtypes: Vec<DType> = [DType::F32, DType::BF16].into_iter().filter(wanted).collect();
        if dtypes.is_empty() {
            continue;
        }
        let x = Tensor::randn(0f32, 1.0, (n, size, size, c), &device)?;
        let w = Tensor::randn(0f32, 0.1, (o, kernel, kernel, c), &device)?;
        let padding = kernel / 2;
        for dtype in dtypes {
            let x = x.to_dtype(dtype)?;
            let dy = conv2d::forward(&x, &w, stride, padding)?;
            let flop = 2.0 * (dy.elem_count() * kernel * kernel * c) as f64;
            let mut line = line(dtype);
            let dims = [n, size, size, c];
            let passes: [&dyn Fn() -> Result<Tensor>; 3] = [
                &|| conv2d::forward(&x, &w, stride, padding),
                &|| conv2d::input_grad(&w, &dy, dims, stride, padding, None),
                &|| conv2d::weight_grad(&x, &dy, [kernel, kernel], stride, padding),
            ];
            for (i, pass) in passes.into_iter().enumerate() {
                // The images get no gradient.
                line += &match (i, c) {
                    (1, 3) => format!(" {:>12}", "-"),
                    _ => {
                        let speed = flop / best(budget, threads == 1, pass)? / 1e9;
                        format!(" {:>12}", format!("{speed:.0} ({:.0})", 100.0 * speed / peak))
                    }
                };
            }
            println!("{line}");
        }
    }
    Ok(())
}
