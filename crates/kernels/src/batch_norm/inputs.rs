//! The arguments of a forward pass, checked once.

use candle_core::{Result, Tensor, bail};

use super::{NAME, Options, check, per_channel};
use crate::dense::{activation, input};

/// Contiguous arguments whose shapes fit.
pub(super) struct Inputs {
    pub(super) x: Tensor,
    pub(super) gamma: Tensor,
    pub(super) beta: Tensor,
    pub(super) residual: Option<Tensor>,
}

impl Inputs {
    /// gamma and beta are 1 and 0 where None.
    pub(super) fn new(
        x: &Tensor,
        gamma: Option<&Tensor>,
        beta: Option<&Tensor>,
        residual: Option<&Tensor>,
        options: &Options,
    ) -> Result<Self> {
        let channels = check(x, residual, options.groups)?;
        let eps = options.eps;
        if !(eps > 0.0 && eps.is_finite()) {
            bail!("{NAME}: eps is {eps}; expected a positive number, usually 1e-5")
        }
        let affine = |name: &str, t: Option<&Tensor>, default: f32| match t {
            Some(t) => per_channel(name, t, channels).and_then(|()| input(NAME, name, t)),
            None => Tensor::full(default, channels, x.device()),
        };
        let (gamma, beta) = (affine("gamma", gamma, 1.0)?, affine("beta", beta, 0.0)?);
        let residual = residual.map(|r| activation(NAME, "residual", r)).transpose()?;
        Ok(Self { x: activation(NAME, "x", x)?, gamma, beta, residual })
    }

    pub(super) fn channels(&self) -> usize {
        self.gamma.elem_count()
    }
}
