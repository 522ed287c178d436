//! What the forward pass leaves to the backward pass.

use candle_core::{Result, Tensor, bail};

use super::cpu::{self, Incoming, InputGradient, Normalizer, Sums};
#[cfg(feature = "cuda")]
use super::cuda;
use super::ranks::sum_ranks;
use super::{NAME, Options, check};
use crate::dense::Element;

/// What the forward pass leaves to the backward pass: a few values per channel and group, where x is.
#[derive(Clone, Debug)]
pub struct Saved {
    options: Options,
    channels: usize,
    kept: Kept,
}

/// For each of the parts of x that have statistics of their own, in order.
#[derive(Clone, Debug)]
enum Kept {
    Host(Vec<Normalizer>),
    #[cfg(feature = "cuda")]
    Device(cuda::Kept),
}

impl Saved {
    pub(super) fn on_host(options: &Options, channels: usize, groups: Vec<Normalizer>) -> Self {
        Self { options: options.clone(), channels, kept: Kept::Host(groups) }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn on_device(options: &Options, channels: usize, kept: cuda::Kept) -> Self {
        Self { options: options.clone(), channels, kept: Kept::Device(kept) }
    }

    /// An error in words unless `t` has the shape and type of `x`, and x the channels and groups of the forward pass.
    pub(super) fn fits(&self, name: &str, t: &Tensor, x: &Tensor) -> Result<()> {
        let channels = check(x, None, self.groups())?;
        if t.dims() != x.dims() || t.dtype() != x.dtype() {
            bail!("{NAME}: {name} is {:?} {:?}, x {:?} {:?}", t.dtype(), t.dims(), x.dtype(), x.dims())
        }
        if channels != self.channels {
            bail!("{NAME}: x has {channels} channels, the forward pass had {}", self.channels)
        }
        Ok(())
    }

    /// The same for all tensors of a backward pass.
    pub(super) fn all_fit(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<()> {
        self.fits("x", x, x)?;
        self.fits("y", y, x)?;
        self.fits("dy", dy, x)
    }

    pub(super) fn relu(&self) -> bool {
        self.options.relu
    }

    pub(super) fn groups(&self) -> usize {
        self.options.groups
    }

    #[cfg(feature = "cuda")]
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// What a forward pass on the CPU left.
    pub(super) fn host(&self) -> Result<&[Normalizer]> {
        match &self.kept {
            Kept::Host(groups) => Ok(groups),
            #[cfg(feature = "cuda")]
            Kept::Device(_) => bail!("{NAME}: the forward pass was on a GPU, x is on the CPU"),
        }
    }

    /// What a forward pass on a GPU left.
    #[cfg(feature = "cuda")]
    pub(super) fn device(&self) -> Result<&cuda::Kept> {
        match &self.kept {
            Kept::Device(kept) => Ok(kept),
            Kept::Host(_) => bail!("{NAME}: the forward pass was on the CPU, x is on a GPU"),
        }
    }

    /// Sums of each group, with dy unmasked by y; `recompute`: it must still go through the ReLU, if there is one.
    pub(super) fn sums<T: Element>(&self, dy: &[T], x: &[T], recompute: bool) -> Result<Vec<Sums>> {
        let part = x.len() / self.groups();
        let groups = self.host()?.iter().zip(dy.chunks_exact(part).zip(x.chunks_exact(part)));
        let incoming = if self.relu() && recompute { Incoming::Recompute } else { Incoming::Masked };
        Ok(groups.map(|(norm, (dy, x))| cpu::backward_sums(incoming(dy), x, norm)).collect())
    }

    /// A group's sums over all ranks.
    pub(super) fn all_sums(&self, sums: &[Sums]) -> Result<Vec<Sums>> {
        match &self.options.ranks {
            Some(ranks) => sum_ranks(&**ranks, sums),
            None => Ok(sums.to_vec()),
        }
    }

    /// Whether sums count the rows of other ranks too.
    #[cfg(feature = "cuda")]
    pub(super) fn has_ranks(&self) -> bool {
        self.options.ranks.is_some()
    }

    /// How each group's x becomes its gradient; `recompute` as in [`Self::sums`], no sums where the statistics are constants.
    pub(super) fn input_gradients(
        &self,
        gamma: &[f32],
        recompute: bool,
        sums: Option<&[Sums]>,
    ) -> Result<Vec<InputGradient>> {
        let of = |i: usize| sums.map(|sums| &sums[i]);
        let relu = self.relu() && recompute;
        let groups = self.host()?.iter().enumerate();
        Ok(groups.map(|(i, norm)| InputGradient::new(relu, gamma, norm, of(i))).collect())
    }
}
