//! Which parameters decay, adapt, and learn at which rate: by role and group.

use diptych_nn::{Group, Param, ParamStore, Role};
use serde::{Deserialize, Serialize};

use crate::config::{Algorithm, OptimConfig};

/// Which roles decay (and with LARS adapt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Weights, biases and norms (MoCo, SimSiam).
    All,
    /// Weights only (SimCLR, BYOL, Barlow Twins).
    Weights,
}

/// `[optim.group_lr]`: factors on the learning rate of whole groups.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupLr {
    /// For the backbone.
    pub trunk: f64,
    /// For the projector.
    pub projector: f64,
    /// For the predictor.
    pub predictor: f64,
    /// For the prototypes.
    pub prototypes: f64,
}

impl Default for GroupLr {
    fn default() -> Self {
        Self { trunk: 1.0, projector: 1.0, predictor: 1.0, prototypes: 1.0 }
    }
}

impl GroupLr {
    /// The factors with their keys.
    pub(crate) fn entries(&self) -> [(&'static str, f64); 4] {
        [
            ("trunk", self.trunk),
            ("projector", self.projector),
            ("predictor", self.predictor),
            ("prototypes", self.prototypes),
        ]
    }
}

/// Groups whose learning rate keeps its peak while the schedule goes on, as `optim.constant_lr` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConstantLr {
    /// The predictor's (SimSiam, section 4.2).
    pub predictor: bool,
    /// The peak.
    pub lr: f64,
}

/// How an optimizer treats one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Treatment {
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// The learning rate that stands in the schedule's place, if there is one.
    pub constant_lr: Option<f64>,
    /// Whether weight decay applies, and with LARS the layer-wise ratio too.
    pub decays: bool,
}

/// From a parameter's role and group to its treatment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Which roles decay and adapt.
    pub decay: Decay,
    /// Factor on the learning rate of biases and norms: 0.0048 / 0.2 in the official Barlow Twins code.
    pub bias_lr_ratio: f64,
    /// Factors on the learning rate of groups.
    pub group_lr: GroupLr,
    /// Groups that the schedule does not reach.
    pub constant_lr: ConstantLr,
}

impl Default for Rules {
    /// Only weights decay; one learning rate for all.
    fn default() -> Self {
        Self {
            decay: Decay::Weights,
            bias_lr_ratio: 1.0,
            group_lr: GroupLr::default(),
            constant_lr: ConstantLr::default(),
        }
    }
}

impl Treatment {
    /// The learning rate of this parameter where the schedule says `lr`.
    pub(crate) fn lr(&self, lr: f64) -> f64 {
        self.constant_lr.unwrap_or(lr) * self.lr_scale
    }
}

impl Rules {
    /// The treatment of a parameter; `None` where no optimizer may touch it (buffers, frozen parameters).
    pub fn of(&self, param: &Param) -> Option<Treatment> {
        let group = match param.group {
            Group::Trunk => self.group_lr.trunk,
            Group::Projector => self.group_lr.projector,
            Group::Predictor => self.group_lr.predictor,
            Group::Prototypes => self.group_lr.prototypes,
            Group::Frozen => return None,
        };
        let constant = self.constant_lr.predictor && param.group == Group::Predictor;
        let constant_lr = constant.then_some(self.constant_lr.lr);
        match param.role {
            Role::Weight => Some(Treatment { lr_scale: group, constant_lr, decays: true }),
            Role::Bias | Role::Norm => {
                Some(Treatment { lr_scale: group * self.bias_lr_ratio, constant_lr, decays: self.decay == Decay::All })
            }
            Role::Buffer => None,
        }
    }
}

/// The parameter groups in words, one line each: how many tensors and values decay, adapt, and at which learning rate
/// (stated at batch 256, as `optim.lr` is).
pub fn describe(params: &ParamStore, config: &OptimConfig) -> Vec<String> {
    let rules = config.rules();
    let mut lines = vec![headline(config)];
    // In the order in which the groups are first met, by name.
    let mut seen: Vec<(Option<Treatment>, usize, usize)> = Vec::new();
    for (_, param) in params.iter() {
        let treatment = rules.of(param);
        let values = param.var.elem_count();
        match seen.iter_mut().find(|(other, ..)| *other == treatment) {
            Some((_, tensors, sum)) => {
                *tensors += 1;
                *sum += values;
            }
            None => seen.push((treatment, 1, values)),
        }
    }
    seen.sort_by_key(|(treatment, _, values)| (treatment.is_none(), std::cmp::Reverse(*values)));
    for (treatment, tensors, values) in seen {
        let text = match treatment {
            None => "buffers and frozen parameters: not touched".to_string(),
            Some(t) => {
                let lr = config.lr * t.lr_scale;
                let decays = t.decays && config.weight_decay > 0.0;
                let decay = if decays { format!("decay {}", config.weight_decay) } else { "no decay".to_string() };
                let adapts = match (config.name, t.decays) {
                    (Algorithm::Sgd | Algorithm::Adam, _) => "",
                    (Algorithm::Lars, true) => ", adapted by layer",
                    (Algorithm::Lars, false) => ", not adapted",
                };
                let constant = if t.constant_lr.is_some() { ", constant" } else { "" };
                format!("learning rate {} (at batch 256){constant}, {decay}{adapts}", short(lr))
            }
        };
        lines.push(format!("{} tensors, {} values: {text}", grouped(tensors), grouped(values)));
    }
    lines
}

fn headline(config: &OptimConfig) -> String {
    let momentum = config.momentum;
    match config.name {
        Algorithm::Sgd if config.nesterov == Some(true) => format!("sgd, nesterov momentum {momentum}"),
        Algorithm::Sgd => format!("sgd, momentum {momentum}"),
        Algorithm::Adam => format!("adam, beta1 {momentum}, beta2 {}", config.beta2.unwrap_or(0.999)),
        Algorithm::Lars => {
            let (eta, variant) = (config.eta.unwrap_or_default(), config.variant.unwrap_or_default());
            format!("lars ({variant}), momentum {momentum}, eta {eta}")
        }
    }
}

/// A rate without the noise of its last binary digits.
fn short(v: f64) -> f64 {
    format!("{v:.6e}").parse().unwrap_or(v)
}

/// A count with commas.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
