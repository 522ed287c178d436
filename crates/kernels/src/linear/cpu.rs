//! Fully connected layer on slices: three products of the gemm crate.
//!
//! gemm shares out blocks of the output among rayon's threads and runs the inner dimension in order within each, so the
//! bits of the result do not depend on their number (tested in mod.rs).

use crate::matmul::{View, matmul_shared};

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

/// `y = x w^T + bias`.
pub fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, e: Extents) -> Vec<f32> {
    let mut y = vec![0.0; e.rows * e.outputs];
    let (a, b) = (View::rows(x, e.inputs), View::rows(w, e.inputs).t());
    matmul_shared(&mut y, 1.0, a, b, [e.rows, e.outputs, e.inputs]);
    if let Some(bias) = bias {
        for row in y.chunks_exact_mut(e.outputs) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    y
}

/// `dx = dy w`.
pub fn input_gradient(dy: &[f32], w: &[f32], e: Extents) -> Vec<f32> {
    let mut dx = vec![0.0; e.rows * e.inputs];
    let (a, b) = (View::rows(dy, e.outputs), View::rows(w, e.inputs));
    matmul_shared(&mut dx, 1.0, a, b, [e.rows, e.inputs, e.outputs]);
    dx
}

/// `dw = dy^T x`.
pub fn weight_gradient(dy: &[f32], x: &[f32], e: Extents) -> Vec<f32> {
    let mut dw = vec![0.0; e.outputs * e.inputs];
    let (a, b) = (View::rows(dy, e.outputs).t(), View::rows(x, e.inputs));
    matmul_shared(&mut dw, 1.0, a, b, [e.outputs, e.inputs, e.rows]);
    dw
}

/// Column sums of dy, in f64.
pub fn bias_gradient(dy: &[f32], e: Extents) -> Vec<f32> {
    let mut sums = vec![0f64; e.outputs];
    for row in dy.chunks_exact(e.outputs) {
        for (sum, &v) in sums.iter_mut().zip(row) {
            *sum += f64::from(v);
        }
    }
    sums.into_iter().map(|v| v as f32).collect()
}
