//! Matrix products on the device through cuBLAS, row-major.
//!
//! cuBLAS thinks in columns: a row-major matrix is its transpose there, so `C = A B` is asked for as `C^T = B^T A^T`, which moves no value.

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::{WrapErr, gemm_reduced_precision_f32};
use candle_core::{DType, Result, bail};

use super::{Gpu, Memory};

/// A factor or a result, row-major in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    memory: Memory<'a>,
    /// Values from the beginning of one row to that of the next.
    leading: usize,
    /// Values from one matrix of a batch to the next.
    stride: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// Rows that begin `leading` values apart.
    pub(crate) fn rows(memory: Memory<'a>, leading: usize) -> Self {
        Self { memory, leading, stride: 0, transposed: false }
    }

    /// The transpose of what lies in memory; for factors.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// The first of a batch whose matrices begin `stride` values apart.
    pub(crate) fn every(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Whether `batch` matrices of `rows` x `columns` (after a transposition) lie inside of the memory.
    fn holds(&self, batch: usize, [rows, columns]: [usize; 2]) -> bool {
        let [rows, columns] = if self.transposed { [columns, rows] } else { [rows, columns] };
        columns <= self.leading && (batch - 1) * self.stride + (rows - 1) * self.leading + columns <= self.memory.len()
    }

    fn operation(&self) -> sys::cublasOperation_t {
        match self.transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        }
    }
}

/// `c = alpha a b + beta c` with `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]`.
///
/// The factors are both f32 or both bf16; `c` is f32, or bf16 like them. Sums are f32: of exact f32 products, or of TF32 ones where
/// the run allows them ([`gemm_reduced_precision_f32`]), and of bf16 ones also where cuBLAS splits a long sum in parts. With `beta` 0, what was in `c` is not read.
///
/// `op` names the caller in error sentences.
#[expect(clippy::too_many_arguments, reason = "they are those of BLAS, in its order")]
pub(crate) fn gemm(
    op: &str,
    gpu: &Gpu,
    dims: [usize; 3],
    alpha: f32,
    a: Matrix,
    b: Matrix,
    beta: f32,
    c: Matrix,
) -> Result<()> {
    gemm_batched(op, gpu, 1, dims, alpha, a, b, beta, c)
}

/// [`gemm`] for each matrix of a batch ([`Matrix::every`]; a stride of 0 takes one factor for all).
#[expect(clippy::too_many_arguments, reason = "they are those of BLAS, in its order")]
pub(crate) fn gemm_batched(
    op: &str,
    gpu: &Gpu,
    batch: usize,
    [m, n, k]: [usize; 3],
    alpha: f32,
    a: Matrix,
    b: Matrix,
    beta: f32,
    c: Matrix,
) -> Result<()> {
    if batch * m * n == 0 {
        return Ok(());
    }
    let fits = k > 0 && a.holds(batch, [m, k]) && b.holds(batch, [k, n]) && c.holds(batch, [m, n]) && !c.transposed;
    if !fits {
        bail!("{op}: a product of [{m}, {k}] and [{k}, {n}], {batch} times, does not fit {a:?}, {b:?} and {c:?}")
    }
    let [from, other, to] = [a, b, c].map(|matrix| matrix.memory.dtype());
    if from != other || !(to == from || (from, to) == (DType::BF16, DType::F32)) {
        bail!("{op}: no product of {from:?} and {other:?} values to {to:?}")
    }
    let sum = match from == DType::F32 && gemm_reduced_precision_f32() {
        true => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        false => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    let (from, to) = (data_type(op, from)?, data_type(op, to)?);
    let Some([m, n, k, batch, lda, ldb, ldc]) = ints([m, n, k, batch, a.leading, b.leading, c.leading]) else {
        bail!("{op}: a product of [{m}, {k}] and [{k}, {n}] is too large for 32-bit sizes")
    };
    gpu.stream().context().bind_to_thread().w()?;
    let (handle, alpha, beta) = (gpu.device().cublas_handle(), (&raw const alpha).cast(), (&raw const beta).cast());
    let whole_sums = sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    let address = |matrix: &Matrix| matrix.memory.pointer() as *mut _;
    // SAFETY: the handle is the device's, and works in its stream. `holds` has found all values inside of memory that lives until
    // the stream has passed this point; alpha and beta are f32, as the type of the sums is, and read before the call returns.
    unsafe {
        sys::cublasSetMathMode(*handle.handle(), whole_sums).result().w()?;
        let algorithm = sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT;
        let (on_a, on_b) = (a.operation(), b.operation());
        let (by_a, by_b, by_c) = (a.stride as i64, b.stride as i64, c.stride as i64);
        let (a, b, c) = (address(&a), address(&b), address(&c));
        let handle = *handle.handle();
        #[rustfmt::skip]
        let started = match batch {
            1 => result::gemm_ex(
                handle, on_b, on_a, n, m, k, alpha, b, from, ldb, a, from, lda, beta, c, to, ldc, sum, algorithm,
            ),
            _ => result::gemm_strided_batched_ex(
                handle, on_b, on_a, n, m, k, alpha,
                b, from, ldb, by_b, a, from, lda, by_a, beta, c, to, ldc, by_c, batch, sum, algorithm,
            ),
        };
        match started {
            Ok(()) => Ok(()),
            Err(e) => bail!("{op}: cuBLAS refused a product of [{m}, {k}] and [{k}, {n}] ({e})"),
        }
    }
}

fn data_type(op: &str, dtype: DType) -> Result<sys::cudaDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        other => bail!("{op}: no matrix products of {other:?}"),
    }
}

