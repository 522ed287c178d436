//! The predictors of the papers, as lists of blocks, for [`diptych_nn::Group::Predictor`].

use crate::{Bias, Block, projector};

/// BYOL (Grill et al. 2020, section 3.3, and the official code): the same two layers as its projector, hidden with bias,
/// batch norm and ReLU, output without a bias.
pub fn byol(hidden: usize, out: usize) -> Vec<Block> {
    projector::byol(&[hidden, out])
}

/// SimSiam (Chen and He 2021, section 3, and the official code): hidden without bias, batch norm, ReLU; output with a bias
/// and nothing after it.
pub fn simsiam(hidden: usize, out: usize) -> Vec<Block> {
    simsiam_with(hidden, out, true)
}

/// [`simsiam`] with batch norm on its hidden layer or not (table 3 of the paper); without, the layer has a bias.
///
/// For the table's row of a norm on the predictor's output too, set the last block's `norm`.
pub fn simsiam_with(hidden: usize, out: usize, bn: bool) -> Vec<Block> {
    let first = if bn { Block::norm_relu(Bias::None) } else { Block::relu(Bias::Trained) };
    vec![Block { width: hidden, ..first }, Block { width: out, ..Block::linear(Bias::Trained) }]
}
