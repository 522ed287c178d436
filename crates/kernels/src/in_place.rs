//! Writing over a tensor's own memory: for callers that own their buffers and are done with what is in them.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use crate::dense::Element;

/// Whether two tensors share one storage, wherever in it they lie: one of them cannot be written while the other is read.
pub(crate) fn shares(a: &Tensor, b: &Tensor) -> bool {
    // The address must be taken before the second lock: of one storage, the first could keep the second waiting.
    let address = |t: &Tensor| std::ptr::from_ref::<Storage>(&*t.storage_and_layout().0).addr();
    address(a) == address(b)
}

/// `x`, or a copy of it where it is not contiguous or shares its storage with one of `others`; without its graph.
pub(crate) fn owned(x: Tensor, others: &[&Tensor]) -> Result<Tensor> {
    let x = x.detach();
    match x.is_contiguous() && !others.iter().any(|other| shares(&x, other)) {
        true => Ok(x),
        false => x.force_contiguous(),
    }
}

/// Gives `write` the values of a contiguous CPU tensor, to be changed in place.
///
/// It holds the tensor's write lock: no tensor of the same storage may be read meanwhile ([`shares`]).
pub(crate) fn change<T: Element, R>(op: &str, x: &Tensor, write: impl FnOnce(&mut [T]) -> Result<R>) -> Result<R> {
    let result = Cell::new(None);
    let write = Cell::new(Some(write));
    x.inplace_op1(&Change {
        write: |storage: &mut CpuStorage, layout: &Layout| {
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("{op}: a tensor that is not contiguous")
            };
            let Some(values) = T::values_mut(storage) else {
                bail!("{op}: a tensor is not {:?}, as was expected", T::DTYPE)
            };
            if let Some(write) = write.take() {
                result.set(Some(write(&mut values[start..end])?));
            }
            Ok(())
        },
    })?;
    match result.take() {
        Some(result) => Ok(result),
        None => bail!("{op}: nothing was written"),
    }
}

struct Change<F> {
    write: F,
}

impl<F: Fn(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        (self.write)(storage, layout)
    }
}
