//! What the three dictionaries of MoCo cost: memory and time of a training step over their sizes, as in MoCo's figure 3 and table 3 of its second
//! version (He et al. 2020, arXiv:1911.05722; Chen et al. 2020, arXiv:2003.04297).
//!
//! A queue and a memory bank hold K negatives beside a batch of a fixed size. End to end, the batch itself is the dictionary, so K images go
//! through the network at once. Sizes that would need more memory than there is, or very long, are estimated from the size before, and said to be.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use diptych_backbones::{BackboneConfig, StemChoice};
use diptych_kernels::CountingAllocator;
use diptych_methods::{Method, Step};
use diptych_nn::{Batch, Views, backward};
use diptych_optim::{Optimizer, Rules, Sgd};
use diptych_trainer::report::{Figure, Group, sheet};
use serde_json::{Value, json};

use crate::input::random;
use crate::measure::median;
use crate::method;

/// The dictionaries by their names in recipes.
const KINDS: [&str; 3] = ["queue", "end_to_end", "memory_bank"];
/// Steps of each measurement, after one that is not counted.
const ROUNDS: usize = 3;
/// A step that would take longer is estimated.
const LONGEST: f64 = 20.0;
/// Side of the images.
const SIDE: usize = 32;

/// What to measure.
pub(crate) struct Plan {
    /// Values of K.
    pub(crate) sizes: Vec<usize>,
    /// The network.
    pub(crate) backbone: String,
    /// Images in a step, where the batch is not the dictionary.
    pub(crate) batch: usize,
    /// Images of the data set, each with an entry in the bank.
    pub(crate) images: usize,
    /// Where the picture goes.
    pub(crate) picture: PathBuf,
}

/// One measurement.
#[derive(Clone, Debug)]
struct Row {
    kind: &'static str,
    size: usize,
    batch: usize,
    seconds: f64,
    peak: f64,
    estimated: bool,
}

impl Row {
    fn milliseconds_an_image(&self) -> f64 {
        self.seconds * 1e3 / self.batch as f64
    }

    fn line(&self) -> String {
        let estimated = if self.estimated { "  (estimated)" } else { "" };
        format!(
            "{:<12} {:>8} {:>7} {:>12.0} {:>12.2} {:>12.1}{estimated}",
            self.kind,
            self.size,
            self.batch,
            self.seconds * 1e3,
            self.milliseconds_an_image(),
            self.peak / (1 << 20) as f64
        )
    }

    fn json(&self) -> Value {
        json!({
            "dictionary": self.kind, "size": self.size, "batch": self.batch, "step_ms": self.seconds * 1e3,
            "image_ms": self.milliseconds_an_image(), "peak_bytes": self.peak, "estimated": self.estimated,
        })
    }
}

/// Measures, prints a table, draws the picture, and returns the rows as JSON.
pub(crate) fn run(plan: &Plan, device: &Device) -> Result<Value> {
    let mut sizes = plan.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.first().is_none_or(|&least| least < 2) {
        bail!("--sizes must name at least one size, each at least 2, such as 256,1024,4096")
    }
    println!("{}, {SIDE} pixels, {} images a step, f32", plan.backbone, plan.batch);
    println!(
        "{:<12} {:>8} {:>7} {:>12} {:>12} {:>12}",
        "dictionary", "K", "batch", "ms a step", "ms an image", "peak MiB"
    );
    let mut rows: Vec<Row> = Vec::new();
    for kind in KINDS {
        for &size in &sizes {
            let batch = if kind == "end_to_end" { size } else { plan.batch };
            let before = rows.last().filter(|row| row.kind == kind && row.batch < batch);
            let row = match before.and_then(|before| too_large(before, batch)) {
                Some(row) => Row { size, ..row },
                None => measure(plan, kind, size, batch, device)
                    .with_context(|| format!("dictionary {kind} of {size} keys"))?,
            };
            println!("{}", row.line());
            rows.push(row);
        }
    }
    draw(plan, &rows)?;
    println!("picture  {}", plan.picture.display());
    Ok(rows.iter().map(Row::json).collect())
}

