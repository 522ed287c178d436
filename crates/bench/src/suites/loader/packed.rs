//! Ours against ours: the same photographs packed, in a shard, and in a folder; and what an epoch of a large packed file holds in memory.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Device;
use diptych_augment::Recipe;
use diptych_data::PackFormat;
use serde_json::{Value, json};

use super::epoch::Epoch;
use super::{BATCH, COMPARED, PHOTOGRAPHS, files};
use crate::bars::{Bar, Measure};
use crate::case::{Case, Memory, Named, Runner, Scale, Tolerance, Unit, Work};
use crate::setting::{Setting, cores_name};
use crate::suites::augment::tolerance;
use crate::suites::pictures::PHOTOGRAPH;

/// The rival.
const FOLDER: &str = "ours_from_folder";
/// Bytes by which an epoch's memory may grow.
const ROOM: f64 = 32.0 * 1024.0 * 1024.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Raw,
    Jpeg,
    Shard,
}

pub(super) fn cases(setting: &Setting) -> Vec<Box<dyn Case>> {
    let forms = [Form::Raw, Form::Jpeg, Form::Shard];
    let stored = |form| Box::new(Stored { form, setting: setting.clone() }) as Box<dyn Case>;
    let mut cases: Vec<_> = forms.map(stored).into();
    cases.push(Box::new(Large { setting: setting.clone() }));
    cases
}

/// Two SimCLR views of 224 px of photographs that are stored in another way than as files in a folder.
struct Stored {
    form: Form,
    setting: Setting,
}

impl Stored {
    /// How many photographs, and how many of them are in a batch.
    fn images(&self) -> (usize, usize) {
        if self.setting.scale == Scale::Tiny { (4, 4) } else { (PHOTOGRAPHS, BATCH) }
    }

    fn folder(&self) -> Result<PathBuf> {
        let (images, _) = self.images();
        files::photographs(&self.setting.scratch, images, images, PHOTOGRAPH)
    }

    fn path(&self) -> Result<PathBuf> {
        let (scratch, folder) = (&self.setting.scratch, self.folder()?);
        match self.form {
            Form::Raw => files::packed(scratch, &folder, PackFormat::Raw, "photographs-raw.pack"),
            Form::Jpeg => files::packed(scratch, &folder, PackFormat::Jpeg, "photographs-jpeg.pack"),
            Form::Shard => files::shards(scratch, &folder),
        }
    }

    fn epoch(&self, path: PathBuf) -> Result<Box<dyn Runner>> {
        let (images, batch) = self.images();
        let repeats = COMPARED.div_ceil(2 * images);
        let dataset = files::training(&path)?;
        Ok(Box::new(Epoch { dataset, recipe: Recipe::simclr(224), batch, workers: 1, repeats, done: 0 }))
    }
}

impl Case for Stored {
    fn name(&self) -> String {
        let form = match self.form {
            Form::Raw => "packed_raw",
            Form::Jpeg => "packed_jpeg",
            Form::Shard => "tar",
        };
        format!("loader_{form}_simclr_224px_{}", cores_name(1))
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn unit(&self) -> Unit {
        Unit::ImagesPerSecond(self.images().0)
    }

    fn tolerance(&self) -> Tolerance {
        tolerance(COMPARED)
    }

    fn memory(&self) -> Memory {
        Memory::Ours
    }

    fn spec(&self) -> Value {
        json!({})
    }

    fn variants(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn bars(&self) -> Vec<Bar> {
        let what = match self.form {
            Form::Raw => "packed raw at short side 256 over the same JPEG files in a folder, per core",
            Form::Jpeg => "packed as JPEG at short side 256 over the same JPEG files in a folder, per core",
            Form::Shard => return Vec::new(),
        };
        vec![Bar::new(what, Measure::Variant(FOLDER), 1.5)]
    }

    fn work(&self) -> Work {
        Work { flops: 0.0, bytes: (self.images().0 * 2 * 12 * 224 * 224) as f64 }
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Runner>> {
        self.epoch(self.path()?)
    }

    fn rivals(&self, _: &Device) -> Result<Vec<Named>> {
        Ok(vec![(FOLDER, self.epoch(self.folder()?)?)])
    }
}

/// A shuffled epoch of a packed file that is larger than many machines' memory: small views, so that batches are no part of what is seen.
struct Large {
    setting: Setting,
}

impl Large {
    /// Photographs of so many bytes once they are packed at their size.
    fn images(&self) -> usize {
        let each = (files::SHORT_SIDE * (files::SHORT_SIDE * PHOTOGRAPH[0] / PHOTOGRAPH[1]) * 3) as u64;
        (self.setting.packed_bytes.div_ceil(each) as usize).next_multiple_of(BATCH)
    }
}

impl Case for Large {
    fn name(&self) -> String {
        format!("loader_packed_memory_{}mb", self.setting.packed_bytes / 1_000_000)
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn unit(&self) -> Unit {
        Unit::ImagesPerSecond(self.images())
    }

    fn memory(&self) -> Memory {
        Memory::Anonymous
    }

    fn spec(&self) -> Value {
        json!({})
    }

    fn variants(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn bars(&self) -> Vec<Bar> {
        let what = "32 MiB over what an epoch of a packed file adds to RssAnon";
        vec![Bar::new(what, Measure::Memory(ROOM), 1.0)]
    }

    /// The file, read once.
    fn work(&self) -> Work {
        Work { flops: 0.0, bytes: self.setting.packed_bytes as f64 }
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Runner>> {
        let scratch = &self.setting.scratch;
        let name = format!("large-{}.pack", self.images());
        let folder = files::photographs(scratch, self.images(), PHOTOGRAPHS, PHOTOGRAPH)?;
        let dataset = files::training(&files::packed(scratch, &folder, PackFormat::Raw, &name)?)?;
        let workers = self.setting.threads;
        Ok(Box::new(Epoch { dataset, recipe: Recipe::simclr(32), batch: BATCH, workers, repeats: 1, done: 0 }))
    }
}
