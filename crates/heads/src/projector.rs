//! The projectors of the papers, as lists of blocks. `widths` are the layers' output widths, the last is D.

use crate::{Block, Norm};

/// SimCLR (Chen et al. 2020, section 4.2, and the official code): no linear biases, batch norm after every layer, ReLU
/// between; the last norm has a scale and no shift.
pub fn simclr(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Norm::Scale)
}

/// Barlow Twins (Zbontar et al. 2021, section 2.2): no biases, batch norm and ReLU on all but the last layer, which is
/// linear; the loss normalizes it.
pub fn barlow_twins(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Norm::None)
}

/// Bias-free layers with batch norm and ReLU, the last one with `last` and no ReLU.
fn blocks(widths: &[usize], last: Norm) -> Vec<Block> {
    let hidden = widths.len().saturating_sub(1);
    widths
        .iter()
        .enumerate()
        .map(|(i, &width)| Block {
            width,
            bias: false,
            norm: if i < hidden { Norm::ScaleShift } else { last },
            relu: i < hidden,
        })
        .collect()
}
