//! Weights packed for the inner loops.

use std::ops::Range;

use rayon::prelude::*;

/// Output channels side by side in packed weights.
pub(crate) const BLOCK: usize = 64;
/// Rows of packed weights that are used together: 32 KB for a block, which the first-level cache keeps.
const PART: usize = 128;

/// Weights for one phase, in blocks of [`BLOCK`] output channels: `[blocks][taps][inputs][lanes(block)]`, zero-padded.
pub(crate) struct Packed {
    pub(crate) data: Vec<f32>,
    pub(crate) taps: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// What the width of the last block is rounded up to.
    lanes: usize,
}

impl Packed {
    /// `at(output, tap, input)` is `w[output * strides[0] + tap * strides[1] + input * strides[2]]`.
    pub(crate) fn new(
        w: &[f32],
        taps: &[usize],
        inputs: usize,
        outputs: usize,
        strides: [usize; 3],
        lanes: usize,
    ) -> Self {
        let mut packed = Self { data: Vec::new(), taps: taps.len(), inputs, outputs, lanes };
        let rows = taps.len() * inputs;
        packed.data = vec![0.0; (0..packed.blocks()).map(|b| rows * packed.width(b)).sum()];
        packed.data.par_chunks_mut((rows * BLOCK).max(1)).enumerate().for_each(|(block, out)| {
            let (first, used) = (block * BLOCK, (outputs - block * BLOCK).min(BLOCK));
            let width = used.next_multiple_of(lanes);
            for (t, &tap) in taps.iter().enumerate() {
                // In squares of 16, so that a transposing copy stays in the first-level cache.
                for low in (0..inputs).step_by(16) {
                    for first_k in (0..used).step_by(16) {
                        for i in low..(low + 16).min(inputs) {
                            let from = first * strides[0] + tap * strides[1] + i * strides[2];
                            let row = &mut out[(t * inputs + i) * width..][..used];
                            for (k, v) in row.iter_mut().enumerate().skip(first_k).take(16) {
                                *v = w[from + k * strides[0]];
                            }
                        }
                    }
                }
            }
        });
        packed
    }

    pub(crate) fn blocks(&self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }

    /// The channels of a block.
    pub(crate) fn used(&self, block: usize) -> usize {
        (self.outputs - block * BLOCK).min(BLOCK)
    }

    /// The channels of a block with its padding.
    pub(crate) fn width(&self, block: usize) -> usize {
        self.used(block).next_multiple_of(self.lanes)
    }

    /// The weights of a block: `[taps * inputs, width(block)]`.
    pub(crate) fn block(&self, block: usize) -> &[f32] {
        let rows = self.taps * self.inputs;
        &self.data[block * BLOCK * rows..][..rows * self.width(block)]
    }

    /// The sum over taps and inputs in parts of about [`PART`] rows of weights: (taps, inputs) of each. A part is contiguous.
    pub(crate) fn parts(&self) -> Vec<(Range<usize>, Range<usize>)> {
        let even = |all: usize, count: usize, of: usize| -> Vec<Range<usize>> {
            let size = all.div_ceil(count.max(1)).next_multiple_of(of).max(1);
            (0..all).step_by(size).map(|from| from..(from + size).min(all)).collect()
        };
        match self.taps * self.inputs {
            0 => vec![(0..0, 0..0)],
            _ if self.inputs > PART => {
                let pieces = even(self.inputs, self.inputs.div_ceil(PART), 16);
                (0..self.taps).flat_map(|tap| pieces.iter().map(move |piece| (tap..tap + 1, piece.clone()))).collect()
            }
            rows => even(self.taps, rows.div_ceil(PART), 1).into_iter().map(|taps| (taps, 0..self.inputs)).collect(),
        }
    }
}
