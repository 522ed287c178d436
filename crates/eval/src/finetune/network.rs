//! What is fine-tuned: a backbone, perhaps the first layers of its projector, and a linear classifier.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use diptych_heads::{Mlp, Saved};
use diptych_nn::{Backbone, Bias, Group, Init, Layout, Linear, Param, ParamStore, Role};
use serde::{Deserialize, Serialize};

/// Where the classifier's weight starts; its bias starts at 0, but for [`HeadInit::Uniform`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadInit {
    /// At 0 (SimCLR's official code).
    #[default]
    Zero,
    /// Normal with standard deviation 0.01 (Barlow Twins' and MoCo's official codes).
    Normal,
    /// Uniform, weight and bias, as PyTorch's linear layer (SwAV's official code).
    Uniform,
}

/// A network whose parameters are trained, and set back to what they were before the next training.
pub struct Network {
    trunk: Box<dyn Backbone>,
    projector: Option<(Mlp, usize)>,
    classifier: Option<Linear>,
    params: ParamStore,
    start: HashMap<String, Tensor>,
}

impl Network {
    /// `trunk`, whose parameters are `params`, named as torchvision names them. Their values now are where every training starts.
    ///
    /// # Errors
    /// If the device cannot copy.
    pub fn new(trunk: Box<dyn Backbone>, params: ParamStore) -> Result<Self> {
        let start = params.tensors(Layout::Ohwi)?.into_iter().collect();
        Ok(Self { trunk, projector: None, classifier: None, params, start })
    }

    /// With the first `layers` layers of a projector behind the trunk, which are read from `tensors` (`0.weight`, `1.running_mean`, ...) and trained
    /// with it: SimCLR v2 (Chen et al. 2020, arXiv:2006.10029, section 2) fine-tunes from the first one.
    ///
    /// # Errors
    /// If there are not so many layers, or they do not fit the trunk.
    pub fn with_projector(mut self, layers: usize, tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let saved = Saved::of(tensors)?.first(layers)?;
        let width = self.trunk.out_dim();
        if saved.inputs != width {
            bail!("the projector has {} inputs, the backbone {width} features", saved.inputs)
        }
        let mut scope = self.params.scope(Group::Projector);
        let mlp = Mlp::new(&mut scope.pp("projector"), width, &saved.blocks)?;
        for (name, _) in self.params.below("projector.").iter() {
            let value = tensors.get(name).with_context(|| format!("the projector's {name} is missing"))?;
            self.params.load_tensor(&format!("projector.{name}"), value, Layout::Ohwi)?;
        }
        self.start = self.params.tensors(Layout::Ohwi)?.into_iter().collect();
        self.projector = Some((mlp, saved.places()));
        Ok(self)
    }

    /// Parameters of trunk and projector, as they are now.
    pub fn params(&self) -> &ParamStore {
        &self.params
    }

    /// Sets trunk and projector back to their start, and puts a new classifier behind them: the store of its two parameters.
    ///
    /// Under LARS a classifier is neither adapted nor decayed (SimCLR's official code), which goes by role: `adapts` false makes its weight a norm.
    pub(crate) fn begin(&mut self, classes: usize, init: HeadInit, seed: u64, adapts: bool) -> Result<ParamStore> {
        self.classifier = None;
        self.params.load(&self.start, Layout::Ohwi)?;
        let mut drawn = ParamStore::new(seed, &self.trunk.device());
        let width = self.out_dim();
        let linear = Linear::with_bias(&mut drawn.scope(Group::Trunk).pp("fc"), width, classes, Bias::Trained)?;
        let mut head = ParamStore::new(seed, &self.trunk.device());
        for (name, param) in drawn.iter() {
            let fill = match (init, param.role) {
                (HeadInit::Uniform, _) => None,
                (HeadInit::Normal, Role::Weight) => Some(Init::Normal(0.01)),
                _ => Some(Init::Constant(0.0)),
            };
            if let Some(fill) = fill {
                param.var.set(&fill.draw(param.var.dims(), seed, name, param.var.device())?)?;
            }
            let role = if adapts { param.role } else { Role::Norm };
            head.insert(name, Param { role, ..param.clone() })?;
        }
        self.classifier = Some(linear);
        Ok(head)
    }

    /// All parameters under the names that a torchvision model has whose `fc` is the classifier: `fc.weight` and `fc.bias`, or, with a projector, those of
    /// `fc = Sequential(projector, Linear)`.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn exported(&self, head: &ParamStore) -> Result<ParamStore> {
        let mut all = ParamStore::new(0, &Device::Cpu);
        for (name, param) in self.params.iter() {
            let name = name.strip_prefix("projector.").map_or_else(|| name.to_string(), |rest| format!("fc.{rest}"));
            all.insert(&name, param.clone())?;
        }
        for (name, param) in head.iter() {
            let name = match (&self.projector, name.strip_prefix("fc.")) {
                (Some((_, places)), Some(rest)) => format!("fc.{places}.{rest}"),
                _ => name.to_string(),
            };
            all.insert(&name, param.clone())?;
        }
        Ok(all)
    }
}

/// Images to the logits of the classifier, if there is one, else to features.
impl Backbone for Network {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let mut h = self.trunk.forward_t(x, train)?;
        if let Some((projector, _)) = &self.projector {
            h = projector.forward(&h, train)?;
        }
        match &self.classifier {
            Some(linear) => linear.forward(&h, train),
            None => Ok(h),
        }
    }

    fn stages(&self, x: &Tensor, train: bool) -> candle_core::Result<Vec<Tensor>> {
        self.trunk.stages(x, train)
    }

    fn out_dim(&self) -> usize {
        self.projector.as_ref().map_or_else(|| self.trunk.out_dim(), |(projector, _)| projector.out_dim())
    }

    fn device(&self) -> Device {
        self.trunk.device()
    }
}
