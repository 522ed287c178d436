//! Mean, deviation and range of every channel of a data set.

use std::sync::Arc;

use diptych_augment::{Image, PerChannel, Picture, PixelFormat, Samples};

use crate::failures::Failures;
use crate::loader::check_len;
use crate::pipeline::{Job, Pipeline, Plan};
use crate::{DataError, Dataset, Skipped};

/// Images per unit of work.
const BATCH: usize = 32;

/// What is known of one channel, in the numbers that a network sees before normalization: integers by their full scale, f32 as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// The mean over all pixels of all images.
    pub mean: f64,
    /// The standard deviation around it, over all pixels of all images.
    pub std: f64,
    /// The least number.
    pub min: f64,
    /// The greatest number.
    pub max: f64,
}

/// What [`statistics`] finds.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Images that were read.
    pub images: usize,
    /// Channels and depth of each.
    pub format: PixelFormat,
    /// One entry per channel.
    pub channels: Vec<Channel>,
    /// Least and greatest width of an image, in pixels.
    pub widths: [usize; 2],
    /// Least and greatest height.
    pub heights: [usize; 2],
    /// Numbers that are infinite or not a number; they are left out.
    pub not_finite: u64,
    /// Images that could not be decoded; they are left out.
    pub skipped: Vec<Skipped>,
}

impl Statistics {
    /// As `augment.mean` and `augment.std`. A channel that is the same everywhere gets the deviation 1: it stays at zero.
    pub fn normalization(&self) -> (PerChannel, PerChannel) {
        let list = |of: fn(&Channel) -> f64| -> PerChannel {
            let numbers: Vec<f32> = self.channels.iter().map(|channel| of(channel) as f32).collect();
            PerChannel::new(&numbers).unwrap_or(PerChannel::MEASURED)
        };
        (list(|channel| channel.mean), list(|channel| if channel.std > 1e-12 { channel.std } else { 1.0 }))
    }
}

/// Reads all images of `dataset` once, with `workers` threads. The result does not depend on their number.
///
/// # Errors
/// If more than `max_error_share` of the images cannot be decoded, or there is nothing to measure.
pub fn statistics(dataset: Arc<dyn Dataset>, workers: usize, max_error_share: f64) -> Result<Statistics, DataError> {
    check_len(dataset.len())?;
    let format = dataset.format();
    let failures = Failures::new(max_error_share, dataset.len());
    let job = Arc::new(Measuring { dataset, failures });
    let pipeline = Pipeline::start(job.clone(), workers, 2 * workers.max(1))?;
    let mut all = Sums::new(format.channels);
    while let Some(part) = pipeline.next() {
        all.add(&part?);
    }
    if all.images == 0 || all.moments.iter().any(|moments| moments.count == 0.0) {
        return Err(DataError::Invalid(
            "there is no number to measure mean and deviation of: no image could be read".into(),
        ));
    }
    let channel = |m: &Moments| Channel { mean: m.mean, std: (m.squares / m.count).sqrt(), min: m.min, max: m.max };
    Ok(Statistics {
        images: all.images,
        format,
        channels: all.moments.iter().map(channel).collect(),
        widths: all.widths,
        heights: all.heights,
        not_finite: all.not_finite,
        skipped: job.failures.take(),
    })
}

struct Measuring {
    dataset: Arc<dyn Dataset>,
    failures: Failures,
}

impl Job for Measuring {
    /// Nothing of an image that could not be decoded.
    type Item = Option<Sums>;
    type Out = Sums;

    fn plan(&self, step: u64) -> Option<Plan> {
        let start = usize::try_from(step).ok()?.checked_mul(BATCH).filter(|start| *start < self.dataset.len())?;
        let end = self.dataset.len().min(start + BATCH);
        Some(Plan { epoch: 0, indices: (start as u32..end as u32).collect() })
    }

    fn sample(&self, _epoch: u64, index: u32) -> Result<Self::Item, DataError> {
        match self.dataset.shared(index as usize) {
            Ok(picture) => Ok(Some(Sums::of(&picture))),
            Err(error) => self.failures.record(index, error).map(|()| None),
        }
    }

