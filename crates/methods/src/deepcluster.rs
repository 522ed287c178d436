//! DeepCluster-v2, of the paper of SwAV (Caron et al., NeurIPS 2020, arXiv:2006.09882, section 5.1 and appendix), after DeepCluster (Caron et
//! al., ECCV 2018, arXiv:1807.05520).
//!
//! Before each epoch the embeddings of the last one are clustered; in the epoch each view must predict its image's cluster.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var, bail};
use diptych_augment::Recipe;
use diptych_comm::Collective;
use diptych_heads::projector;
use diptych_kernels::l2_normalize;
use diptych_losses::PrototypeCrossEntropy;
use diptych_metrics::spherical_kmeans;
use diptych_nn::{Backbone, Batch, Group, Init, Param, ParamStore, Role, hold_statistics, no_grad};
use diptych_random::Stream;
use serde::{Deserialize, Serialize};

use crate::dictionary::{gather_index, set_rows};
use crate::encoder::Encoder;
use crate::registry::{check_positive, check_projector};
use crate::{Build, Embeddings, Forward, Method, Step, crops};

pub(crate) const PAPER: &str = "DeepCluster-v2 (Caron et al., NeurIPS 2020, arXiv:2006.09882)";
pub(crate) const VIEWS: usize = 2;
pub(crate) const BN_GROUPS: usize = 1;
pub(crate) const AUGMENT: fn(usize) -> Recipe = crate::swav::AUGMENT;
pub(crate) const OPTIM: &str = crate::swav::OPTIM;

/// Keeps the stream of the clustering apart from every other use of the seed.
const KMEANS: u64 = u64::from_be_bytes(*b"k-means\0");
/// In the place of an assignment, where an image has none.
const NONE: i64 = -100;
/// How many global views are remembered; head h learns from the clusters of view h modulo this.
const REMEMBERED: usize = 2;

/// What a recipe may set; the defaults are the official code's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Widths of the projector's layers; the last is D.
    pub projector: Vec<usize>,
    /// Clusters of each head.
    pub prototypes: Vec<usize>,
    /// The temperature of predictions.
    pub temperature: f64,
    /// Rounds of k-means before an epoch.
    pub kmeans_iterations: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { projector: vec![2048, 128], prototypes: vec![3000, 3000, 3000], temperature: 0.1, kmeans_iterations: 10 }
    }
}

impl Config {
    pub(crate) fn resolve(self, _features: usize) -> Result<Self> {
        check_projector(&self.projector)?;
        check_positive("temperature", self.temperature)?;
        if self.prototypes.is_empty() || self.prototypes.iter().any(|&count| count < 2) {
            bail!(
                "prototypes must name at least 2 clusters for each head, such as [300, 300, 300], it is {:?}",
                self.prototypes
            )
        }
        Ok(self)
    }
}

pub(crate) struct DeepCluster {
    config: Config,
    params: ParamStore,
    encoder: Encoder,
    memory: Memory,
    objective: PrototypeCrossEntropy,
    comm: Arc<dyn Collective>,
    seed: u64,
    /// Images and their embeddings of the global views, for the memory after the step.
    pending: Vec<(Vec<u32>, Vec<Tensor>)>,
}

/// What is known of every image: its embeddings, and its cluster in each head.
struct Memory {
    state: ParamStore,
    /// `[M, D]` at length 1, for each remembered view; rows of zeros for images not seen.
    embeddings: Vec<Var>,
    /// `[K, D]` for each head.
    centers: Vec<Var>,
    /// `[M]` for each head.
    assignments: Vec<Var>,
}

impl Memory {
    fn new(mut state: ParamStore, images: usize, width: usize, heads: &[usize]) -> Result<Self> {
        if let Some(&count) = heads.iter().find(|&&count| count > images) {
            bail!("prototypes = {heads:?}: {count} clusters of {images} images can't be; use fewer")
        }
        let mut scope = state.scope(Group::Frozen);
        let mut zeros = |name: String, shape: &[usize]| scope.get(&name, shape, Role::Buffer, Init::Constant(0.0));
        let embeddings =
            (0..REMEMBERED).map(|view| zeros(format!("embeddings{view}"), &[images, width])).collect::<Result<_>>()?;
        let centers = heads
            .iter()
            .enumerate()
            .map(|(head, &count)| zeros(format!("centers{head}"), &[count, width]))
            .collect::<Result<_>>()?;
        let mut assignments = Vec::new();
        for head in 0..heads.len() {
            // On the host wherever the networks are: every step looks labels up in it.
            let var = Var::from_tensor(&Tensor::full(NONE, images, &Device::Cpu)?)?;
            let param = Param { role: Role::Buffer, group: Group::Frozen, var: var.clone() };
            state.insert(&format!("assignments{head}"), param)?;
            assignments.push(var);
        }
        Ok(Self { state, embeddings, centers, assignments })
    }

    /// Overwrites the embeddings of these images.
    fn remember(&self, index: &[u32], views: &[Tensor]) -> Result<()> {
        for (memory, z) in self.embeddings.iter().zip(views) {
            set_rows(memory, index, z)?;
        }
        Ok(())
    }

