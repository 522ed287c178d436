//! A decoded picture of either kind: 8-bit RGB, for which all operations are, or any other.

use crate::Stream;
use crate::draw::ViewParams;
use crate::image::Image;
use crate::ops;
use crate::raster::{PixelFormat, Raster, Samples, apply_raster, center_raster, resized_raster};
use crate::recipe::{Interpolation, ViewRecipe};

/// A picture as a data set gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// 8-bit red, green and blue.
    Rgb(Image),
    /// 1 to 16 channels of 8 bits, 16 bits or f32.
    Raster(Raster),
}

impl From<Image> for Picture {
    fn from(image: Image) -> Self {
        Self::Rgb(image)
    }
}

/// Three channels of 8 bits are taken as red, green and blue.
impl From<Raster> for Picture {
    fn from(raster: Raster) -> Self {
        if raster.format() != PixelFormat::RGB {
            return Self::Raster(raster);
        }
        let (width, height) = (raster.width(), raster.height());
        match raster.into_samples() {
            Samples::U8(pixels) => Self::Rgb(Image { width, height, pixels }),
            // The format was just said to be of 8 bits.
            Samples::U16(_) | Samples::F32(_) => Self::Rgb(Image::filled(width, height, [0; 3])),
        }
    }
}

impl Picture {
    /// Columns.
    pub fn width(&self) -> usize {
        match self {
            Self::Rgb(image) => image.width,
            Self::Raster(raster) => raster.width(),
        }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        match self {
            Self::Rgb(image) => image.height,
            Self::Raster(raster) => raster.height(),
        }
    }

    /// Channels and depth.
    pub fn format(&self) -> PixelFormat {
        match self {
            Self::Rgb(_) => PixelFormat::RGB,
            Self::Raster(raster) => raster.format(),
        }
    }

    /// Bytes of its numbers in memory.
    pub fn bytes(&self) -> usize {
        let PixelFormat { channels, depth } = self.format();
        self.width() * self.height() * channels * depth.size()
    }

    /// The 8-bit RGB picture, if it is one.
    pub fn as_rgb(&self) -> Option<&Image> {
        match self {
            Self::Rgb(image) => Some(image),
            Self::Raster(_) => None,
        }
    }

    /// The view that the drawn parameters say; see [`crate::apply`] and [`apply_raster`].
    pub fn view(&self, params: &ViewParams) -> Self {
        match self {
            Self::Rgb(image) => Self::Rgb(crate::apply(image, params)),
            Self::Raster(raster) => Self::Raster(apply_raster(raster, params)),
        }
    }

    /// One random view; see [`crate::view`].
    pub fn random_view(&self, recipe: &ViewRecipe, stream: &mut Stream) -> Self {
        self.view(&ViewParams::draw(recipe, self.width(), self.height(), stream))
    }

    /// The middle for evaluation, `size` x `size`; see [`crate::center_view`].
    pub fn center_view(&self, size: usize) -> Self {
        match self {
            Self::Rgb(image) => Self::Rgb(ops::center_view(image, size)),
            Self::Raster(raster) => Self::Raster(center_raster(raster, size)),
        }
    }

    /// The whole picture resampled to `width` x `height` with antialiasing (a side of zero is taken as 1), in the format that it has; see
    /// [`crate::ops::resize`]. Other pictures than 8-bit RGB are resampled in f32, and integers rounded once.
    pub fn resized(&self, width: usize, height: usize, interpolation: Interpolation) -> Self {
        match self {
            Self::Rgb(image) => Self::Rgb(ops::resize(image, width, height, interpolation)),
            Self::Raster(raster) => Self::Raster(resized_raster(raster, width, height, interpolation)),
        }
    }

    /// Writes `(x - mean) / std` of every channel to `out`, `[height, width, channels]` f32, where x is the number by its full scale (f32 as it
    /// is). `mean` and `std` have one number per channel; where a slice is too short, what there is room for is written.
    pub fn normalize_into(&self, mean: &[f32], std: &[f32], out: &mut [f32]) {
        match (self, mean, std) {
            (Self::Rgb(image), &[r, g, b], &[sr, sg, sb]) => {
                ops::normalize_into(image, &[r, g, b], &[sr, sg, sb], out);
            }
            (Self::Rgb(_), ..) => {}
            (Self::Raster(raster), ..) => {
                let channels = raster.format().channels;
                let count = out.len().min(raster.samples().len());
                raster.samples().scaled_into(0, &mut out[..count]);
                for pixel in out[..count].chunks_exact_mut(channels) {
                    for ((x, mean), std) in pixel.iter_mut().zip(mean).zip(std) {
                        *x = (*x - mean) / std;
                    }
                }
            }
        }
    }