    fn assemble(&self, items: Vec<Self::Item>) -> Result<Sums, DataError> {
        let mut all = Sums::new(self.dataset.format().channels);
        items.iter().flatten().for_each(|one| all.add(one));
        Ok(all)
    }
}

/// The moments of one channel (Chan, Golub and LeVeque 1983: parts are joined without the cancellation that sums of squares suffer).
#[derive(Clone, Copy, Debug)]
struct Moments {
    count: f64,
    mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
    min: f64,
    max: f64,
}

impl Moments {
    const NONE: Self = Self { count: 0.0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (mut count, mut sum, mut min, mut max) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        for value in values.clone() {
            count += 1.0;
            sum += value;
            min = value.min(min);
            max = value.max(max);
        }
        let mean = if count > 0.0 { sum / count } else { 0.0 };
        let squares = values.map(|value| (value - mean).powi(2)).sum();
        Self { count, mean, squares, min, max }
    }

    /// Of bytes by how often each occurs.
    fn of_counts(counts: &[u64; 256]) -> Self {
        let weighed = |of: &dyn Fn(f64) -> f64| -> f64 {
            counts.iter().enumerate().map(|(v, n)| *n as f64 * of(v as f64 / 255.0)).sum()
        };
        let count = weighed(&|_| 1.0);
        let mean = weighed(&|x| x) / count.max(1.0);
        let squares = weighed(&|x| (x - mean).powi(2));
        let end = |place: Option<usize>| place.map_or(f64::NAN, |v| v as f64 / 255.0);
        let (min, max) = (counts.iter().position(|n| *n > 0), counts.iter().rposition(|n| *n > 0));
        Self { count, mean, squares, min: end(min), max: end(max) }
    }

