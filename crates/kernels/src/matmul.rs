//! Dense products on slices.
//!
//! Results never depend on the number of threads: gemm shares out blocks of the output and runs the inner dimension in
//! order within each. Callers that share out fixed blocks themselves take [`matmul`], which stays on its thread.

use gemm::Parallelism;

/// A matrix seen in a slice: element (i, j) lies at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// Row-major, `row_stride` elements from row to row.
    pub(crate) fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    /// Whether `rows` x `cols` elements lie inside the slice.
    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// `out = factor * a b`, or `out += factor * a b` when `add`: `out` `[m, n]` with `stride` elements from row to row,
/// `a` `[m, k]`, `b` `[k, n]`.
///
/// # Panics
/// If a matrix does not lie inside its slice.
pub(crate) fn matmul(out: &mut [f32], stride: usize, add: bool, factor: f32, a: View, b: View, dims: [usize; 3]) {
    product(out, stride, [add, false], factor, a, b, dims);
}

/// [`matmul`] into a dense output by all of rayon's threads.
///
/// # Panics
/// If a matrix does not lie inside its slice.
pub(crate) fn matmul_shared(out: &mut [f32], factor: f32, a: View, b: View, [m, n, k]: [usize; 3]) {
    product(out, n, [false, true], factor, a, b, [m, n, k]);
}

/// `out += factor * a b` by all of rayon's threads, `out` dense.
///
/// # Panics
/// If a matrix does not lie inside its slice.
pub(crate) fn add_matmul_shared(out: &mut [f32], factor: f32, a: View, b: View, [m, n, k]: [usize; 3]) {
    product(out, n, [true, true], factor, a, b, [m, n, k]);
}

fn product(
    out: &mut [f32],
    stride: usize,
    [add, shared]: [bool; 2],
    factor: f32,
    a: View,
    b: View,
    [m, n, k]: [usize; 3],
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(stride >= n && (m - 1) * stride + n <= out.len(), "matmul: the output does not hold [{m}, {n}]");
    assert!(a.holds(m, k) && b.holds(k, n), "matmul: an input does not hold its [{m}, {n}, {k}]");
    let parallelism = if shared { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: the three matrices lie inside their slices, as just asserted; rows of `out` do not overlap since
    // `stride >= n`; `out` is borrowed mutably, so it shares no memory with `a` or `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: [1 2; 3 4] [5 6; 7 8]^T = [17 23; 39 53].
    #[test]
    fn products_add_and_scale_into_a_part_of_a_row() {
        let (a, b) = ([1f32, 2.0, 9.0, 3.0, 4.0, 9.0], [5f32, 6.0, 7.0, 8.0]);
        let mut out = [1f32; 6];
        matmul(&mut out, 3, true, 2.0, View::rows(&a, 3), View::rows(&b, 2).t(), [2, 2, 2]);
        assert_eq!(out, [35.0, 47.0, 1.0, 79.0, 107.0, 1.0]);
        matmul(&mut out[1..], 3, false, 1.0, View::rows(&a, 3), View::rows(&b, 2).t(), [2, 2, 2]);
        assert_eq!(out, [35.0, 17.0, 23.0, 79.0, 39.0, 53.0]);
        let mut out = [1f32; 4];
        add_matmul_shared(&mut out, 2.0, View::rows(&a, 3), View::rows(&b, 2).t(), [2, 2, 2]);
        assert_eq!(out, [35.0, 47.0, 79.0, 107.0]);
    }
}
