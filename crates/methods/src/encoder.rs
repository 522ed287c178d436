//! Backbone and projector, and their slowly moving copy.

use candle_core::{DType, Result, Tensor};
use diptych_heads::{Block, Mlp};
use diptych_kernels::optimizer::ema_steps;
use diptych_nn::{Backbone, Group, ParamStore, no_grad};

use crate::Build;

/// A backbone with a projector behind it: `x` `[N, H, W, C]` to `z` `[N, D]`.
pub(crate) struct Encoder {
    pub(crate) backbone: Box<dyn Backbone>,
    pub(crate) projector: Mlp,
    /// Groups of rows on this rank with batch statistics of their own.
    groups: usize,
}

impl Encoder {
    /// Asks `params` for both, as `backbone` and `projector`; `blocks` describes the projector for F features.
    pub(crate) fn new(params: &mut ParamStore, build: &Build, blocks: &dyn Fn(usize) -> Vec<Block>) -> Result<Self> {
        let backbone = (build.backbone)(&mut params.scope(Group::Trunk).pp("backbone"))?;
        let features = backbone.out_dim();
        let projector = Mlp::new(&mut params.scope(Group::Projector).pp("projector"), features, &blocks(features))?;
        let groups = params.norm_groups().on_this_rank();
        Ok(Self { backbone, projector, groups })
    }

    /// z of one view, in training, `[N, D]` f32.
    pub(crate) fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.backbone.forward_t(x, true)?;
        self.projector.forward(&h, true)?.to_dtype(DType::F32)
    }

    /// z of several views. Neighbors of one size share a forward pass of the backbone, and all views one of the projector, and so their batch
    /// statistics.
    pub(crate) fn embed_fused(&self, views: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut h = Vec::with_capacity(views.len());
        for run in views.chunk_by(|a, b| a.dims() == b.dims()) {
            let x = cat_by_group(run, self.groups)?;
            h.extend(split_by_group(&self.backbone.forward_t(&x, true)?, run.len(), self.groups)?);
        }
        let z = self.projector.forward(&cat_by_group(&h, self.groups)?, true)?.to_dtype(DType::F32)?;
        split_by_group(&z, views.len(), self.groups)
    }
}

/// The rows of all views in one tensor, in which each group of images has its rows, of all views, together.
fn cat_by_group(views: &[Tensor], groups: usize) -> Result<Tensor> {
    let [first, ..] = views else { candle_core::bail!("a method was given no view") };
    if views.len() == 1 {
        return Ok(first.clone());
    }
    let rows = first.dim(0)? / groups;
    let parts: Vec<Tensor> = (0..groups)
        .flat_map(|group| views.iter().map(move |view| view.narrow(0, group * rows, rows)))
        .collect::<Result<_>>()?;
    Tensor::cat(&parts, 0)
}

/// What [`cat_by_group`] joined.
fn split_by_group(joined: &Tensor, views: usize, groups: usize) -> Result<Vec<Tensor>> {
    let rows = joined.dim(0)? / views / groups;
    let part = |view: usize, group: usize| joined.narrow(0, (group * views + view) * rows, rows);
    (0..views)
        .map(|view| match groups {
            1 => part(view, 0),
            _ => Tensor::cat(&(0..groups).map(|group| part(view, group)).collect::<Result<Vec<_>>>()?, 0),
        })
        .collect()
}

/// A second encoder that no gradient reaches: it follows the first as an exponential moving average.
///
/// It covers weights, biases and norms; running statistics are its own. It trains on batch statistics, as the official codes do.
pub(crate) struct Target {
    pub(crate) params: ParamStore,
    encoder: Encoder,
}

impl Target {
    /// An encoder as described, drawn from `seed`; with [`Self::copy`] it begins where the online one does.
    pub(crate) fn new(build: &Build, seed: u64, blocks: &dyn Fn(usize) -> Vec<Block>) -> Result<Self> {
        let mut params = build.store(seed)?;
        let encoder = Encoder::new(&mut params, build, blocks)?;
        Ok(Self { params, encoder })
    }

    /// Takes over the values of `online`.
    pub(crate) fn copy(self, online: &ParamStore) -> Result<Self> {
        self.follow(online, 0.0)?;
        Ok(self)
    }

    /// `target = tau target + (1 - tau) online`.
    pub(crate) fn follow(&self, online: &ParamStore, tau: f64) -> Result<()> {
        let online: Vec<(&str, Tensor)> = self
            .params
            .trainable()
            .map(|(name, _)| match online.get(name) {
                Some(param) => Ok((name, param.var.as_detached_tensor())),
                None => candle_core::bail!("the online network has no parameter {name}"),
            })
            .collect::<Result<_>>()?;
        let pairs: Vec<_> = self
            .params
            .trainable()
            .zip(&online)
            .map(|((name, target), (_, value))| (name, &target.var, value))
            .collect();
        ema_steps(&pairs, tau)
    }

    /// z of one view, without a graph.
    pub(crate) fn embed(&self, x: &Tensor) -> Result<Tensor> {
        Ok(no_grad(|| self.encoder.embed(x))?.detach())
    }
}
