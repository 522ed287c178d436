//! From files to batches of views: whole pipelines, each with its own decoder.
//!
//! One core is one thread of the loader, or one process of the peer's; all cores are as many threads, or as many processes that write into shared
//! memory. What is timed begins with nothing read and ends with the last batch.

mod epoch;
mod files;
mod packed;

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Device;
use diptych_augment::Recipe;
use epoch::Epoch;
use serde_json::{Value, json};

use crate::bars::{Bar, Measure};
use crate::case::{Case, Memory, Named, Runner, Scale, Tolerance, Unit, Work};
use crate::setting::{Setting, cores_name};
use crate::suites::augment::{LIBRARIES, recipe, told, tolerance};
use crate::suites::pictures::PHOTOGRAPH;

/// Views that are compared.
const COMPARED: usize = 256;
/// Photographs of an epoch, and in a batch.
const PHOTOGRAPHS: usize = 64;
const BATCH: usize = 32;

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    /// A folder of JPEG files.
    Photographs,
    /// Arrays of 32 pixels.
    Cifar,
}

/// Every library's pipeline on the same files.
struct Pipeline {
    source: Source,
    recipe: &'static str,
    size: usize,
    images: usize,
    batch: usize,
    cores: usize,
    setting: Setting,
}

pub(super) fn cases(setting: &Setting) -> Vec<Box<dyn Case>> {
    let tiny = setting.scale == Scale::Tiny;
    let (photographs, small) = if tiny { (4, 8) } else { (PHOTOGRAPHS, 4096) };
    let pipeline = |source, recipe, cores| {
        let (size, images, batch) = match source {
            Source::Photographs => (224, photographs, photographs.min(BATCH)),
            Source::Cifar => (32, small, small.min(256)),
        };
        Pipeline { source, recipe, size, images, batch, cores, setting: setting.clone() }
    };
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for cores in setting.cores() {
        cases.push(Box::new(pipeline(Source::Photographs, "simclr", cores)));
        cases.push(Box::new(pipeline(Source::Cifar, "byol", cores)));
    }
    cases.extend(packed::cases(setting));
    cases
}

impl Pipeline {
    fn recipe(&self) -> Recipe {
        recipe(self.recipe, self.size)
    }

    /// Epochs whose views are compared.
    fn repeats(&self) -> usize {
        COMPARED.div_ceil(self.images * self.recipe().views.len())
    }

    fn path(&self) -> Result<PathBuf> {
        match self.source {
            Source::Photographs => files::photographs(&self.setting.scratch, self.images, self.images, PHOTOGRAPH),
            Source::Cifar => files::cifar(&self.setting.scratch, self.images),
        }
    }

    fn epoch(&self, workers: usize) -> Result<Box<dyn Runner>> {
        let dataset = files::training(&self.path()?)?;
        let (recipe, repeats) = (self.recipe(), self.repeats());
        Ok(Box::new(Epoch { dataset, recipe, batch: self.batch, workers, repeats, done: 0 }))
    }
}

impl Case for Pipeline {
    fn name(&self) -> String {
        let source = if self.source == Source::Cifar { "cifar" } else { "jpeg" };
        format!("loader_{source}_{}_{}px_{}", self.recipe, self.size, cores_name(self.cores))
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn unit(&self) -> Unit {
        Unit::ImagesPerSecond(self.images)
    }

    fn tolerance(&self) -> Tolerance {
        tolerance(self.images * self.recipe().views.len() * self.repeats())
    }

    fn memory(&self) -> Memory {
        Memory::Ours
    }

    fn spec(&self) -> Value {
        let views: Vec<Value> = self.recipe().views().iter().map(told).collect();
        let (source, file) =
            if self.source == Source::Cifar { ("cifar", files::CIFAR_FILE) } else { ("files", files::TRAIN) };
        // Made when the case was built.
        let path = self.path().map(|path| path.join(file)).unwrap_or_default();
        json!({
            "kind": "pipeline", "source": source, "path": path, "views": views, "cores": self.cores,
            "repeats": self.repeats(),
        })
    }

    fn variants(&self) -> Vec<&'static str> {
        let mut variants = LIBRARIES.to_vec();
        if self.source == Source::Photographs {
            variants.insert(2, "v2_pil_decode");
        }
        variants
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |what: &str, measure, least| Bar::new(what, measure, least);
        match (self.source, self.cores) {
            (_, cores) if cores > 1 => vec![bar("all cores over one core", Measure::Variant(ONE_CORE), 1.8)],
            (Source::Photographs, _) => vec![
                bar(
                    "decode and 2 SimCLR views of 224 px, per core, against torchvision on PIL",
                    Measure::Variant("pil"),
                    4.0,
                ),
                bar("the same against the fastest of the others", Measure::Except("pil"), 2.0),
            ],
            (Source::Cifar, _) => vec![bar(
                "2 BYOL views of 32 px from CIFAR's arrays, per core, against torchvision on PIL",
                Measure::Variant("pil"),
                8.0,
            )],
        }
    }

    /// Views written in f32: what is read is little beside it.
    fn work(&self) -> Work {
        let views = (self.images * self.recipe().views.len()) as f64;
        Work { flops: 0.0, bytes: views * 12.0 * (self.size * self.size) as f64 }
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Runner>> {
        self.epoch(self.cores)
    }

    fn rivals(&self, _: &Device) -> Result<Vec<Named>> {
        Ok(if self.cores > 1 { vec![(ONE_CORE, self.epoch(1)?)] } else { Vec::new() })
    }
}

/// The rival of a case with several cores.
const ONE_CORE: &str = "ours_on_one_core";
