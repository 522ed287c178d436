//! A linear layer, `y = x W^T + b`.

use candle_core::{Result, Tensor, Var};
use diptych_kernels::linear;

use crate::{Group, Init, Role, Scope, Tape, Value, segment};

/// What a linear layer adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// Nothing.
    None,
    /// A bias that is learned.
    Trained,
    /// A bias that stays as it was drawn, in [`Group::Frozen`], and gets no gradient (SimSiam's last layer, before its norm).
    Frozen,
}

/// `[N, I]` to `[N, O]`; the weight is `[O, I]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Var,
    bias: Option<Var>,
    kind: Bias,
}

impl Linear {
    /// Asks `scope` for a weight and, if wanted, a bias, both drawn as PyTorch does by default.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        Self::with_bias(scope, inputs, outputs, if bias { Bias::Trained } else { Bias::None })
    }

    /// As [`Self::new`], with a bias that may be frozen.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn with_bias(scope: &mut Scope, inputs: usize, outputs: usize, kind: Bias) -> Result<Self> {
        let weight = scope.get("weight", &[outputs, inputs], Role::Weight, Init::UniformFanIn)?;
        let init = Init::Uniform(1.0 / (inputs.max(1) as f64).sqrt());
        let bias = match kind {
            Bias::None => None,
            Bias::Trained => Some(scope.get("bias", &[outputs], Role::Bias, init)?),
            Bias::Frozen => Some(scope.group(Group::Frozen).get("bias", &[outputs], Role::Bias, init)?),
        };
        Ok(Self { weight, bias, kind })
    }

    /// Maps `x` `[N, I]`, as a segment of its own.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        segment(x, train, |tape, x| self.record(tape, &x))
    }

    /// Maps `x` `[N, I]` on a tape.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn record(&self, tape: &mut Tape, x: &Value) -> Result<Value> {
        let w = self.weight.as_detached_tensor();
        let bias = self.bias.as_ref().map(|bias| bias.as_detached_tensor());
        let y = linear::linear(x.tensor(), &w, bias.as_ref())?;
        let trained = self.bias.as_ref().filter(|_| self.kind == Bias::Trained);
        let mut params = vec![&self.weight];
        params.extend(trained);
        Ok(tape.push(y, &params, |_| {
            let (weight, bias, x) = (self.weight.clone(), trained.cloned(), x.clone());
            move |dy, gradients| {
                gradients.param(&weight, linear::weight_grad(x.tensor(), &dy)?);
                if let Some(bias) = &bias {
                    gradients.param(bias, linear::bias_grad(&dy)?);
                }
                match x.node() {
                    node @ Some(_) => gradients.add(node, linear::input_grad(&w, &dy)?),
                    None => Ok(()),
                }
            }
        }))
    }
}
