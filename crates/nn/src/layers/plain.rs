//! Layers without parameters.

use candle_core::Result;
use diptych_kernels::{pool, relu as rectifier};

use crate::{Tape, Value};

/// Maximum over windows, with PyTorch's rules: `[N, H, W, C]` to `[N, H', W', C]`.
///
/// # Errors
/// If the window does not fit the padded image.
pub fn max_pool2d(tape: &mut Tape, x: &Value, kernel: usize, stride: usize, padding: usize) -> Result<Value> {
    let (y, places) = pool::max_forward(x.tensor(), kernel, stride, padding)?;
    let input = x.tensor().dims4()?;
    Ok(tape.push(y, &[], |_| {
        let node = x.node();
        move |dy, gradients| match node {
            Some(_) => gradients.add(node, pool::max_backward(&dy, &places, input.into(), kernel, stride, padding)?),
            None => Ok(()),
        }
    }))
}

/// Mean over height and width: `[N, H, W, C]` to `[N, C]`.
///
/// # Errors
/// If `x` is not of rank 4 or has no pixel.
pub fn global_avg_pool(tape: &mut Tape, x: &Value) -> Result<Value> {
    let y = pool::average_forward(x.tensor())?;
    let input = x.tensor().dims4()?;
    Ok(tape.push(y, &[], |_| {
        let node = x.node();
        move |dy, gradients| match node {
            Some(_) => gradients.add(node, pool::average_backward(&dy, input.into())?),
            None => Ok(()),
        }
    }))
}

/// `max(x, 0)`, with derivative 0 at 0.
///
/// # Errors
/// If the type of `x` is not supported.
pub fn relu(tape: &mut Tape, x: &Value) -> Result<Value> {
    let y = rectifier::relu(x.tensor())?;
    Ok(tape.push(y, &[], |y| {
        let (node, y) = (x.node(), y.clone());
        move |dy, gradients| match node {
            Some(_) => gradients.add(node, rectifier::relu_backward(y.tensor(), &dy)?),
            None => Ok(()),
        }
    }))
}
