//! Methods with negatives: SimCLR, MoCo with its three dictionaries, AdCo.

use diptych_random::Stream;

use super::harness::{Case, IMAGES, INDEX, SEED, STEPS};

const SGD: &str = "name = 'sgd'\nlr = 0.2\nweight_decay = 0.01\ndecay = 'all'";
const LARS: &str = "name = 'lars'\nvariant = 'lr_in_momentum'\nlr = 0.1\nweight_decay = 0.01\neta = 0.3";

const ADCO: &str = "projector = [10, 8]
negatives = 9
tau = 0.9
negatives_temperature = 0.05
negatives_lr = 0.5
negatives_weight_decay = 0.01";

fn moco(name: &'static str, groups: usize, config: &'static str) {
    Case { name, method: "moco", config, optim: SGD, groups, ..Case::default() }.check();
}

fn check_adco(name: &'static str, groups: usize, more: &str) {
    let config = &format!("{ADCO}\n{more}");
    let optim = &SGD.replace("0.2", "0.05");
    Case { name, method: "adco", config, optim, groups, ..Case::default() }.check();
}

/// Both views in one batch, which share statistics, as the official code has it.
#[test]
fn simclr() {
    let config = "projector = [10, 8]\ntemperature = 0.5";
    Case { name: "simclr", method: "simclr", config, optim: LARS, ..Case::default() }.check();
}

/// The head of three layers, one view after the other.
#[test]
fn simclr_split() {
    let config = "projector = [8, 10, 8]\ntemperature = 0.5\nforward = 'split'";
    Case { name: "simclr_split", method: "simclr", config, optim: LARS, ..Case::default() }.check();
}

/// The second version. The queue is no multiple of the batch, and goes on at the front.
#[test]
fn moco_queue() {
    moco("moco", 1, "projector = [10, 8]\nqueue = 11\ntau = 0.9");
}

/// Groups of statistics, and keys that pass in another order.
#[test]
fn moco_shuffled() {
    check_orders();
    moco("moco_shuffled", 3, "projector = [10, 8]\nqueue = 11\ntau = 0.9");
}

#[test]
fn moco_symmetric() {
    moco("moco_symmetric", 1, "projector = [10, 8]\nqueue = 17\ntau = 0.9\nsymmetric = 'sum'");
}

/// Gradients go through keys and shuffle.
#[test]
fn moco_end_to_end() {
    check_orders();
    moco("moco_end_to_end", 2, "projector = [10, 8]\ndictionary = 'end_to_end'");
}

#[test]
fn moco_memory_bank() {
    check_drawn();
    moco("moco_memory_bank", 1, "projector = [8]\ndictionary = 'memory_bank'\nqueue = 9");
}

/// Negatives climb after the step with the queries and keys of before it; the keys are shuffled as MoCo's, and those of other images are negatives
/// too.
#[test]
fn adco() {
    check_orders();
    check_adco("adco", 3, "symmetric = false");
    check_adco("adco_symmetric", 3, "symmetric = true");
}

/// The paper's loss, in which the learned negatives are all there are.
#[test]
fn adco_without_negatives_of_the_batch() {
    check_adco("adco_paper", 1, "batch_negatives = false");
}

/// `ORDERS` of the script: the order of keys is a function of (seed, step, view).
fn check_orders() {
    let expected = [[[5, 0, 1, 3, 2, 4], [2, 0, 3, 1, 4, 5]], [[5, 2, 3, 0, 1, 4], [2, 0, 1, 3, 4, 5]]];
    for (step, views) in STEPS.into_iter().zip(expected) {
        for (view, order) in (0u64..).zip(views) {
            let key = [u64::from_be_bytes(*b"shuffbn\0"), step, view];
            assert_eq!(Stream::keyed(SEED, &key).permutation(6), order, "step {step}, view {view}");
        }
    }
}

/// `DRAWN` of the script: the bank's negatives are a function of (seed, step), and none is of the batch.
fn check_drawn() {
    let expected = [[6, 11, 6, 8, 8, 3, 10, 6, 5], [0, 11, 11, 4, 4, 4, 11, 7, 7]];
    for ((step, index), drawn) in STEPS.into_iter().zip(INDEX).zip(expected) {
        let mut stream = Stream::keyed(SEED, &[u64::from_be_bytes(*b"bankdraw"), step]);
        let outside = std::iter::repeat_with(|| stream.below(IMAGES as u64) as u32).filter(|i| !index.contains(i));
        assert_eq!(outside.take(9).collect::<Vec<_>>(), drawn, "step {step}");
    }
}
