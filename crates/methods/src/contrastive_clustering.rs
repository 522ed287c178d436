//! Contrastive Clustering (Li et al., AAAI 2021, arXiv:2009.09687).
//!
//! Rows of the batch are contrasted as images and columns of the soft assignments as clusters: two heads on one backbone.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::ops::softmax;
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::{Mlp, projector};
use diptych_losses::{ClusterContrast, Loss, NtXent};
use diptych_nn::{Backbone, Batch, Group, ParamStore};
use serde::{Deserialize, Serialize};

use crate::registry::{check_positive, check_projector};
use crate::{Build, Embeddings, Forward, Method, crops};

pub(crate) const PAPER: &str = "Contrastive Clustering (Li et al., AAAI 2021, arXiv:2009.09687)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
pub(crate) const AUGMENT: fn(usize) -> Recipe = Recipe::simclr;
/// Section 4.2: Adam at 0.0003, without decay and schedule.
pub(crate) const OPTIM: &str = r#"
name = "adam"
lr = 3e-4
lr_scaling = "none"
weight_decay = 0.0
schedule = "constant"
warmup_epochs = 0
"#;

/// What a recipe may set; the defaults are the paper's (section 4.2).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Widths of the instance head's layers; the last is D. Left out: [F, 128].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector: Option<Vec<usize>>,
    /// The number of clusters.
    pub clusters: usize,
    /// The temperature among images.
    pub temperature: f64,
    /// The temperature among clusters.
    pub cluster_temperature: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { projector: None, clusters: 10, temperature: 0.5, cluster_temperature: 1.0 }
    }
}

impl Config {
    pub(crate) fn resolve(mut self, features: usize) -> Result<Self> {
        check_projector(self.projector.get_or_insert_with(|| vec![features, 128]))?;
        check_positive("temperature", self.temperature)?;
        check_positive("cluster_temperature", self.cluster_temperature)?;
        if self.clusters < 2 {
            bail!("clusters must be at least 2, it is {}", self.clusters)
        }
        Ok(self)
    }
}

pub(crate) struct ContrastiveClustering {
    params: ParamStore,
    backbone: Box<dyn Backbone>,
    instance: Mlp,
    cluster: Mlp,
    instances: NtXent,
    clusters: ClusterContrast,
    comm: Arc<dyn Collective>,
}

impl ContrastiveClustering {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let backbone = (build.backbone)(&mut params.scope(Group::Trunk).pp("backbone"))?;
        let features = backbone.out_dim();
        let mut head = |name: &str, widths: &[usize]| {
            let blocks = projector::contrastive_clustering_instance(widths);
            Mlp::new(&mut params.scope(Group::Projector).pp(name), features, &blocks)
        };
        let instance = head("projector", config.projector.as_deref().unwrap_or_default())?;
        let cluster = head("cluster", &[features, config.clusters])?;
        Ok(Self {
            params,
            backbone,
            instance,
            cluster,
            instances: NtXent::new(config.temperature),
            clusters: ClusterContrast { temperature: config.cluster_temperature },
            comm: build.comm.clone(),
        })
    }
}

impl Method for ContrastiveClustering {
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let (mut z, mut c) = (Vec::new(), Vec::new());
        for x in &batch.views.0 {
            let h = self.backbone.forward_t(x, true)?;
            z.push(self.instance.forward(&h, true)?.to_dtype(DType::F32)?);
            c.push(softmax(&self.cluster.forward(&h, true)?.to_dtype(DType::F32)?, 1)?);
        }
        let watched = z.iter().take(2).map(Tensor::detach).collect();
        Ok(Embeddings { live: [z, c].concat(), fixed: Vec::new(), watched, global })
    }

    fn objective(&mut self, embeddings: &Embeddings, _index: &[u32]) -> Result<Forward> {
        let (z, c) = embeddings.live.split_at(embeddings.live.len() / 2);
        let losses = crops::unordered(z.len(), embeddings.global)
            .into_iter()
            .map(|(i, j)| {
                let instance = self.instances.loss_over(&z[i], &z[j], &self.comm)?;
                let cluster = self.clusters.loss_over(&c[i], &c[j], &self.comm)?;
                let own = [("instance", instance.total.detach()), ("cluster", cluster.total.detach())];
                let parts = own.into_iter().chain(instance.parts).chain(cluster.parts).collect();
                Ok(Loss { total: (instance.total + cluster.total)?, parts })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Forward::new(crops::mean(&losses, 1.0)?, embeddings))
    }

    fn couples_batch(&self) -> bool {
        true
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }
}
