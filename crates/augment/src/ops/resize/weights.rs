//! What each output of a resampling is a weighted sum of, along one direction.

use crate::filter::{cubic, triangle};
use crate::recipe::Interpolation;

/// Bits of the weights after the point.
pub(crate) const PRECISION: u32 = 22;

/// Weights in fixed point, kept from picture to picture for their memory.
#[derive(Default)]
pub(crate) struct Weights {
    /// First input, and number of inputs, of each output.
    spans: Vec<(usize, usize)>,
    /// The weights of output i are at `i * most`.
    weights: Vec<i32>,
    most: usize,
}

impl Weights {
    /// The weights by which `from` values become `to`.
    pub(crate) fn set(&mut self, from: usize, to: usize, interpolation: Interpolation) {
        match interpolation {
            Interpolation::Bilinear => self.sample(from, to, 1.0, triangle),
            Interpolation::Bicubic => self.sample(from, to, 2.0, cubic),
        }
    }

    /// Lets the outputs run backwards: a flip that costs nothing.
    pub(crate) fn reverse(&mut self) {
        self.spans.reverse();
        // Reversing everything turns the order of the weights within an output, too: it is turned back.
        self.weights.reverse();
        self.weights.chunks_exact_mut(self.most).for_each(<[i32]>::reverse);
    }

    /// The filter reaches `reach` inputs far, or as many outputs where the picture shrinks.
    #[inline(always)]
    fn sample(&mut self, from: usize, to: usize, reach: f64, filter: impl Fn(f64) -> f64) {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = reach * stretch;
        let inverse = 1.0 / stretch;
        let most = reach.ceil() as usize * 2 + 1;
        self.most = most;
        self.spans.clear();
        self.weights.clear();
        self.weights.resize(to * most, 0);
        let mut exact = vec![0.0; most];
        for (i, weights) in self.weights.chunks_exact_mut(most).enumerate() {
            let center = (i as f64 + 0.5) * scale;
            // Casts to unsigned stop at zero.
            let first = (center - reach + 0.5) as usize;
            let last = ((center + reach + 0.5) as usize).min(from);
            let count = last - first;
            let mut sum = 0.0;
            for (k, w) in exact[..count].iter_mut().enumerate() {
                *w = filter(((k + first) as f64 - center + 0.5) * inverse);
                sum += *w;
            }
            for (fixed, w) in weights.iter_mut().zip(&exact[..count]) {
                let w = if sum == 0.0 { *w } else { *w / sum } * f64::from(1 << PRECISION);
                *fixed = (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32;
            }
            self.spans.push((first, count));
        }
    }

    /// Number of outputs.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The largest number of inputs that an output may have.
    #[inline(always)]
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// First input and weights of output `i`.
    #[inline(always)]
    pub(crate) fn of(&self, i: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[i];
        (first, &self.weights[i * self.most..i * self.most + count])
    }
}
