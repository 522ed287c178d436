//! What each output of a resampling is a weighted sum of, along one direction.

use crate::filter::{cubic, triangle};
use crate::recipe::Interpolation;
use crate::simd::{Isa, vectorized};

/// Bits of the weights after the point.
pub(crate) const PRECISION: u32 = 22;

/// Outputs whose weights are computed side by side.
const SIDE: usize = 8;

/// Weights in fixed point, kept from picture to picture for their memory.
#[derive(Default)]
pub(crate) struct Weights {
    /// First input, and number of inputs, of each output.
    spans: Vec<(usize, usize)>,
    /// The weights of output i are at `i * room`, zeros after them.
    weights: Vec<i32>,
    /// A multiple of 4.
    room: usize,
    /// The weights of [`SIDE`] outputs before they are scaled.
    exact: Vec<[f64; SIDE]>,
}

impl Weights {
    /// The weights by which `from` values become `to`, from last to first if `backwards`: a flip that costs nothing.
    pub(crate) fn set(&mut self, isa: Isa, from: usize, to: usize, interpolation: Interpolation, backwards: bool) {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        // The filter reaches so many inputs far, or as many outputs where the picture shrinks.
        let reach = interpolation.reach() * stretch;
        let center = |i: usize| (i as f64 + 0.5) * scale;
        self.spans.clear();
        self.spans.extend((0..to).map(|i| {
            let i = if backwards { to - 1 - i } else { i };
            // Casts to unsigned stop at zero.
            let first = (center(i) - reach + 0.5) as usize;
            let last = ((center(i) + reach + 0.5) as usize).min(from);
            (first, last - first)
        }));
        let most = self.spans.iter().map(|span| span.1).max().unwrap_or(0);
        self.room = most.next_multiple_of(4);
        self.weights.clear();
        self.weights.resize(to * self.room, 0);
        self.exact.resize(most, [0.0; SIDE]);
        let inverse = 1.0 / stretch;
        let blocks = self.spans.chunks(SIDE).zip(self.weights.chunks_mut(SIDE * self.room));
        for (block, (spans, weights)) in blocks.enumerate() {
            // Outputs that are not there have no inputs.
            let mut firsts = [0.0; SIDE];
            let mut counts = [0.0; SIDE];
            let mut centers = [0.0; SIDE];
            for (lane, &(first, count)) in spans.iter().enumerate() {
                let i = block * SIDE + lane;
                firsts[lane] = first as f64;
                counts[lane] = count as f64;
                centers[lane] = center(if backwards { to - 1 - i } else { i });
            }
            sample(isa, interpolation, inverse, &centers, &firsts, &counts, &mut self.exact, weights, self.room);
        }
    }

    /// Number of outputs.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// All weights, [`Weights::room`] for each output.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all(&self) -> &[i32] {
        &self.weights
    }

    /// The largest number of inputs that an output has, up to the next multiple of 4.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// First input, and number of inputs, of output `i`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn span(&self, i: usize) -> (usize, usize) {
        self.spans[i]
    }

    /// First input and weights of output `i`.
    #[inline(always)]
    pub(crate) fn of(&self, i: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[i];
        (first, &self.weights[i * self.room..i * self.room + count])
    }
}

vectorized! {
    /// The weights of up to [`SIDE`] outputs; `exact` has room for the most inputs of any.
    fn sample(
        isa: Isa,
        interpolation: Interpolation,
        inverse: f64,
        centers: &[f64; SIDE],
        firsts: &[f64; SIDE],
        counts: &[f64; SIDE],
        exact: &mut [[f64; SIDE]],
        out: &mut [i32],
        room: usize,
    ) {
        match interpolation {
            Interpolation::Bilinear => fill(triangle, inverse, centers, firsts, counts, exact, out, room),
            Interpolation::Bicubic => fill(cubic, inverse, centers, firsts, counts, exact, out, room),
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn fill(
    filter: impl Fn(f64) -> f64,
    inverse: f64,
    centers: &[f64; SIDE],
    firsts: &[f64; SIDE],
    counts: &[f64; SIDE],
    exact: &mut [[f64; SIDE]],
    out: &mut [i32],
    room: usize,
) {
    let mut sums = [0.0; SIDE];
    for (k, exact) in exact.iter_mut().enumerate() {
        for lane in 0..SIDE {
            let weight = filter((k as f64 + firsts[lane] - centers[lane] + 0.5) * inverse);
            // Zeros after the last one change no sum.
            exact[lane] = if (k as f64) < counts[lane] { weight } else { 0.0 };
            sums[lane] += exact[lane];
        }
    }
    for (k, exact) in exact.iter().enumerate() {
        let mut fixed = [0; SIDE];
        for lane in 0..SIDE {
            let sum = if sums[lane] == 0.0 { 1.0 } else { sums[lane] };
            let weight = exact[lane] / sum * f64::from(1 << PRECISION);
            fixed[lane] = rounded(weight);
        }
        for (out, fixed) in out.chunks_exact_mut(room).zip(fixed) {
            out[k] = fixed;
        }
    }
}

/// A weight as an integer, halves away from zero.
///
/// A cast would do, but one by one. The sum of a number and 1.5 * 2^52 is rounded to an integer, which is in its lower bits.
#[inline(always)]
fn rounded(weight: f64) -> i32 {
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let size = weight.abs() + 0.5;
    let nearest = (size + WHOLE) - WHOLE;
    let below = nearest - if nearest > size { 1.0 } else { 0.0 };
    (below.copysign(weight) + WHOLE).to_bits() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_a_cast() {
        let mut draws = crate::Stream::keyed(26, &[]);
        let drawn = (0..20_000).map(|_| draws.range(-5e6, 5e6));
        for weight in drawn.chain((-4000..4000).map(|i| f64::from(i) * 0.25)).chain([0.0, -0.0, 0.5 - 1e-17]) {
            let expected = (if weight < 0.0 { weight - 0.5 } else { weight + 0.5 }) as i32;
            assert_eq!(rounded(weight), expected, "{weight}");
        }
    }
}
