//! The values of many variables at once.
//!
//! Candle lends a variable's storage for writing only inside of an in-place op on that one variable. To update all
//! tensors of a model in one parallel pass, the values are taken out, changed, and put back.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, StorageRef, Tensor, Var, bail};

use super::cpu::Real;

/// The types that optimizers work on.
pub(super) trait Element: Real + Default {
    fn values(storage: &CpuStorage) -> Option<&Vec<Self>>;
    fn values_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>>;
}

macro_rules! element {
    ($t:ty, $variant:ident) => {
        impl Element for $t {
            fn values(storage: &CpuStorage) -> Option<&Vec<Self>> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn values_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}

element!(f32, F32);
element!(f64, F64);

/// A variable's values, out of its storage until this is dropped.
pub(super) struct Taken<'a, T: Element> {
    var: &'a Var,
    all: Vec<T>,
    start: usize,
    end: usize,
}

impl<'a, T: Element> Taken<'a, T> {
    /// Takes the values out.
    ///
    /// # Errors
    /// If the variable is not contiguous, or its values have been taken already.
    pub(super) fn take(op: &str, name: &str, var: &'a Var) -> Result<Self> {
        let mut taken = None;
        lend(var, |storage, layout| {
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("{name}: {op}: a variable is not contiguous")
            };
            match T::values_mut(storage) {
                Some(values) if values.len() >= end => taken = Some((std::mem::take(values), start, end)),
                Some(_) => bail!("{name}: {op}: a variable shares its memory with another tensor of this step"),
                None => bail!("{name}: {op}: a variable is of another type"),
            }
            Ok(())
        })?;
        match taken {
            Some((all, start, end)) => Ok(Self { var, all, start, end }),
            None => bail!("{name}: {op}: a variable is on another device than the first"),
        }
    }

    pub(super) fn values(&mut self) -> &mut [T] {
        &mut self.all[self.start..self.end]
    }
}

impl<T: Element> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.all);
        let back = RefCell::new(Some(all));
        // It worked when the values were taken, so it works now.
        let _ = lend(self.var, |storage, _| {
            if let (Some(values), Some(all)) = (T::values_mut(storage), back.borrow_mut().take()) {
                *values = all;
            }
            Ok(())
        });
    }
}

/// Runs `f` on a variable's storage.
fn lend(var: &Var, f: impl FnMut(&mut CpuStorage, &Layout) -> Result<()>) -> Result<()> {
    var.inplace_op1(&Lend(RefCell::new(f)))
}

/// A closure as an in-place op.
struct Lend<F>(RefCell<F>);

impl<F: FnMut(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Lend<F> {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match self.0.try_borrow_mut() {
            Ok(mut f) => f(storage, layout),
            Err(_) => bail!("optimizer: entered twice"),
        }
    }
}

/// A contiguous tensor's values; holds its read lock.
pub(super) struct Read<'a, T> {
    op: &'a str,
    name: &'a str,
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
    kind: std::marker::PhantomData<T>,
}

impl<'a, T: Element> Read<'a, T> {
    pub(super) fn new(op: &'a str, name: &'a str, tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("{name}: {op}: a tensor is not contiguous") };
        Ok(Self { op, name, storage, start, end, kind: std::marker::PhantomData })
    }

    pub(super) fn values(&self) -> Result<&[T]> {
        let Self { op, name, .. } = self;
        let Storage::Cpu(storage) = &*self.storage else {
            bail!("{name}: {op}: a tensor is on another device than the first variable")
        };
        let Some(values) = T::values(storage) else { bail!("{name}: {op}: a tensor is of another type") };
        match values.get(self.start..self.end) {
            Some(values) => Ok(values),
            None => bail!("{name}: {op}: a tensor shares its memory with a variable of this step"),
        }
    }
}
