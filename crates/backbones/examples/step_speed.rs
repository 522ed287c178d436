//! Images per second of a backbone's forward and backward pass here:
//! `cargo run --release -p diptych-backbones --example step_speed [NAME SIZE BATCH STEM PRECISION]`.
//!
//! The loss is a plain sum; data, projector and optimizer are left out.

use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device};
use diptych_backbones::{BackboneConfig, ResNet, StemChoice};
use diptych_nn::{Backbone, Group, Init, ParamStore, backward};

fn main() -> Result<()> {
    if std::env::var_os("DEFAULT_MALLOC").is_none() {
        diptych_kernels::keep_freed_memory();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("resnet_tiny", String::as_str);
    let size: usize = args.get(1).map_or(Ok(32), |v| v.parse())?;
    let batch: usize = args.get(2).map_or(Ok(128), |v| v.parse())?;
    let stem = if args.get(3).is_some_and(|v| v == "strided") { StemChoice::Strided } else { StemChoice::Auto };
    let config = BackboneConfig { name: name.into(), stem, ..Default::default() };
    let mut store = ParamStore::new(1, &Device::Cpu);
    let net = ResNet::new(&mut store.scope(Group::Trunk), &config.architecture(size)?)?;
    let images = Init::Normal(1.0).draw(&[batch, size, size, 3], 2, "images", &Device::Cpu)?;
    let images = images.to_dtype(if args.get(4).is_some_and(|v| v == "bf16") { DType::BF16 } else { DType::F32 })?;
    for _ in 0..6 {
        let start = Instant::now();
        let y = net.forward_t(&images, true)?;
        let forward = start.elapsed().as_secs_f64();
        backward(&y.to_dtype(DType::F32)?.sum_all()?)?;
        let all = start.elapsed().as_secs_f64();
        println!(
            "{name} {size}x{size} x {batch}: forward {:.1} ms, backward {:.1} ms, {:.0} images/s",
            forward * 1e3,
            (all - forward) * 1e3,
            batch as f64 / all
        );
    }
    Ok(())
}
