//! Fully connected layer on slices: kernels of our own with AVX-512, else three products of the gemm crate.
//!
//! Both cut the outputs into fixed blocks and run every sum in one order, so the bits of the result do not depend on the
//! number of threads (tested in mod.rs).

use std::borrow::Cow;

use half::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::words;
use crate::dense::{self, Element};
use crate::isa::Isa;
use crate::matmul::{View, matmul_shared};
#[cfg(target_arch = "x86_64")]
use crate::words::{Unit, Values, unit::choose};

/// Extents: `x` `[rows, inputs]`, `w` `[outputs, inputs]`, `y` `[rows, outputs]`.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// N.
    pub rows: usize,
    /// I.
    pub inputs: usize,
    /// O.
    pub outputs: usize,
}

/// What a layer computes on: f32, or bf16 with weights rounded to it and sums in f32.
pub(super) trait Number: Element {
    fn f32s(values: &[Self]) -> Cow<'_, [f32]>;
    fn from_f32s(values: Vec<f32>) -> Vec<Self>;
    /// The weights as this type sees them.
    fn weights(w: &[f32]) -> Cow<'_, [f32]>;
    /// What multiplies numbers of this type under this instruction set, if there are kernels for it.
    #[cfg(target_arch = "x86_64")]
    fn unit(isa: Isa) -> Option<Unit>;
    #[cfg(target_arch = "x86_64")]
    fn values(values: &[Self]) -> Values<'_>;
}

impl Number for f32 {
    fn f32s(values: &[Self]) -> Cow<'_, [f32]> {
        values.into()
    }

    fn from_f32s(values: Vec<f32>) -> Vec<Self> {
        values
    }

    fn weights(w: &[f32]) -> Cow<'_, [f32]> {
        w.into()
    }

    #[cfg(target_arch = "x86_64")]
    fn unit(isa: Isa) -> Option<Unit> {
        (isa >= Isa::Avx512).then_some(Unit::F32)
    }

    #[cfg(target_arch = "x86_64")]
    fn values(values: &[Self]) -> Values<'_> {
        Values::F32(values)
    }
}

impl Number for bf16 {
    fn f32s(values: &[Self]) -> Cow<'_, [f32]> {
        dense::widen(values).into()
    }

    fn from_f32s(values: Vec<f32>) -> Vec<Self> {
        dense::narrow(&values)
    }

    fn weights(w: &[f32]) -> Cow<'_, [f32]> {
        dense::round(w).into()
    }

    #[cfg(target_arch = "x86_64")]
    fn unit(isa: Isa) -> Option<Unit> {
        choose(isa)
    }

    #[cfg(target_arch = "x86_64")]
    fn values(values: &[Self]) -> Values<'_> {
        Values::Bf16(values)
    }
}

/// `y = x w^T + bias`.
pub(super) fn value<T: Number>(isa: Isa, x: &[T], w: &[f32], bias: Option<&[f32]>, e: Extents) -> Vec<T> {
    let dims = [e.rows, e.inputs, e.outputs];
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = T::unit(isa) {
        return match bias {
            Some(bias) => words::product(unit, T::values(x), w, dims, true, |k, sum| T::narrow(sum + bias[k])),
            None => words::product(unit, T::values(x), w, dims, true, |_, sum| T::narrow(sum)),
        };
    }
    let (mut y, x, w) = (vec![0.0; e.rows * e.outputs], T::f32s(x), T::weights(w));
    let (a, b) = (View::rows(&x, e.inputs), View::rows(&w, e.inputs).t());
    matmul_shared(&mut y, 1.0, a, b, [dims[0], dims[2], dims[1]]);
    if let Some(bias) = bias {
        for row in y.chunks_exact_mut(e.outputs) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    T::from_f32s(y)
}

/// `dx = dy w`.
pub(super) fn to_inputs<T: Number>(isa: Isa, dy: &[T], w: &[f32], e: Extents) -> Vec<T> {
    let dims = [e.rows, e.outputs, e.inputs];
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = T::unit(isa) {
        return words::product(unit, T::values(dy), w, dims, false, |_, sum| T::narrow(sum));
    }
    let (mut dx, dy, w) = (vec![0.0; e.rows * e.inputs], T::f32s(dy), T::weights(w));
    let (a, b) = (View::rows(&dy, e.outputs), View::rows(&w, e.inputs));
    matmul_shared(&mut dx, 1.0, a, b, [dims[0], dims[2], dims[1]]);
    T::from_f32s(dx)
}

/// `dw = dy^T x`.
pub(super) fn to_weights<T: Number>(isa: Isa, dy: &[T], x: &[T], e: Extents) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = T::unit(isa) {
        return words::weight_gradient(unit, T::values(dy), T::values(x), e);
    }
    let (mut dw, dy, x) = (vec![0.0; e.outputs * e.inputs], T::f32s(dy), T::f32s(x));
    let (a, b) = (View::rows(&dy, e.outputs).t(), View::rows(&x, e.inputs));
    matmul_shared(&mut dw, 1.0, a, b, [e.outputs, e.inputs, e.rows]);
    dw
}

/// Column sums of dy, in f64.
pub(super) fn to_bias<T: Number>(dy: &[T], e: Extents) -> Vec<f32> {
    /// Columns of a task.
    const COLUMNS: usize = 512;
    let mut db = vec![0f32; e.outputs];
    db.par_chunks_mut(COLUMNS).enumerate().for_each(|(task, db)| {
        let mut sums = vec![0f64; db.len()];
        for row in dy.chunks_exact(e.outputs) {
            for (sum, &v) in sums.iter_mut().zip(&row[task * COLUMNS..]) {
                *sum += f64::from(v.widen());
            }
        }
        db.iter_mut().zip(sums).for_each(|(db, sum)| *db = sum as f32);
    });
    db
}

/// `y = x w^T + bias` in f32.
pub fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, e: Extents) -> Vec<f32> {
    value(Isa::detect(), x, w, bias, e)
}

/// `y = x w^T` of bf16 rows, with `w` rounded to bf16 on the way; sums are f32 and stay so.
pub fn forward_bf16(x: &[bf16], w: &[f32], e: Extents) -> Vec<f32> {
    let dims = [e.rows, e.inputs, e.outputs];
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = bf16::unit(Isa::detect()) {
        return words::product(unit, Values::Bf16(x), w, dims, true, |_, sum| sum);
    }
    let (mut y, x, w) = (vec![0.0; e.rows * e.outputs], bf16::f32s(x), bf16::weights(w));
    let (a, b) = (View::rows(&x, e.inputs), View::rows(&w, e.inputs).t());
    matmul_shared(&mut y, 1.0, a, b, [dims[0], dims[2], dims[1]]);
    y
}

/// `dw = dy^T x` in f32.
pub fn weight_gradient(dy: &[f32], x: &[f32], e: Extents) -> Vec<f32> {
    to_weights(Isa::detect(), dy, x, e)
}

/// Column sums of dy, in f64.
pub fn bias_gradient(dy: &[f32], e: Extents) -> Vec<f32> {
    to_bias(dy, e)
}
