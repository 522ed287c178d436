//! The machine: its name, and what it can do at most at this moment.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_kernels::{device, peak};
use rayon::prelude::*;
use serde::Serialize;

use crate::case::{Precision, Scale, Work};
use crate::input::random;

/// Larger than any cache.
const LARGE: usize = 1 << 30;
/// Both halves of a copy that stays inside a large last-level cache, but not inside the cores' own.
const CACHED: usize = 32 << 20;

/// Measured peaks of all threads together, or of a GPU.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor and the number of threads.
    pub(crate) name: String,
    /// The instruction set that kernels use.
    pub(crate) isa: &'static str,
    /// f32 multiply-adds, operations a second.
    pub(crate) f32_flops: Option<f64>,
    /// The same with factors rounded to TF32, on GPUs.
    pub(crate) tf32_flops: Option<f64>,
    /// bf16 multiply-adds summed in f32, operations a second.
    pub(crate) bf16_flops: Option<f64>,
    /// Bytes read and written a second by a copy larger than the caches.
    pub(crate) memory_bandwidth: f64,
    /// The same inside the last-level cache.
    pub(crate) cache_bandwidth: f64,
    /// The size of the last-level cache, where the system tells.
    pub(crate) cache_bytes: Option<u64>,
    /// How many programs wanted to run during the last minute, where the system tells, before this one began.
    pub(crate) load: Option<f64>,
}

impl Machine {
    /// Measures what `device` can do; takes about a second.
    ///
    /// # Errors
    /// If a GPU fails.
    pub(crate) fn measure(threads: usize, device: &Device, scale: Scale) -> Result<Self> {
        if device.is_cuda() { Self::gpu(threads, device, scale) } else { Ok(Self::cpu(threads)) }
    }

    fn cpu(threads: usize) -> Self {
        let load = load();
        Self {
            load,
            tf32_flops: None,
            name: format!("{}, {threads} threads", processor().unwrap_or_else(|| std::env::consts::ARCH.into())),
            isa: diptych_kernels::isa(),
            f32_flops: rate(peak::f32_multiply_adds),
            bf16_flops: rate(peak::bf16_multiply_adds),
            memory_bandwidth: copy(LARGE, 3),
            cache_bandwidth: copy(CACHED, 20),
            cache_bytes: cache(),
        }
    }

    fn gpu(threads: usize, device: &Device, scale: Scale) -> Result<Self> {
        let load = load();
        let found = device::describe(device)?;
        let gpu = found.iter().find(|(what, _)| *what == "GPU").map_or("a GPU", |(_, name)| name.as_str());
        let tiny = scale == Scale::Tiny;
        let (side, bytes) = if tiny { (64, 1 << 16) } else { (8192, LARGE) };
        let flops = |precision| products(side, precision, device).map(Some);
        Ok(Self {
            load,
            name: format!("{gpu}, {threads} threads"),
            isa: diptych_kernels::isa(),
            f32_flops: flops(Precision::F32)?,
            tf32_flops: flops(Precision::Tf32)?,
            bf16_flops: flops(Precision::Bf16)?,
            memory_bandwidth: device_copy(bytes, device)?,
            cache_bandwidth: device_copy(bytes.min(CACHED), device)?,
            // What stays in a GPU's cache between two kernels is little: all floors are those of its memory.
            cache_bytes: None,
        })
    }

    /// The least seconds that this machine needs for `work`; `None` where a peak is not known.
    pub(crate) fn floor(&self, work: Work, precision: Precision) -> Option<f64> {
        // Products of bf16 numbers can be made in f32 too, and on some machines that is faster than their own units.
        let units = match precision {
            Precision::F32 => [self.f32_flops, None],
            Precision::Tf32 => [self.f32_flops, self.tf32_flops],
            Precision::Bf16 => [self.f32_flops, self.bf16_flops],
        };
        let flops = units.into_iter().flatten().reduce(f64::max);
        let fits = self.cache_bytes.is_some_and(|bytes| work.bytes < bytes as f64 / 2.0);
        let bandwidth = if fits { self.cache_bandwidth.max(self.memory_bandwidth) } else { self.memory_bandwidth };
        Some((work.flops / flops?).max(work.bytes / bandwidth))
    }

    /// What to think of numbers from a machine that others use at the same time.
    pub(crate) fn warning(&self) -> Option<String> {
        let load = self.load.filter(|load| *load > 0.5)?;
        Some(format!(
            "warning: the machine is busy (load {load:.1}); programs that share out work in equal parts, as PyTorch does, lose more by that"
        ))
    }

