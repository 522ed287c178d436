//! Pictures like photographs, made by the bench itself: shading, textures of all sizes, edges between things, and a sensor's noise.

use anyhow::Result;
use candle_core::{Device, Tensor};
use diptych_augment::{Image, Stream};

use crate::case::Tensors;

/// Width and height: the usual size in ImageNet.
pub(crate) const PHOTOGRAPH: [usize; 2] = [500, 375];
/// Deviation of a pixel's noise.
const NOISE: f64 = 3.0;
/// Octaves of a texture; the finest has two pixels a value in a photograph of 500 pixels.
const OCTAVES: usize = 8;
/// Things in a picture.
const THINGS: usize = 9;

/// Random values on a lattice, smoothly joined, in waves of many lengths whose strength goes with their length, as in nature.
struct Texture {
    octaves: Vec<(usize, f64, Vec<f32>)>,
}

impl Texture {
    fn new(stream: &mut Stream, octaves: usize, strength: f64) -> Self {
        let octave = |k: usize| {
            let cells = 2usize << k;
            let values = (0..(cells + 2) * (cells + 2)).map(|_| stream.range(-1.0, 1.0) as f32).collect();
            (cells, strength * 0.84f64.powi(k as i32), values)
        };
        Self { octaves: (0..octaves).map(octave).collect() }
    }

    /// The value at a place, both coordinates from 0 to 1.
    fn at(&self, x: f64, y: f64) -> f64 {
        let octave = |(cells, strength, values): &(usize, f64, Vec<f32>)| {
            let (u, v) = (x * *cells as f64, y * *cells as f64);
            let (i, j) = (u as usize, v as usize);
            let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
            let (s, t) = (smooth(u - i as f64), smooth(v - j as f64));
            let value = |di: usize, dj: usize| f64::from(values[(j + dj) * (cells + 2) + i + di]);
            let upper = value(0, 0) + s * (value(1, 0) - value(0, 0));
            let lower = value(0, 1) + s * (value(1, 1) - value(0, 1));
            strength * (upper + t * (lower - upper))
        };
        self.octaves.iter().map(octave).sum()
    }
}

/// An ellipse of another color, with an edge.
struct Thing {
    center: [f64; 2],
    radius: [f64; 2],
    turn: (f64, f64),
    color: [f64; 3],
    roughness: f64,
}

impl Thing {
    fn new(stream: &mut Stream) -> Self {
        let mut range = |low, high| stream.range(low, high);
        Self {
            center: [range(0.0, 1.0), range(0.0, 1.0)],
            radius: [range(0.05, 0.35), range(0.05, 0.35)],
            turn: range(0.0, 6.3).sin_cos(),
            color: [range(25.0, 230.0), range(25.0, 230.0), range(25.0, 230.0)],
            roughness: range(0.2, 1.2),
        }
    }

    fn holds(&self, x: f64, y: f64) -> bool {
        let ((sin, cos), dx, dy) = (self.turn, x - self.center[0], y - self.center[1]);
        let (u, v) = ((dx * cos + dy * sin) / self.radius[0], (dy * cos - dx * sin) / self.radius[1]);
        u * u + v * v < 1.0
    }
}

/// The picture of this number and size; the same at every call.
pub(crate) fn picture(index: usize, [width, height]: [usize; 2]) -> Result<Image> {
    let mut stream = Stream::keyed(0, &[index as u64]);
    let light = Texture::new(&mut stream, OCTAVES, 45.0);
    let tints = [0, 1, 2].map(|_| Texture::new(&mut stream, 4, 14.0));
    let ground: [f64; 3] = [0, 1, 2].map(|_| stream.range(60.0, 190.0));
    let things: Vec<Thing> = (0..THINGS).map(|_| Thing::new(&mut stream)).collect();
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for column in 0..width {
            let (x, y) = (column as f64 / width as f64, row as f64 / height as f64);
            let thing = things.iter().rev().find(|thing| thing.holds(x, y));
            let (color, roughness) = thing.map_or((ground, 0.6), |thing| (thing.color, thing.roughness));
            let light = roughness * light.at(x, y);
            for (base, tint) in color.iter().zip(&tints) {
                // The sum of three uniform numbers is near a Gaussian one of deviation 1/2.
                let noise = stream.uniform() + stream.uniform() + stream.uniform() - 1.5;
                let value = base + light + tint.at(x, y) + 2.0 * NOISE * noise;
                pixels.push(value.round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    Ok(Image::new(width, height, pixels)?)
}

/// Pictures as the peer gets them: `[n, height, width, 3]` u8.
pub(crate) fn stacked(images: &[Image]) -> Result<Tensor> {
    let (height, width) = (images[0].height, images[0].width);
    let pixels: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
    Ok(Tensor::from_vec(pixels, (images.len(), height, width, 3), &Device::Cpu)?)
}

/// Sums of each channel of views, and of its squares, over as many views as are added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Statistics {
    count: f64,
    sum: [f64; 3],
    squares: [f64; 3],
}

impl Statistics {
    /// Adds views `[..., 3]`.
    pub(crate) fn add(&mut self, views: &[f32]) {
        self.count += (views.len() / 3) as f64;
        for pixel in views.chunks_exact(3) {
            for (c, value) in pixel.iter().map(|value| f64::from(*value)).enumerate() {
                self.sum[c] += value;
                self.squares[c] += value * value;
            }
        }
    }

    /// What no random draw changes much: mean and deviation of each channel, `[3, 2]`.
    pub(crate) fn tensors(self) -> Result<Tensors> {
        let of = |c: usize| {
            let mean = self.sum[c] / self.count;
            [mean, (self.squares[c] / self.count - mean * mean).max(0.0).sqrt()]
        };
        let values: Vec<f32> = (0..3).flat_map(of).map(|v| v as f32).collect();
        Ok([("mean and deviation".into(), Tensor::from_vec(values, (3, 2), &Device::Cpu)?)].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_by_hand() -> Result<()> {
        let mut found = Statistics::default();
        found.add(&[1.0, 0.0, 5.0]);
        found.add(&[3.0, 0.0, 5.0]);
        let values = found.tensors()?["mean and deviation"].to_vec2::<f32>()?;
        assert_eq!(values, [[2.0, 1.0], [0.0, 0.0], [5.0, 0.0]]);
        Ok(())
    }

    #[test]
    fn pictures_differ_and_use_the_range() -> Result<()> {
        let (a, b) = (picture(0, [50, 40])?, picture(1, [50, 40])?);
        assert_ne!(a, b);
        assert_eq!(a, picture(0, [50, 40])?);
        let (least, most) = (a.pixels.iter().min().unwrap(), a.pixels.iter().max().unwrap());
        assert!(*least < 90 && *most > 160, "{least} to {most}");
        Ok(())
    }
}
