//! A convolution without bias, channels last.

use candle_core::{Device, Result, Tensor, Var, bail};
use diptych_kernels::conv2d;

use crate::{Init, Role, Scope, Tape, Value, segment};

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

    /// Where its weight lies.
    pub fn device(&self) -> &Device {
        self.weight.device()
    }

    /// Convolves `x` `[N, H, W, I]`, as a segment of its own.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        segment(x, train, |tape, x| self.record(tape, &x))
    }

    /// Convolves `x` `[N, H, W, I]` on a tape.
    ///
    /// # Errors
    /// If the channels differ or the kernel is larger than the padded image.
    pub fn record(&self, tape: &mut Tape, x: &Value) -> Result<Value> {
        let (stride, padding) = (self.stride, self.padding);
        let w = self.weight.as_detached_tensor();
        let y = conv2d::forward(x.tensor(), &w, stride, padding)?;
        Ok(tape.push(y, &[&self.weight], |_| {
            let (var, x) = (self.weight.clone(), x.clone());
            move |dy, gradients| {
                let (input, node) = (x.tensor().dims4()?, x.node());
                let &[_, height, width, _] = w.dims() else { bail!("a convolution's weight is {:?}", w.shape()) };
                gradients.param(&var, conv2d::weight_grad(x.tensor(), &dy, [height, width], stride, padding)?);
                drop(x);
                let Some(node) = node else { return Ok(()) };
                let add = gradients.take(node);
                let dx = conv2d::input_grad(&w, &dy, input.into(), stride, padding, add.as_ref())?;
                gradients.add(Some(node), dx)
            }
        }))
    }
}