    /// Clusters all images seen so far, for each head.
    fn cluster(&self, iterations: usize, seed: u64, epoch: u64) -> Result<()> {
        let images = self.embeddings[0].dim(0)?;
        for (head, (centers, assignments)) in self.centers.iter().zip(&self.assignments).enumerate() {
            let z = self.embeddings[head % REMEMBERED].as_detached_tensor();
            let norms = z.sqr()?.sum(1)?.to_vec1::<f32>()?;
            let seen: Vec<u32> = (0u32..).zip(norms).filter(|(_, norm)| *norm > 0.0).map(|(image, _)| image).collect();
            if seen.len() < centers.dim(0)? {
                bail!(
                    "{} images were seen in an epoch, too few for prototypes = {}; use fewer, or a smaller batch",
                    seen.len(),
                    centers.dim(0)?
                )
            }
            let z = z.index_select(&Tensor::new(seen.as_slice(), z.device())?, 0)?;
            let mut stream = Stream::keyed(seed, &[KMEANS, epoch, head as u64]);
            let clusters = spherical_kmeans(&z, centers.dim(0)?, iterations, &mut stream)?;
            centers.set(&clusters.centers)?;
            let mut all = vec![NONE; images];
            seen.iter().zip(clusters.assignments).for_each(|(&image, center)| all[image as usize] = i64::from(center));
            assignments.set(&Tensor::new(all, assignments.device())?)?;
        }
        Ok(())
    }

    /// The clusters of these images in one head; `None` for one that was not seen.
    fn labels(&self, head: usize, index: &[u32]) -> Result<Vec<Option<u32>>> {
        let index = Tensor::new(index, self.assignments[head].device())?;
        let labels = self.assignments[head].as_detached_tensor().index_select(&index, 0)?.to_vec1::<i64>()?;
        Ok(labels.into_iter().map(|label| u32::try_from(label).ok()).collect())
    }
}

impl DeepCluster {
    pub(crate) fn new(config: Config, build: &Build) -> Result<Self> {
        let mut params = build.store(build.seed)?;
        let encoder = Encoder::new(&mut params, build, &|_| projector::swav(&config.projector))?;
        let width = encoder.projector.out_dim();
        let memory = Memory::new(build.store(build.seed)?, build.dataset_len, width, &config.prototypes)?;
        Ok(Self {
            objective: PrototypeCrossEntropy { temperature: config.temperature },
            config,
            params,
            encoder,
            memory,
            comm: build.comm.clone(),
            seed: build.seed,
            pending: Vec::new(),
        })
    }

    fn remember(&mut self, index: &[u32], views: &[Tensor]) -> Result<()> {
        let index = gather_index(index, self.comm.as_ref())?;
        let views = views.iter().map(|z| self.comm.all_gather(z)).collect::<Result<Vec<_>>>()?;
        self.memory.remember(&index, &views)
    }
}

impl Method for DeepCluster {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&mut self, batch: &Batch) -> Result<()> {
        let embeddings = no_grad(|| hold_statistics(|| self.embed(batch)))?;
        self.remember(&batch.index, &embeddings.live[..REMEMBERED])
    }

    fn before_step(&mut self, step: Step) -> Result<()> {
        match step.index.is_multiple_of(step.steps_per_epoch.max(1)) {
            true => self.memory.cluster(self.config.kmeans_iterations, self.seed, step.epoch),
            false => Ok(()),
        }
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings> {
        let global = crops::check(&batch.views)?;
        let z = self.encoder.embed_fused(&batch.views.0)?;
        let watched = z.iter().take(2).map(Tensor::detach).collect();
        let live = z.iter().map(l2_normalize).collect::<Result<_>>()?;
        Ok(Embeddings { live, fixed: Vec::new(), watched, global })
    }

    fn objective(&mut self, embeddings: &Embeddings, index: &[u32]) -> Result<Forward> {
        let mut losses = Vec::new();
        for (head, centers) in self.memory.centers.iter().enumerate() {
            let (centers, labels) = (centers.as_detached_tensor().t()?, self.memory.labels(head, index)?);
            for z in &embeddings.live {
                losses.push(self.objective.loss_over(&z.matmul(&centers)?, &labels, self.comm.as_ref())?);
            }
        }
        let views = embeddings.live.iter().take(REMEMBERED).map(Tensor::detach).collect();
        self.pending.push((index.to_vec(), views));
        let clusters = self.config.prototypes.iter().map(|&count| (count as f64).ln()).sum::<f64>();
        let trivial_loss = Some(clusters / self.config.prototypes.len() as f64);
        Ok(Forward { trivial_loss, ..Forward::new(crops::mean(&losses, 1.0)?, embeddings) })
    }

    fn couples_batch(&self) -> bool {
        false
    }

    fn after_step(&mut self, _step: Step) -> Result<()> {
        for (index, views) in std::mem::take(&mut self.pending) {
            self.remember(&index, &views)?;
        }
        Ok(())
    }

    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn backbone(&self) -> &dyn Backbone {
        self.encoder.backbone.as_ref()
    }

    fn extra_state(&self) -> Vec<(&'static str, &ParamStore)> {
        vec![("memory", &self.memory.state)]
    }
}