    /// Appends what [`normalize_into`](Self::normalize_into) writes, `height * width * C` numbers for the C of `mean`.
    pub fn normalize_onto(&self, mean: &[f32], std: &[f32], out: &mut Vec<f32>) {
        match (self, mean, std) {
            (Self::Rgb(image), &[r, g, b], &[sr, sg, sb]) => ops::normalize_onto(image, &[r, g, b], &[sr, sg, sb], out),
            _ => {
                let before = out.len();
                out.resize(before + self.width() * self.height() * mean.len(), 0.0);
                self.normalize_into(mean, std, &mut out[before..]);
            }
        }
    }

    /// As 8-bit RGB, for eyes: one channel as gray, two as red and green, of more the first three. Numbers of 16 bits and f32 are stretched so that
    /// the least and the greatest of each channel become black and white.
    pub fn to_rgb(&self) -> Image {
        let raster = match self {
            Self::Rgb(image) => return image.clone(),
            Self::Raster(raster) => raster,
        };
        let channels = raster.format().channels;
        let mut values = vec![0f32; raster.samples().len()];
        raster.samples().scaled_into(0, &mut values);
        let stretch = |c: usize| -> (f32, f32) {
            if let Samples::U8(_) = raster.samples() {
                return (0.0, 1.0);
            }
            let finite = || values.iter().skip(c).step_by(channels).copied().filter(|v| v.is_finite());
            let (low, high) = (finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max));
            if high > low { (low, high - low) } else { (low.min(0.0), 1.0) }
        };
        let of_color = |color: usize| if channels == 1 { Some(0) } else { Some(color).filter(|c| *c < channels) };
        let sources = [0, 1, 2].map(|color| of_color(color).map(|c| (c, stretch(c))));
        let mut out = Image::filled(raster.width(), raster.height(), [0; 3]);
        for (to, from) in out.pixels.chunks_exact_mut(3).zip(values.chunks_exact(channels)) {
            for (to, source) in to.iter_mut().zip(sources) {
                if let Some((c, (low, range))) = source {
                    *to = ((from[c] - low) / range * 255.0 + 0.5) as u8;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_channels_of_8_bits_are_rgb() {
        let picture = |channels, samples| Picture::from(Raster::new(2, 1, channels, samples).unwrap());
        let rgb = picture(3, Samples::U8(vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(rgb, Picture::Rgb(Image::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap()));
        assert!(picture(1, Samples::U8(vec![1, 2])).as_rgb().is_none());
        let wide = picture(3, Samples::U16(vec![1, 2, 3, 4, 5, 6]));
        assert!(wide.as_rgb().is_none());
        assert_eq!((rgb.bytes(), wide.bytes()), (6, 12));
    }

    #[test]
    fn every_channel_has_its_own_mean_and_deviation() {
        let raster = Raster::new(1, 2, 4, Samples::U16(vec![0, 65535, 0, 65535, 13107, 0, 0, 0])).unwrap();
        let mut out = [9.0; 8];
        Picture::from(raster).normalize_into(&[0.0, 0.5, 0.0, 1.0], &[1.0, 0.5, 2.0, 4.0], &mut out);
        assert!(out.iter().zip([0.0, 1.0, 0.0, 0.0, 0.2, -1.0, 0.0, -0.25]).all(|(a, b)| (a - b).abs() < 1e-6));
        let image = Picture::from(Image::filled(1, 1, [255, 0, 51]));
        let mut out = [9.0; 3];
        image.normalize_into(&[0.0; 3], &[1.0; 3], &mut out);
        assert!(out.iter().zip([1.0, 0.0, 0.2]).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn eyes_see_the_first_channels_stretched() {
        let gray = Raster::new(3, 1, 1, Samples::F32(vec![-5.0, 0.0, 5.0])).unwrap();
        assert_eq!(Picture::from(gray).to_rgb().pixels, [0, 0, 0, 128, 128, 128, 255, 255, 255]);
        let two = Raster::new(2, 1, 2, Samples::U16(vec![100, 7, 300, 7])).unwrap();
        assert_eq!(Picture::from(two).to_rgb().pixels, [0, 0, 0, 255, 0, 0]);
        let nothing = Raster::new(1, 1, 1, Samples::F32(vec![f32::NAN])).unwrap();
        assert_eq!(Picture::from(nothing).to_rgb().pixels, [0, 0, 0]);
    }
}
