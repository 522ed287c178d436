//! `doctor`: what this machine and this build can do, and why not more.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use diptych::hub::Policy;
use diptych::kernels::{conv2d, device, isa, nt_xent};
use diptych::trainer::machine;

use super::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The GPU to look at.
    #[arg(long, value_name = "I", default_value_t = 0)]
    gpu: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let tell = |what: &str, text: &str| say(format!("{what:<14} {text}"));
    for (what, text) in machine::describe() {
        tell(&what, &text);
    }
    if let Some(free) = machine::available_memory() {
        tell("free memory", &machine::bytes(free));
    }
    tell("kernels", &format!("{} on the CPU", isa()));
    match device::cuda(args.gpu) {
        Err(error) => tell("CUDA", &format!("off: {}", one_line(&error.to_string()))),
        Ok(gpu) => {
            tell("CUDA", "on");
            for (what, text) in device::describe(&gpu)? {
                tell(what, &text);
            }
            let gap = disagreement(&gpu).context("the GPU was found, but a small computation failed on it")?;
            let verdict = if gap < 1e-4 { "agree" } else { "DO NOT AGREE: results on this GPU can't be trusted" };
            tell("check", &format!("a convolution and a loss on GPU and CPU {verdict} (largest difference {gap:.1e})"));
        }
    }
    match Policy::from_env() {
        Policy::Offline => tell("hub", "off: HF_HUB_OFFLINE is set, only the cache is read"),
        Policy::Online => tell("hub", &std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "the public one".into())),
    }
    Ok(())
}

/// The first line, without the trace that `RUST_BACKTRACE` adds.
fn one_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The largest difference between a GPU and the CPU in a small convolution and a small loss with its gradient, as a share of the largest value.
fn disagreement(gpu: &Device) -> Result<f64> {
    let compute = |device: &Device| -> candle_core::Result<Vec<f32>> {
        let wave = |len: usize, shape: &[usize]| {
            let values: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
            Tensor::from_vec(values, shape, device)
        };
        let (x, w) = (wave(2 * 9 * 9 * 8, &[2, 9, 9, 8])?, wave(16 * 3 * 3 * 8, &[16, 3, 3, 8])?);
        let y = conv2d(&x, &w, 1, 1)?;
        let z = candle_core::Var::from_tensor(&wave(12 * 16, &[12, 16])?)?;
        let loss = nt_xent(&z.narrow(0, 0, 6)?, &z.narrow(0, 6, 6)?, 0.5)?;
        let gradients = loss.backward()?;
        let gradient = gradients.get(&z).map_or_else(|| z.zeros_like(), |gradient| Ok(gradient.clone()))?;
        Tensor::cat(&[y.flatten_all()?, loss.reshape(1)?, gradient.flatten_all()?], 0)?.to_vec1()
    };
    let (here, there) = (compute(&Device::Cpu)?, compute(gpu)?);
    let scale = here.iter().fold(1f32, |most, v| most.max(v.abs()));
    // A NaN is a difference.
    let gap = here.iter().zip(&there).map(|(a, b)| f64::from((a - b).abs() / scale));
    Ok(gap.fold(0.0, |most, gap| if gap <= most { most } else { gap }))
}