/// What a batch of `batch` would take by the row before, if that is too much.
fn too_large(before: &Row, batch: usize) -> Option<Row> {
    let share = batch as f64 / before.batch as f64;
    let guess =
        Row { batch, seconds: before.seconds * share, peak: before.peak * share, estimated: true, ..before.clone() };
    let free = diptych_trainer::machine::available_memory().map_or(f64::MAX, |free| free as f64 * 0.8);
    (before.estimated || guess.peak > free || guess.seconds > LONGEST).then_some(guess)
}

fn measure(plan: &Plan, kind: &'static str, size: usize, batch: usize, device: &Device) -> Result<Row> {
    let base = CountingAllocator::reset_peak();
    let mut method = build(plan, kind, size, batch, device)?;
    let mut optimizer = Sgd::new(0.9, 1e-4, false, Rules::default());
    let view = |name: &str| random(name, &[batch, SIDE, SIDE, 3], 1.0, DType::F32, device);
    let views = Views(vec![view("view 1")?, view("view 2")?]);
    let batch_of = Batch { views, labels: None, index: (0..batch as u32).collect() };
    let mut seconds = Vec::new();
    for index in 0..=ROUNDS as u64 {
        let step = Step { index, total: 10, epoch: 0, steps_per_epoch: 10 };
        device.synchronize()?;
        let started = Instant::now();
        method.before_step(step)?;
        let gradients = backward(&method.forward(&batch_of)?.loss.total)?;
        optimizer.step(method.params(), &gradients, 1e-3)?;
        method.after_step(step)?;
        device.synchronize()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let peak = CountingAllocator::peak().saturating_sub(base) as f64;
    Ok(Row { kind, size, batch, seconds: median(&seconds[1..]), peak, estimated: false })
}

fn build(plan: &Plan, kind: &str, size: usize, batch: usize, device: &Device) -> Result<Box<dyn Method>> {
    let config = BackboneConfig { name: plan.backbone.clone(), stem: StemChoice::Cifar, ..BackboneConfig::default() };
    let table = toml::from_str(&format!("dictionary = \"{kind}\"\nqueue = {size}"))?;
    method::build("moco", table, &config, SIDE, plan.images.max(batch + 1), device)
}

/// Memory and time over K, a line for each dictionary.
fn draw(plan: &Plan, rows: &[Row]) -> Result<()> {
    let figure = |title: &str, y: &str, value: fn(&Row) -> f64| Figure {
        title: title.into(),
        y: y.into(),
        x: Some(("negatives in the dictionary (end to end: images in the batch)".into(), true)),
        groups: rows
            .iter()
            .enumerate()
            // One estimate shows where a line goes; more of them would leave no room for the rest.
            .filter(|(at, row)| !row.estimated || !rows[at - 1].estimated)
            .map(|(_, row)| Group {
                name: row.kind.replace('_', " "),
                x: Some(row.size as f64),
                results: vec![value(row)],
                remark: if row.estimated { "estimated".into() } else { String::new() },
            })
            .collect(),
        ..Figure::default()
    };
    let memory = figure("Memory of a training step", "GiB at the peak", |row| row.peak / (1 << 30) as f64);
    let time = figure("Time of a training step", "ms an image", Row::milliseconds_an_image);
    let text = format!(
        "<p>{} on {SIDE}-pixel images, {} a step; end to end the batch is the dictionary. Sizes above \
         what fits are estimated in proportion to the batch.</p>\n{}\n{}",
        plan.backbone,
        plan.batch,
        memory.svg(),
        time.svg()
    );
    write(&plan.picture, &sheet("What MoCo's dictionaries cost", &text))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In proportion to the batch, once that is too long; and everything above an estimate is one.
    #[test]
    fn long_steps_are_estimated() {
        let row = Row { kind: "end_to_end", size: 64, batch: 64, seconds: 9.0, peak: 1e6, estimated: false };
        assert!(too_large(&row, 128).is_none());
        let guess = too_large(&row, 256).unwrap();
        assert_eq!((guess.seconds, guess.peak, guess.estimated), (36.0, 4e6, true));
        assert!(too_large(&Row { seconds: 0.001, estimated: true, ..row }, 65).is_some());
    }
}
