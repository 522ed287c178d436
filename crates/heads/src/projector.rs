//! The projectors of the papers, as lists of blocks. `widths` are the layers' output widths, the last is D.
//!
//! Where sources disagree, these are the official codes' layers. Blocks are plain data: an ablation may change one.

use crate::{Bias, Block, Norm};

/// SimCLR (Chen et al. 2020, section 4.2, and the official code): no linear biases, batch norm after every layer, ReLU
/// between; the last norm has a scale and no shift. Two widths are the paper's head, three that of SimCLR v2 (and the
/// official code's default).
pub fn simclr(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Block::norm_relu(Bias::None), Block { norm: Norm::Scale, ..Block::linear(Bias::None) })
}

/// MoCo (He et al. 2020) and its second version (Chen et al. 2020, arXiv:2003.04297): biases, no batch norm, ReLU between.
/// One width is the first version's single layer, two are the second's MLP.
pub fn moco(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Block::relu(Bias::Trained), Block::linear(Bias::Trained))
}

/// BYOL (Grill et al. 2020, section 3.3, and the official code): hidden layers with bias, batch norm and ReLU; the last
/// one is linear *without* a bias. (Other codes have the biases the other way around.)
pub fn byol(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Block::norm_relu(Bias::Trained), Block::linear(Bias::None))
}

/// SimSiam (Chen and He 2021, section 3, and the official code): no biases, batch norm and ReLU on all but the last layer,
/// whose norm has neither scale nor shift. As in the official code, the last layer has a bias that stays as it was drawn:
/// the norm takes it out again.
pub fn simsiam(widths: &[usize]) -> Vec<Block> {
    simsiam_with(widths, true, true)
}

/// [`simsiam`] with batch norm on its hidden layers, its output, both or neither (table 3 of the paper).
///
/// A layer whose norm is left out gets a bias that is learned.
pub fn simsiam_with(widths: &[usize], hidden: bool, output: bool) -> Vec<Block> {
    let between = if hidden { Block::norm_relu(Bias::None) } else { Block::relu(Bias::Trained) };
    let last = match output {
        true => Block { norm: Norm::Plain, ..Block::linear(Bias::Frozen) },
        false => Block::linear(Bias::Trained),
    };
    blocks(widths, between, last)
}

/// Barlow Twins (Zbontar et al. 2021, section 2.2): no biases, batch norm and ReLU on all but the last layer, which is
/// linear; the loss normalizes it.
pub fn barlow_twins(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Block::norm_relu(Bias::None), Block::linear(Bias::None))
}

/// SwAV (Caron et al. 2020, as its official code has it), and DeepCluster-v2 of the same paper: biases, batch norm
/// and ReLU on all but the last layer, which is linear. The prototypes are [`crate::Prototypes`].
pub fn swav(widths: &[usize]) -> Vec<Block> {
    blocks(widths, Block::norm_relu(Bias::Trained), Block::linear(Bias::Trained))
}

/// The instance head of Contrastive Clustering (Li et al. 2021, section 3.2): biases, no batch norm, ReLU between.
///
/// The cluster head has the same layers, its last width is the number of clusters, and a softmax follows, which is the
/// method's.
pub fn contrastive_clustering_instance(widths: &[usize]) -> Vec<Block> {
    moco(widths)
}

/// `between` at every width but the last, which gets `last`.
fn blocks(widths: &[usize], between: Block, last: Block) -> Vec<Block> {
    let hidden = widths.len().saturating_sub(1);
    let block = |(i, &width)| Block { width, ..if i < hidden { between } else { last } };
    widths.iter().enumerate().map(block).collect()
}
