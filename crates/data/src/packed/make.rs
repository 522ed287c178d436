//! Packing a data set: threads decode, shrink and encode its images, one writes them in order.

use std::path::Path;
use std::sync::Arc;

use super::PackFormat;
use super::about::{About, Role, Set};
use super::encode::{check_format, encode, fitted, shrink};
use super::file::{Record, Writer};
use super::layout::Encoding;
use crate::decode::upright_jpeg;
use crate::failures::Failures;
use crate::loader::check_len;
use crate::pipeline::{Job, Pipeline, Plan};
use crate::{DataError, Dataset, MAX_ERROR_SHARE, OpenOptions, Skipped, open};

/// Images that a thread hands over at once.
const TOGETHER: u64 = 8;

/// How to pack.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// How to open the source: test images given apart, and the channels. Numbers of images are not looked at, all are packed.
    pub open: OpenOptions,
    /// Images whose shorter side is longer are made smaller until it is this long; 0 leaves every size as it is. None is enlarged.
    pub short_side: usize,
    /// How the images are held.
    pub format: PackFormat,
    /// The quality of JPEG, 1 to 100.
    pub quality: u8,
    /// Threads that decode and encode; at least 1. Their number changes the speed, not the file.
    pub threads: usize,
    /// The share of unreadable images in [0, 1] above which packing ends with an error.
    pub max_error_share: f64,
    /// Replace a file that is there.
    pub force: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            open: OpenOptions::default(),
            short_side: 256,
            format: PackFormat::default(),
            quality: 95,
            threads: 1,
            max_error_share: MAX_ERROR_SHARE,
            force: false,
        }
    }
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// Images in the file.
    pub images: u64,
    /// Of these, images that were made smaller.
    pub shrunk: u64,
    /// Of these, JPEG files that were taken as they are.
    pub copied: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the images' pixels.
    pub pixel_bytes: u64,
    /// Images that could not be read, in the order of the source: they are not in the file.
    pub skipped: Vec<Skipped>,
}