/// All of them as cuBLAS counts, if they fit.
fn ints<const N: usize>(sizes: [usize; N]) -> Option<[i32; N]> {
    let mut out = [0; N];
    for (out, size) in out.iter_mut().zip(sizes) {
        *out = i32::try_from(size).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, device};
    use candle_core::Tensor;

    const NAME: &str = "gemm";

    /// The device of the tests, if it is a GPU: these have nothing to say about another.
    fn gpu() -> Option<Gpu> {
        Gpu::of(&Tensor::zeros(1, DType::F32, &device().unwrap()).unwrap())
    }

    fn on_device(a: &Array, dtype: DType) -> Tensor {
        a.tensor().unwrap().to_dtype(dtype).unwrap()
    }

    /// Every transposition and type against three loops in f64, as parts of longer rows, on top of what is in `c`, in batches.
    #[test]
    fn products_equal_three_loops() {
        let Some(gpu) = gpu() else { return };
        let (batch, [m, n, k]) = (2, [5, 7, 9]);
        for (from, to) in [(DType::F32, DType::F32), (DType::BF16, DType::BF16), (DType::BF16, DType::F32)] {
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let stored = |rows, columns, t: bool| if t { [columns, rows + 1] } else { [rows, columns + 1] };
                let ([ra, la], [rb, lb], lc) = (stored(m, k, ta), stored(k, n, tb), n + 2);
                let a = Array::random(&[batch, ra, la], 1).rounded();
                let b = Array::random(&[batch, rb, lb], 2).rounded();
                let c = Array::random(&[batch, m, lc], 3).rounded();
                let mut expected = c.data.clone();
                for (i, to) in expected.iter_mut().enumerate().filter(|(i, _)| i % lc < n) {
                    let (at, row, column) = (i / lc / m, i / lc % m, i % lc);
                    let a = |j| a.data[at * ra * la + if ta { j * la + row } else { row * la + j }];
                    let b = |j| b.data[at * rb * lb + if tb { column * lb + j } else { j * lb + column }];
                    *to = 0.5 * (0..k).map(|j| a(j) * b(j)).sum::<f64>() + 2.0 * *to;
                }
                let (a, b, c) = (on_device(&a, from), on_device(&b, from), on_device(&c, to));
                {
                    let [a, b, c] = [(&a, ra, la), (&b, rb, lb), (&c, m, lc)].map(|(x, rows, leading)| {
                        Matrix::rows(Memory::of(NAME, &gpu, x).unwrap(), leading).every(rows * leading)
                    });
                    let (a, b) = (if ta { a.t() } else { a }, if tb { b.t() } else { b });
                    gemm_batched(NAME, &gpu, batch, [m, n, k], 0.5, a, b, 2.0, c).unwrap();
                }
                let share = if to == DType::BF16 { 4e-3 } else { 1e-6 };
                for (i, (got, expected)) in Array::of(&c).unwrap().data.iter().zip(&expected).enumerate() {
                    let far = (got - expected).abs() > share * expected.abs().max(1.0);
                    assert!(
                        !far,
                        "{from:?} to {to:?}, transposed {ta} {tb}: element {i} is {got}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn products_that_do_not_fit_are_refused_in_words() {
        let Some(gpu) = gpu() else { return };
        let [a, b, c] = [[2, 3], [3, 4], [2, 4]].map(|dims| Array::random(&dims, 1).tensor().unwrap());
        let [a, b, c] = [&a, &b, &c].map(|x| Matrix::rows(Memory::of(NAME, &gpu, x).unwrap(), x.dims()[1]));
        let error = gemm(NAME, &gpu, [2, 4, 4], 1.0, a, b, 0.0, c).unwrap_err().to_string();
        assert!(error.contains("a product of [2, 4] and [4, 4]"), "{error}");
    }
}
