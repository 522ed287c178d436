//! Methods with clusters: SwAV, DeepCluster-v2, Contrastive Clustering.

use super::harness::Case;

// A bias before a batch norm has a gradient of 0 up to rounding, which the layer-wise ratio would make large without the decay.
const LARC: &str = "name = 'lars'\nvariant = 'bolts'\nlr = 0.3\nweight_decay = 0.01\ndecay = 'all'\neta = 0.1";

/// Two crop sizes, full queues that wrap, prototypes that stand still in the first step and move in the second.
#[test]
fn swav() {
    let config =
        "projector = [10, 8]\nprototypes = 5\nqueue = 15\nqueue_start_epoch = 0\nfreeze_prototypes_epochs = 0.8";
    Case { name: "swav", method: "swav", config, optim: LARC, views: 3, ..Case::default() }.check();
}

/// Within an epoch; two images of the batch have no cluster.
#[test]
fn deepcluster() {
    let config = "projector = [10, 8]\nprototypes = [4, 3, 5]";
    Case { name: "deepcluster", method: "deepcluster", config, optim: LARC, views: 3, ..Case::default() }.check();
}

#[test]
fn contrastive_clustering() {
    let optim = "name = 'adam'\nlr = 0.02\nweight_decay = 0.01\ndecay = 'all'\nschedule = 'constant'";
    let (name, config) = ("contrastive_clustering", "projector = [10, 8]\nclusters = 4");
    Case { name, method: name, config, optim, ..Case::default() }.check();
}
