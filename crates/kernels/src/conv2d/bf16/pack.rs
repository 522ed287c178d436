//! Weights rounded to bf16 and packed as words for the inner loops.

use std::ops::Range;

use rayon::prelude::*;

use crate::words::weights::{by_input, by_output};
use crate::words::{BLOCK, Line, Unit};

/// Steps whose weights are used together: 32 KB for a block, which the first-level cache keeps.
const PART: usize = 128;

/// `[blocks][taps][steps][vectors(block)]` lines; a step is a word of inputs, and lanes without a channel hold zeros.
pub(super) struct Packed {
    data: Vec<Line>,
    pub(super) taps: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Words that a tap's inputs fill.
    pub(super) steps: usize,
}

/// Where a weight lies: `w[output * of[0] + tap * of[1] + input * of[2]]`; that of the output or of the input is 1.
pub(super) type Strides = [usize; 3];

impl Packed {
    /// # Panics
    /// If a weight lies outside of `w`, or neither outputs nor inputs are contiguous.
    pub(super) fn new(unit: Unit, w: &[f32], taps: &[usize], inputs: usize, outputs: usize, of: Strides) -> Self {
        let last_tap = taps.iter().max().copied().unwrap_or(0);
        assert!((outputs - 1) * of[0] + last_tap * of[1] + (inputs - 1) * of[2] < w.len() && of[0].min(of[2]) == 1);
        let steps = inputs.div_ceil(unit.values());
        let mut packed = Self { data: Vec::new(), taps: taps.len(), inputs, outputs, steps };
        let lines = taps.len() * steps;
        packed.data = vec![Line::ZERO; (0..packed.blocks()).map(|block| lines * packed.vectors(block)).sum()];
        let block = (lines * BLOCK / 16).max(1);
        // A tap of a block is a task.
        packed.data.par_chunks_mut(block).enumerate().for_each(|(block, out)| {
            let first = block * BLOCK;
            let used = (outputs - first).min(BLOCK);
            let tap_lines = steps * used.div_ceil(16);
            out.par_chunks_mut(tap_lines).zip(taps).for_each(|(out, tap)| {
                let from = &w[first * of[0] + tap * of[1]..];
                // SAFETY: the kernels that this is for were chosen on a machine with AVX-512; weights and lines lie inside
                // their slices, as asserted and cut above.
                unsafe {
                    match of[2] {
                        1 => by_input(unit, from, inputs, used, of[0], out),
                        _ => by_output(unit, from, inputs, used, of[2], out),
                    }
                }
            });
        });
        packed
    }

    pub(super) fn blocks(&self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }

    /// The channels of a block.
    pub(super) fn used(&self, block: usize) -> usize {
        (self.outputs - block * BLOCK).min(BLOCK)
    }

    /// The vectors that they fill.
    pub(super) fn vectors(&self, block: usize) -> usize {
        self.used(block).div_ceil(16)
    }

    /// A block's weights: `[taps * steps]` of its vectors.
    pub(super) fn block(&self, block: usize) -> &[Line] {
        let lines = self.taps * self.steps;
        &self.data[block * BLOCK / 16 * lines..][..lines * self.vectors(block)]
    }

    /// The sum over taps and steps in parts of about [`PART`] steps: (taps, steps) of each. A part is contiguous.
    pub(super) fn parts(&self) -> Vec<(Range<usize>, Range<usize>)> {
        let even = |all: usize, count: usize, of: usize| -> Vec<Range<usize>> {
            let size = all.div_ceil(count.max(1)).next_multiple_of(of).max(1);
            (0..all).step_by(size).map(|from| from..(from + size).min(all)).collect()
        };
        match self.taps * self.steps {
            0 => vec![(0..0, 0..0)],
            _ if self.steps > PART => {
                let pieces = even(self.steps, self.steps.div_ceil(PART), 16);
                (0..self.taps).flat_map(|tap| pieces.iter().map(move |piece| (tap..tap + 1, piece.clone()))).collect()
            }
            all => even(self.taps, all.div_ceil(PART), 1).into_iter().map(|taps| (taps, 0..self.steps)).collect(),
        }
    }
}
