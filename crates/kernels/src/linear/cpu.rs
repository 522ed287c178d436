//! Fully connected layer on slices: three products of the gemm crate.
//!
//! gemm shares out blocks of the output among rayon's threads and runs the inner dimension in order within each, so the bits of the
//! result do not depend on their number (tested in mod.rs).

use gemm::Parallelism;

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

/// A row-major matrix, or the transpose of one.
struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    fn new(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: cols, col_stride: 1 }
    }

    fn transposed(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: 1, col_stride: cols }
    }
}

/// `out = a b`, or `out += a b`; `out` is row-major `[m, n]`, a `[m, k]`, b `[k, n]`.
fn product(out: &mut [f32], add: bool, a: &Matrix, b: &Matrix, [m, n, k]: [usize; 3]) {
    assert!(
        out.len() == m * n && a.data.len() == m * k && b.data.len() == k * n,
        "linear: a slice is not its matrix [{m}, {n}, {k}]"
    );
    // SAFETY: the three slices hold exactly m n, m k and k n elements, as just asserted, each addressed row-major or as the transpose of
    // a row-major matrix; `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

/// `y = x w^T + bias`.
pub fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, e: Extents) -> Vec<f32> {
    let mut y = match bias {
        Some(bias) => bias.repeat(e.rows),
        None => vec![0.0; e.rows * e.outputs],
    };
    let (a, b) = (Matrix::new(x, e.inputs), Matrix::transposed(w, e.inputs));
    product(&mut y, bias.is_some(), &a, &b, [e.rows, e.outputs, e.inputs]);
    y
}

/// `dx = dy w`.
pub fn input_gradient(dy: &[f32], w: &[f32], e: Extents) -> Vec<f32> {
    let mut dx = vec![0.0; e.rows * e.inputs];
    let (a, b) = (Matrix::new(dy, e.outputs), Matrix::new(w, e.inputs));
    product(&mut dx, false, &a, &b, [e.rows, e.inputs, e.outputs]);
    dx
}

/// `dw = dy^T x`.
pub fn weight_gradient(dy: &[f32], x: &[f32], e: Extents) -> Vec<f32> {
    let mut dw = vec![0.0; e.outputs * e.inputs];
    let (a, b) = (Matrix::transposed(dy, e.outputs), Matrix::new(x, e.inputs));
    product(&mut dw, false, &a, &b, [e.outputs, e.inputs, e.rows]);
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
