//! Watching for what ends a run early: numbers that are not finite, and embeddings that collapse.

/// What is wrong with a step's loss, in a sentence; `None` if nothing is.
pub(crate) fn bad_loss(step: u64, loss: f64) -> Option<String> {
    (!loss.is_finite()).then(|| format!("the loss is {loss} at step {step}; {HELP}"))
}

/// That the optimizer met a gradient that is not finite, in a sentence.
pub(crate) fn bad_gradient(step: u64, name: &str) -> String {
    format!("the gradient of {name} is not finite at step {step}; {HELP}")
}

const HELP: &str = "a lower optim.lr or a longer warm-up usually helps";

/// Embeddings whose spread is below this share of a sphere's are called collapsed.
const COLLAPSED: f64 = 0.05;
/// For so many looks in a row.
const PATIENCE: u32 = 3;

/// Tells when the embeddings have become one point.
#[derive(Clone, Debug, Default)]
pub(crate) struct CollapseMonitor {
    low: u32,
    began: u64,
    told: bool,
}

impl CollapseMonitor {
    /// Looks at the standard deviation of the L2-normalized embeddings in D dimensions, which is 1/sqrt(D) for a uniform
    /// sphere and 0 for a point. Returns a sentence once, after three low looks in a row.
    pub(crate) fn look(&mut self, step: u64, embedding_std: f64, dimensions: usize) -> Option<String> {
        let uniform = 1.0 / (dimensions.max(1) as f64).sqrt();
        if embedding_std >= COLLAPSED * uniform {
            self.low = 0;
            return None;
        }
        if self.low == 0 {
            self.began = step;
        }
        self.low += 1;
        if self.low < PATIENCE || self.told {
            return None;
        }
        self.told = true;
        Some(format!(
            "the embeddings have collapsed since step {}: their std is {embedding_std:.2e}, a healthy one is near {uniform:.2e}; \
             too high a learning rate, too small a batch, or augmentations that leave nothing to tell usually cause it",
            self.began
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_is_told_once_with_its_beginning() {
        let mut monitor = CollapseMonitor::default();
        assert_eq!(monitor.look(0, 1e-9, 128), None);
        assert_eq!(monitor.look(10, 0.08, 128), None);
        let told: Vec<_> = (2..10).filter_map(|i| monitor.look(i * 10, 1e-9, 128)).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("since step 20"), "{}", told[0]);
    }
}
