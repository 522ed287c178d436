//! Methods without negatives: BYOL, SimSiam, Barlow Twins.

use super::harness::Case;

const LARS: &str = "name = 'lars'\nlr = 0.3\nweight_decay = 0.01\neta = 0.1";
const BARLOW: &str = "name = 'lars'\nlr = 0.3\nweight_decay = 0.01\neta = 0.1\nbias_lr_ratio = 0.024";

/// A target of its own start, which follows after the step by the decay of this step.
#[test]
fn byol() {
    let config = "projector = [10, 8]\npredictor_hidden = 9\ntau = 0.8";
    Case { name: "byol", method: "byol", config, optim: LARS, ..Case::default() }.check();
}

/// The projections themselves pursue a target of constant decay.
#[test]
fn byol_without_predictor() {
    let config = "projector = [10, 8]\npredictor = 'none'\ntau = 0.8\ntau_schedule = 'constant'";
    Case { name: "byol_without_predictor", method: "byol", config, optim: LARS, ..Case::default() }.check();
}

/// The predictor keeps its rate, and the bias before the projector's last norm its value.
#[test]
fn simsiam() {
    let config = "projector = [10, 10, 8]\npredictor_hidden = 5";
    let optim = "name = 'sgd'\nlr = 0.2\nweight_decay = 0.01\ndecay = 'all'\nconstant_lr = ['predictor']";
    Case { name: "simsiam", method: "simsiam", config, optim, ..Case::default() }.check();
}

/// Gradients into both branches, norms in the projector's hidden layer alone, similarity by cross-entropy.
#[test]
fn simsiam_ablated() {
    let config = "projector = [10, 8]\nprojector_bn = 'hidden'\npredictor_hidden = 5\npredictor_bn = 'none'\n\
                  stop_gradient = false\nsimilarity = 'cross_entropy'";
    let optim = "name = 'sgd'\nlr = 0.2\nweight_decay = 0.01\ndecay = 'all'";
    Case { name: "simsiam_ablated", method: "simsiam", config, optim, ..Case::default() }.check();
}

#[test]
fn barlow_twins() {
    let config = "projector = [10, 10, 8]\nlambda = 0.02";
    Case { name: "barlow_twins", method: "barlow_twins", config, optim: BARLOW, ..Case::default() }.check();
}

#[test]
fn barlow_twins_row_mean() {
    let config = "projector = [10, 10, 8]\nbalance = 'row_mean'";
    Case { name: "barlow_twins_row_mean", method: "barlow_twins", config, optim: BARLOW, ..Case::default() }.check();
}

/// Section 4: a predictor in the first branch, no gradient in the second.
#[test]
fn barlow_twins_asymmetric() {
    let config = "projector = [10, 10, 8]\nlambda = 0.02\nstop_gradient = true\npredictor = true";
    Case { name: "barlow_twins_asymmetric", method: "barlow_twins", config, optim: BARLOW, ..Case::default() }.check();
}
