//! The backward pass of a loss.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

thread_local! {
    /// Parameters' gradients of the backward pass that [`backward`] runs on this thread, if it runs one.
    static DELIVERED: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// Gradients of all variables that lead to `loss`, as `loss.backward()` gives them and faster.
///
/// Segments hand the gradients of their parameters over directly; Candle's own way fills a tensor of zeros for each and adds to it, which
/// for a projector of 150 million weights moves gigabytes in every step.
///
/// # Errors
/// If a tensor operation fails, or a segment of this graph was walked back before.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let outer = Delivery::begin();
    let gradients = loss.backward();
    let delivered = outer.end();
    let mut gradients = gradients?;
    for (id, gradient) in delivered {
        let sum = match gradients.get_id(id) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        gradients.insert_id(id, sum);
    }
    Ok(gradients)
}

/// Takes gradients if [`backward`] is at work on this thread, else gives them back.
pub(super) fn deliver(gradients: HashMap<TensorId, Tensor>) -> Result<Option<HashMap<TensorId, Tensor>>> {
    DELIVERED.with_borrow_mut(|delivered| {
        let Some(delivered) = delivered else { return Ok(Some(gradients)) };
        for (id, gradient) in gradients {
            let sum = match delivered.remove(&id) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            delivered.insert(id, sum);
        }
        Ok(None)
    })
}

/// Holds what was being delivered before, and puts it back even if the pass panics.
struct Delivery {
    outer: Option<HashMap<TensorId, Tensor>>,
}

impl Delivery {
    fn begin() -> Self {
        Self { outer: DELIVERED.replace(Some(HashMap::new())) }
    }

    fn end(mut self) -> HashMap<TensorId, Tensor> {
        DELIVERED.replace(self.outer.take()).unwrap_or_default()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if std::thread::panicking() {
            DELIVERED.set(self.outer.take());
        }
    }
}
