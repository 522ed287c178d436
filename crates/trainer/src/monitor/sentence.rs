//! What a collapse is and what usually causes it, in plain words.

use super::collapse::{Kind, Look};

/// What stands between a collapse and what usually brings it about.
pub(crate) const CAUSES: &str = ". Usual causes: ";

/// A collapse of this kind that began at step `since`.
pub(crate) fn collapsed(kind: Kind, since: u64, look: &Look) -> String {
    let [_, d] = look.shape;
    let (std, even) = (look.measures.std, 1.0 / (d.max(1) as f64).sqrt());
    let (what, causes) = match kind {
        Kind::Point => (
            format!(
                "collapsed since step {since}: all images get the same embedding (std {std:.1e}; spread evenly it is \
                 {even:.1e})"
            ),
            "no stop-gradient, no predictor or a target that does not lag behind, in a method without negatives; too high \
             a learning rate; a batch too small",
        ),
        Kind::Alike => (
            format!(
                "collapsed since step {since}: the embeddings of different images are nearly alike (std {std:.1e}; spread \
                 evenly it is {even:.1e}) and do not move apart"
            ),
            "too high a learning rate; no predictor or no batch norm in a method without negatives; augmentations that \
             leave nothing to tell",
        ),
        Kind::FewDirections => (
            format!(
                "collapsed since step {since}: the embeddings use {:.1} of {d} directions, so images differ in next to \
                 nothing",
                look.measures.rank
            ),
            "no stop-gradient or no predictor in a method without negatives; redundancy weighted too low (method.lambda); \
             too high a learning rate; augmentations too strong",
        ),
        Kind::Trivial => (
            format!(
                "nothing learned since step {since}: the loss does not leave {:.2}, that of a network that tells no image \
                 from another",
                look.trivial.unwrap_or(f64::NAN)
            ),
            "a learning rate too low or too high; embeddings or a queue that are not normalized; a key encoder that moves \
             too fast (momentum near 0); augmentations that leave nothing in common",
        ),
    };
    format!("{what}{CAUSES}{causes}")
}

/// The collapse that began at step `since` is over.
pub(crate) fn recovered(since: u64, step: u64) -> String {
    format!("recovered by step {step}: the collapse that began at step {since} is over")
}
