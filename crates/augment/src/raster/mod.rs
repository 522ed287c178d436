//! Pictures that are not 8-bit RGB: 1 to 16 channels of 8 bits, 16 bits or f32, as microscopes, satellites and scanners give them.

mod ops;
mod view;

use std::fmt;

pub use view::apply_raster;
pub(crate) use view::{center_raster, resized_raster};

/// The most channels a picture may have.
pub const MAX_CHANNELS: usize = 16;

/// The numbers of a [`Raster`], `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// 8 bits; 255 is full scale.
    U8(Vec<u8>),
    /// 16 bits; 65,535 is full scale.
    U16(Vec<u16>),
    /// Numbers of any range, taken as they are.
    F32(Vec<f32>),
}

/// What one number of a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// 8 bits, shown to the network as `x / 255`.
    U8,
    /// 16 bits, shown to the network as `x / 65535`.
    U16,
    /// f32, shown to the network as it is.
    F32,
}

impl Depth {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::F32 => 4,
        }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "8 bits",
            Self::U16 => "16 bits",
            Self::F32 => "f32",
        })
    }
}

/// What all pictures of a data set have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelFormat {
    /// Numbers per pixel, 1 to [`MAX_CHANNELS`].
    pub channels: usize,
    /// What these numbers are.
    pub depth: Depth,
}

impl PixelFormat {
    /// 8-bit red, green and blue: the format that all color operations are for.
    pub const RGB: Self = Self { channels: 3, depth: Depth::U8 };
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, depth } = self;
        write!(f, "{channels} {} of {depth}", if *channels == 1 { "channel" } else { "channels" })
    }
}

impl Samples {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each of them is.
    pub fn depth(&self) -> Depth {
        match self {
            Self::U8(_) => Depth::U8,
            Self::U16(_) => Depth::U16,
            Self::F32(_) => Depth::F32,
        }
    }

    /// Numbers `start..end` as the network sees them: integers by their full scale, f32 as they are.
    pub(crate) fn scaled_into(&self, start: usize, out: &mut [f32]) {
        let end = start + out.len();
        match self {
            Self::U8(values) => out.iter_mut().zip(&values[start..end]).for_each(|(o, v)| *o = f32::from(*v) / 255.0),
            Self::U16(values) => {
                out.iter_mut().zip(&values[start..end]).for_each(|(o, v)| *o = f32::from(*v) / 65535.0)
            }
            Self::F32(values) => out.copy_from_slice(&values[start..end]),
        }
    }
}

/// A picture of 1 to 16 channels, `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster {
    width: usize,
    height: usize,
    channels: usize,
    samples: Samples,
}

/// Why numbers are not a picture of the given shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RasterError(String);

impl fmt::Display for RasterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RasterError {}

impl Raster {
    /// A picture from its numbers, `[height, width, channels]`.
    ///
    /// # Errors
    /// If a side is zero, there are no channels or more than [`MAX_CHANNELS`], or the number of samples is not
    /// `width * height * channels`.
    pub fn new(width: usize, height: usize, channels: usize, samples: Samples) -> Result<Self, RasterError> {
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(RasterError(format!("a picture of {channels} channels: 1 to {MAX_CHANNELS} are read")));
        }
        if width == 0 || height == 0 {
            return Err(RasterError(format!(
                "a picture of {width}x{height} has no pixels: both sides must be at least 1"
            )));
        }
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(channels));
        if expected != Some(samples.len()) {
            let got = samples.len();
            return Err(RasterError(format!(
                "a picture of {width}x{height} with {channels} channels needs width * height * channels numbers, got {got}"
            )));
        }
        Ok(Self { width, height, channels, samples })
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Channels and depth.
    pub fn format(&self) -> PixelFormat {
        PixelFormat { channels: self.channels, depth: self.samples.depth() }
    }

    /// The numbers, `[height, width, channels]`.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Whether every number is finite; integers are.
    pub fn is_finite(&self) -> bool {
        match &self.samples {
            Samples::F32(values) => values.iter().all(|value| value.is_finite()),
            Samples::U8(_) | Samples::U16(_) => true,
        }
    }

    /// The numbers alone.
    pub fn into_samples(self) -> Samples {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_checked() {
        let numbers = |n| Samples::U16(vec![7; n]);
        assert!(Raster::new(2, 3, 5, numbers(30)).is_ok());
        let error = Raster::new(2, 3, 5, numbers(29)).unwrap_err().to_string();
        assert_eq!(error, "a picture of 2x3 with 5 channels needs width * height * channels numbers, got 29");
        let error = Raster::new(2, 3, 17, numbers(102)).unwrap_err().to_string();
        assert_eq!(error, "a picture of 17 channels: 1 to 16 are read");
        for (width, height, channels) in [(0, 3, 1), (3, 0, 1), (3, 3, 0), (usize::MAX, 2, 2)] {
            assert!(Raster::new(width, height, channels, numbers(0)).is_err());
        }
    }

    #[test]
    fn formats_are_said_in_words() {
        assert_eq!(PixelFormat::RGB.to_string(), "3 channels of 8 bits");
        assert_eq!(PixelFormat { channels: 1, depth: Depth::U16 }.to_string(), "1 channel of 16 bits");
        assert_eq!(PixelFormat { channels: 12, depth: Depth::F32 }.to_string(), "12 channels of f32");
    }
}