    /// The peaks in a line.
    pub(crate) fn describe(&self) -> String {
        let flops = |f: Option<f64>| f.map_or("unknown".to_string(), |f| format!("{:.0} GFLOP/s", f / 1e9));
        let tf32 = self.tf32_flops.map_or(String::new(), |_| format!(" tf32 {},", flops(self.tf32_flops)));
        format!(
            "{}; kernels in {}; peaks: f32 {},{tf32} bf16 {}, copy {:.0} GB/s in memory and {:.0} GB/s in cache",
            self.name,
            self.isa,
            flops(self.f32_flops),
            flops(self.bf16_flops),
            self.memory_bandwidth / 1e9,
            self.cache_bandwidth / 1e9
        )
    }
}

/// Operations a second of products of large matrices of random numbers (those of zeros are faster), the best of a few.
fn products(side: usize, precision: Precision, device: &Device) -> Result<f64> {
    let matrix = |name: &str| random(name, &[side, side], 1.0, precision.dtype(), device);
    let (a, b) = (matrix("a")?, matrix("b")?);
    device::allow_tf32(precision == Precision::Tf32);
    let seconds = best(device, || a.matmul(&b));
    device::allow_tf32(false);
    Ok(2.0 * (side as f64).powi(3) / seconds?)
}

/// Bytes a second, read and written, of a copy on a device; `bytes` in both halves together.
fn device_copy(bytes: usize, device: &Device) -> Result<f64> {
    let x = random("x", &[bytes / 8], 1.0, DType::F32, device)?;
    Ok(bytes as f64 / best(device, || x.copy())?)
}

/// Seconds of one of several runs on a GPU, the best of five turns after one that warms up.
fn best(device: &Device, run: impl Fn() -> candle_core::Result<Tensor>) -> Result<f64> {
    const RUNS: usize = 4;
    let mut least = f64::INFINITY;
    for turn in 0..=5 {
        device.synchronize()?;
        let start = Instant::now();
        for _ in 0..RUNS {
            run()?;
        }
        device.synchronize()?;
        let seconds = start.elapsed().as_secs_f64() / RUNS as f64;
        least = if turn > 0 { least.min(seconds) } else { least };
    }
    Ok(least)
}

/// The best of many runs, each shorter than a turn of the system's scheduler: a peak is not what the machine does while
/// another program has its cores.
fn rate(body: impl Fn(usize) -> Option<u64>) -> Option<f64> {
    body(1000)?;
    let mut best = 0f64;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(1));
        let start = Instant::now();
        let operations = body(60_000)?;
        best = best.max(operations as f64 / start.elapsed().as_secs_f64());
    }
    Some(best)
}

/// Bytes a second, read and written, of a copy by all threads; `bytes` in both halves together.
fn copy(bytes: usize, runs: usize) -> f64 {
    let n = bytes / 8;
    let from = vec![1f32; n];
    let mut to = vec![0f32; n];
    let part = n.div_ceil(rayon::current_num_threads());
    let mut best = 0f64;
    for run in 0..=runs {
        let start = Instant::now();
        to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
        let seconds = start.elapsed().as_secs_f64();
        // The first one warms up.
        best = best.max(if run > 0 { bytes as f64 / seconds } else { 0.0 });
        std::hint::black_box(&mut to);
    }
    best
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn cache() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").ok()?;
    let kilobytes: u64 = text.trim().strip_suffix('K')?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "a machine".into(),
            isa: "portable",
            f32_flops: Some(1e9),
            tf32_flops: None,
            bf16_flops: None,
            memory_bandwidth: 1e8,
            cache_bandwidth: 1e9,
            cache_bytes: Some(4_000_000),
            load: Some(0.1),
        }
    }

    #[test]
    fn the_floor_is_the_slower_of_arithmetic_and_memory() {
        let floor = |flops, bytes| machine().floor(Work { flops, bytes }, Precision::Bf16).unwrap();
        assert_eq!(floor(2e9, 1e6), 2.0);
        assert_eq!(floor(1e6, 1e8), 1.0);
        // Half of the cache is the largest working set that counts as cached.
        assert_eq!(floor(0.0, 1e6), 1e-3);
        assert_eq!(floor(0.0, 3e6), 3e-2);
        let fast = Machine { bf16_flops: Some(2e9), ..machine() };
        let work = Work { flops: 2e9, bytes: 0.0 };
        let floors = [Precision::Bf16, Precision::F32, Precision::Tf32].map(|precision| fast.floor(work, precision));
        assert_eq!(floors, [Some(1.0), Some(2.0), Some(2.0)]);
        assert_eq!(Machine { f32_flops: None, ..machine() }.floor(Work::default(), Precision::F32), None);
    }

    #[test]
    fn a_busy_machine_is_told() {
        assert_eq!(machine().warning(), None);
        let busy = Machine { load: Some(2.0), ..machine() };
        assert!(busy.warning().unwrap().contains("load 2.0"));
    }
}
