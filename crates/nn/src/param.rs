//! A parameter, its role and its group.

use candle_core::Var;

/// What a parameter is for. Weight decay and LARS go by this, never by a name or a number of dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The weight of a convolution or a linear layer.
    Weight,
    /// An additive bias.
    Bias,
    /// Scale or shift of a normalization layer.
    Norm,
    /// A value that is kept and saved, but that no optimizer changes: running statistics, queues.
    Buffer,
}

/// Which part of the model a parameter belongs to. Learning-rate scales and freezing go by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// The backbone, which evaluation and export take away.
    Trunk,
    /// The projector.
    Projector,
    /// The predictor of BYOL and SimSiam.
    Predictor,
    /// The prototypes of SwAV and its kin.
    Prototypes,
    /// Parameters that stay as they were initialized.
    Frozen,
}

/// One tensor of a model.
#[derive(Clone, Debug)]
pub struct Param {
    /// What it is for.
    pub role: Role,
    /// Which part of the model it belongs to.
    pub group: Group,
    /// Its value; layers hold clones of this handle, which share the storage.
    pub var: Var,
}

impl Param {
    /// Whether an optimizer may change it.
    pub fn is_trainable(&self) -> bool {
        self.role != Role::Buffer && self.group != Group::Frozen
    }
}
