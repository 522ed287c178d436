//! A convolution without bias, channels last.

use candle_core::{Result, Tensor, Var};

use super::value;
use crate::{Init, Role, Scope};

/// `[N, H, W, I]` to `[N, H', W', O]`; the weight is `[O, k, k, I]` in memory and `weight` by name.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Var,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Asks `scope` for a `kernel` x `kernel` weight, drawn as torchvision's ResNets do.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn new(
        scope: &mut Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let shape = [outputs, kernel, kernel, inputs];
        let weight = scope.get("weight", &shape, Role::Weight, Init::KaimingNormalFanOut)?;
        Ok(Self { weight, stride, padding })
    }

    /// Convolves `x` `[N, H, W, I]`.
    ///
    /// # Errors
    /// If the channels differ or the kernel is larger than the padded image.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        diptych_kernels::conv2d(x, &value(&self.weight, train), self.stride, self.padding)
    }
}