/// Packs all images of `spec`, which is anything that [`open`](crate::open()) opens, into the file `out`.
///
/// The file holds the splits as the source has them; where it has no test images, they are held out when the file is opened, by the same
/// hashes. So what opening it gives is what opening the source gives, with smaller images. Images are shrunk with bilinear interpolation and
/// antialiasing, in the arithmetic of Pillow and torchvision ([`resize`](diptych_augment::ops::resize)). A JPEG file that needs no shrinking
/// and no turning is packed as it is where JPEG is the format. The bytes of the file depend on the source and the options alone.
///
/// `progress` is called now and then with the images done, and all. An unreadable image is left out, and named in the summary. The file is
/// written beside its place, with `.partial` after its name, and renamed when it is whole.
///
/// # Errors
/// If the source cannot be opened, `out` is there already (see [`PackOptions::force`]) or cannot be written, too many images are unreadable, the
/// format cannot hold them, or an option makes no sense.
pub fn pack(
    spec: impl AsRef<Path>,
    out: impl AsRef<Path>,
    options: &PackOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PackSummary, DataError> {
    let (spec, out) = (spec.as_ref(), out.as_ref());
    check(out, options)?;
    let splits = open::gather(spec, &options.open)?;
    // What opening the file would say is said before hours of work.
    open::settle(splits.clone(), &options.open)?;
    let sets: Vec<(Role, Arc<dyn Dataset>)> =
        [(Role::Train, Some(splits.train)), (Role::LabeledTrain, splits.labeled_train), (Role::Test, splits.test)]
            .into_iter()
            .filter_map(|(role, set)| Some((role, set?)))
            .collect();
    for (_, set) in &sets {
        check_format(options.format, set.format()).map_err(DataError::Invalid)?;
    }
    let total: usize = sets.iter().map(|(_, set)| set.len()).sum();
    check_len(total)?;

    let mut writer = Writer::begin(out)?;
    let mut counts = vec![0; sets.len()];
    let job = Arc::new(Packing {
        sets: sets.iter().map(|(_, set)| set.clone()).collect(),
        total: total as u64,
        failures: Failures::new(options.max_error_share, total),
        options: options.clone(),
    });
    let mut summary = PackSummary { images: 0, shrunk: 0, copied: 0, bytes: 0, pixel_bytes: 0, skipped: Vec::new() };
    let pipeline = Pipeline::start(job.clone(), options.threads, options.threads + 2)?;
    let mut done = 0;
    while let Some(made) = pipeline.next() {
        let made = made.map_err(|error| too_many(error, options))?;
        done += made.len() as u64;
        for Made { set, record, shrunk, copied } in made.into_iter().flatten() {
            writer.add(&record)?;
            counts[set] += 1;
            summary.shrunk += u64::from(shrunk);
            summary.copied += u64::from(copied);
            let per_pixel = record.format.channels * record.format.depth.size();
            summary.pixel_bytes += (record.width * record.height * per_pixel) as u64;
        }
        progress(done, total as u64);
    }
    if counts.iter().zip(&sets).any(|(count, (role, _))| *count == 0 && *role == Role::Train) {
        return Err(DataError::Invalid(format!(
            "no training image of {} can be read: nothing was packed",
            spec.display()
        )));
    }
    let sets = sets.iter().zip(&counts).filter(|(_, count)| **count > 0);
    let sets = sets.map(|((role, set), count)| Set {
        role: *role,
        images: *count,
        format: set.format(),
        classes: set.classes().to_vec(),
    });
    summary.images = counts.iter().sum();
    summary.skipped = job.failures.take();
    summary.skipped.sort_by_key(|skipped| skipped.index);
    let about = About {
        short_side: options.short_side as u32,
        format: options.format,
        quality: options.quality,
        left_out: summary.skipped.len() as u64,
        notes: splits.notes,
        sets: sets.collect(),
    };
    summary.bytes = writer.finish(&about)?;
    Ok(summary)
}

fn check(out: &Path, options: &PackOptions) -> Result<(), DataError> {
    let refuse = |problem: String| Err(DataError::Invalid(problem));
    if out.is_dir() || out.file_name().is_none() {
        return refuse(format!("{} is a folder: give the name of the file to make", out.display()));
    }
    if out.exists() && !options.force {
        return refuse(format!("{} is there already: give another name, or --force to replace it", out.display()));
    }
    if !(1..=100).contains(&options.quality) {
        return refuse(format!("--quality is {}, expected 1 to 100", options.quality));
    }
    if options.short_side > u16::MAX as usize {
        return refuse(format!("--short-side is {}, expected at most {}", options.short_side, u16::MAX));
    }
    if options.threads == 0 {
        return refuse("--threads must be at least 1".into());
    }
    if !(0.0..=1.0).contains(&options.max_error_share) {
        return refuse(format!("--max-error-share is {}, expected a share from 0 to 1", options.max_error_share));
    }
    Ok(())
}

/// An error about too many unreadable images, in the words of this command.
fn too_many(error: DataError, options: &PackOptions) -> DataError {
    let DataError::TooManyErrors { failed, total, last, .. } = error else { return error };
    DataError::Invalid(format!(
        "{failed} of {total} images could not be read, more than the {:.1} % that --max-error-share allows; the last: {last}: mend or \
         remove the files, or raise --max-error-share",
        options.max_error_share * 100.0
    ))
}

/// The threads' job.
struct Packing {
    sets: Vec<Arc<dyn Dataset>>,
    total: u64,
    failures: Failures,
    options: PackOptions,
}

/// One image, ready to be written.
struct Made {
    set: usize,
    record: Record,
    shrunk: bool,
    copied: bool,
}

impl Packing {
    fn make(&self, index: usize) -> Result<Made, DataError> {
        let (mut set, mut i) = (0, index);
        while i >= self.sets[set].len() {
            i -= self.sets[set].len();
            set += 1;
        }
        let data = &self.sets[set];
        let name = data.name(i);
        let fail = |reason| DataError::Decode { name: name.clone(), reason };
        let picture = data.shared(i)?;
        if picture.format() != data.format() {
            return Err(fail(format!("it has {}, the others have {}", picture.format(), data.format())));
        }
        let Self { options: PackOptions { short_side, format, quality, .. }, .. } = self;
        let fits = fitted(picture.width(), picture.height(), *short_side).is_none();
        let as_it_is =
            if fits && *format == PackFormat::Jpeg { data.encoded(i)?.filter(|file| upright_jpeg(file)) } else { None };
        let copied = as_it_is.is_some();
        let smaller = shrink(&picture, *short_side);
        let shrunk = smaller.is_some();
        let shown = smaller.as_ref().unwrap_or(&picture);
        let (encoding, bytes) = match as_it_is {
            Some(file) => (Encoding::Jpeg, file),
            None => encode(shown, *format, *quality).map_err(fail)?,
        };
        let (width, height) = (shown.width(), shown.height());
        let (key, label, format) = (data.key(i), data.label(i), data.format());
        Ok(Made { set, record: Record { name, key, label, width, height, format, encoding, bytes }, shrunk, copied })
    }
}

impl Job for Packing {
    /// `None` if the image cannot be read.
    type Item = Option<Made>;
    type Out = Vec<Option<Made>>;

    fn plan(&self, step: u64) -> Option<Plan> {
        let start = step.checked_mul(TOGETHER).filter(|start| *start < self.total)?;
        let end = self.total.min(start + TOGETHER);
        Some(Plan { epoch: 0, indices: (start as u32..end as u32).collect() })
    }

    fn sample(&self, _epoch: u64, index: u32) -> Result<Self::Item, DataError> {
        match self.make(index as usize) {
            Ok(made) => Ok(Some(made)),
            Err(error) => self.failures.record(index, error).map(|()| None),
        }
    }

    fn assemble(&self, items: Vec<Self::Item>) -> Result<Self::Out, DataError> {
        Ok(items)
    }
}