    fn add(&mut self, other: &Self) {
        let count = self.count + other.count;
        if other.count == 0.0 {
            return;
        }
        let apart = other.mean - self.mean;
        self.squares += other.squares + apart * apart * self.count * other.count / count;
        self.mean += apart * other.count / count;
        self.count = count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// What is known of some images.
#[derive(Clone, Debug)]
struct Sums {
    images: usize,
    moments: Vec<Moments>,
    widths: [usize; 2],
    heights: [usize; 2],
    not_finite: u64,
}

impl Sums {
    fn new(channels: usize) -> Self {
        let none = [usize::MAX, 0];
        Self { images: 0, moments: vec![Moments::NONE; channels], widths: none, heights: none, not_finite: 0 }
    }

    fn of(picture: &Picture) -> Self {
        let (width, height, channels) = (picture.width(), picture.height(), picture.format().channels);
        let mut not_finite = 0;
        let moments = match picture {
            Picture::Rgb(image) => of_bytes(image),
            Picture::Raster(raster) => {
                let mut channel = |c: usize| {
                    let places = (c..width * height * channels).step_by(channels);
                    match raster.samples() {
                        Samples::U8(values) => Moments::of(places.map(|i| f64::from(values[i]) / 255.0)),
                        Samples::U16(values) => Moments::of(places.map(|i| f64::from(values[i]) / 65535.0)),
                        Samples::F32(values) => {
                            let finite = places.clone().map(|i| f64::from(values[i])).filter(|value| value.is_finite());
                            let moments = Moments::of(finite);
                            not_finite += places.count() as u64 - moments.count as u64;
                            moments
                        }
                    }
                };
                (0..channels).map(&mut channel).collect()
            }
        };
        Self { images: 1, moments, widths: [width; 2], heights: [height; 2], not_finite }
    }

    fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.not_finite += other.not_finite;
        self.moments.iter_mut().zip(&other.moments).for_each(|(a, b)| a.add(b));
        for (a, b) in [(&mut self.widths, other.widths), (&mut self.heights, other.heights)] {
            *a = [a[0].min(b[0]), a[1].max(b[1])];
        }
    }
}

/// The moments of red, green and blue.
fn of_bytes(image: &Image) -> Vec<Moments> {
    let mut counts = [[0u64; 256]; 3];
    for pixel in image.pixels.as_chunks::<3>().0 {
        for (counts, value) in counts.iter_mut().zip(pixel) {
            counts[usize::from(*value)] += 1;
        }
    }
    counts.iter().map(Moments::of_counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_augment::Raster;

    /// Pictures of any kind, one per entry; `None` cannot be decoded.
    struct Given(Vec<Option<Picture>>, PixelFormat);

    impl Dataset for Given {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, i: usize) -> Result<Picture, DataError> {
            self.0[i].clone().ok_or(DataError::Decode { name: format!("{i}"), reason: "torn".into() })
        }
        fn label(&self, _: usize) -> Option<u32> {
            None
        }
        fn classes(&self) -> &[String] {
            &[]
        }
        fn name(&self, i: usize) -> String {
            format!("{i}")
        }
        fn fingerprint(&self) -> u64 {
            0
        }
        fn format(&self) -> PixelFormat {
            self.1
        }
    }

    fn measured(pictures: Vec<Option<Picture>>, workers: usize) -> Result<Statistics, DataError> {
        let format = pictures.iter().flatten().next().map_or(PixelFormat::RGB, Picture::format);
        statistics(Arc::new(Given(pictures, format)), workers, 0.5)
    }

    /// By two plain passes over all numbers.
    fn plain(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    }

    #[test]
    fn pixels_of_all_images_count_alike_whatever_the_number_of_threads() {
        let image = |i: usize| {
            let (width, height) = (3 + i % 5, 2 + i % 3);
            Image::new(width, height, (0..width * height * 3).map(|p| (p * 31 + i * 7) as u8).collect()).unwrap()
        };
        let images: Vec<Image> = (0..100).map(image).collect();
        let found = measured(images.iter().map(|image| Some(image.clone().into())).collect(), 1).unwrap();
        assert_eq!((found.images, found.widths, found.heights), (100, [3, 7], [2, 4]));
        for c in 0..3 {
            let all: Vec<f64> = images
                .iter()
                .flat_map(|image| image.pixels.iter().skip(c).step_by(3))
                .map(|v| f64::from(*v) / 255.0)
                .collect();
            let (mean, std) = plain(&all);
            assert!((found.channels[c].mean - mean).abs() < 1e-12 && (found.channels[c].std - std).abs() < 1e-12);
        }
        let again = measured(images.into_iter().map(|image| Some(image.into())).collect(), 3).unwrap();
        assert_eq!(found.channels, again.channels);
    }

    #[test]
    fn far_from_zero_nothing_is_lost_and_what_is_not_finite_is_left_out() {
        let values: Vec<f32> = (0..40).map(|i| 1e6 + (i % 7) as f32).chain([f32::NAN, f32::INFINITY]).collect();
        let raster = Raster::new(21, 2, 1, Samples::F32(values.clone())).unwrap();
        let found = measured(vec![Some(raster.into()), None], 2).unwrap();
        let (mean, std) = plain(&values[..40].iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
        let channel = found.channels[0];
        assert!((channel.mean - mean).abs() < 1e-6 && (channel.std - std).abs() < 1e-9);
        assert_eq!((channel.min, channel.max, found.not_finite, found.images), (1e6, 1e6 + 6.0, 2, 1));
        assert_eq!(found.skipped.len(), 1);
        assert_eq!(found.normalization().0.len(), 1);
    }

    #[test]
    fn an_even_channel_gets_a_deviation_that_can_be_divided_by() {
        let raster = Raster::new(2, 2, 2, Samples::U16(vec![9, 0, 9, 1, 9, 2, 9, 3])).unwrap();
        let (_, std) = measured(vec![Some(raster.into())], 1).unwrap().normalization();
        assert_eq!(std[0], 1.0);
        assert!(std[1] > 0.0 && std[1] < 1e-3);
        assert!(measured(vec![None], 1).is_err());
    }
}
