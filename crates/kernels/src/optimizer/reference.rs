//! The update rules in plain f64, one element after the other, as their sources write them.

use super::{LarsStep, Ratio, SgdStep};

/// One step of `torch.optim.SGD` (dampening 0); `buffer` starts at zero.
pub fn sgd(w: &mut [f64], g: &[f64], buffer: &mut [f64], step: &SgdStep) {
    for ((w, &g), b) in w.iter_mut().zip(g).zip(buffer) {
        let g = g + step.weight_decay * *w;
        *b = step.momentum * *b + g;
        *w -= step.lr * if step.nesterov { g + step.momentum * *b } else { *b };
    }
}

/// One step of LARS.
pub fn lars(w: &mut [f64], g: &[f64], buffer: &mut [f64], step: &LarsStep) {
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let decay = step.weight_decay;
    let decayed: Vec<f64> = w.iter().zip(g).map(|(w, g)| g + decay * w).collect();
    let (mut update, mut q) = (decayed.clone(), 1.0);
    if let Some(eta) = step.eta {
        let (divisor, norms_are_positive) = match step.ratio {
            Ratio::Joint => (norm(&decayed), norm(w) > 0.0 && norm(&decayed) > 0.0),
            Ratio::Sum => (norm(g) + decay * norm(w) + 1e-8, norm(w) > 0.0 && norm(g) > 0.0),
        };
        if norms_are_positive {
            q = eta * norm(w) / divisor;
            if step.clip {
                q = (q / step.lr).min(1.0);
            }
        } else if step.ratio == Ratio::Sum {
            update = g.to_vec();
        }
    }
    for ((w, dp), b) in w.iter_mut().zip(&update).zip(buffer) {
        if step.lr_in_momentum {
            *b = step.momentum * *b + step.lr * q * dp;
            *w -= *b;
        } else {
            *b = step.momentum * *b + q * dp;
            *w -= step.lr * *b;
        }
    }
}
