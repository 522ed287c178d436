//! Rows of features as a slice, checked once.

use candle_core::{DType, Device, Result, Tensor, bail};

/// A row-major matrix.
#[derive(Clone)]
pub(crate) struct Matrix {
    pub(crate) data: Vec<f32>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Matrix {
    /// `x` `[M, F]` with M, F >= 1; `what` names it in errors.
    pub(crate) fn new(what: &str, x: &Tensor) -> Result<Self> {
        let &[rows, cols] = x.dims() else { bail!("{what}: shape {:?}, expected [M, F]", x.dims()) };
        if rows == 0 || cols == 0 {
            bail!("{what}: shape {:?} is empty", x.dims())
        }
        let data = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { data, rows, cols })
    }

    /// The same, with an error that names the first row that holds a NaN or an infinity.
    pub(crate) fn finite(what: &str, x: &Tensor) -> Result<Self> {
        let matrix = Self::new(what, x)?;
        match matrix.data.iter().position(|v| !v.is_finite()) {
            Some(i) => bail!("{what}: row {} holds {}, which is not finite", i / matrix.cols, matrix.data[i]),
            None => Ok(matrix),
        }
    }

    /// Each row over its L2 norm (taken in f64); a zero row stays zero.
    pub(crate) fn normalized(mut self) -> Self {
        for row in self.data.chunks_exact_mut(self.cols) {
            let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            if norm >= f64::from(f32::MIN_POSITIVE) {
                row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
            } else {
                row.fill(0.0);
            }
        }
        self
    }

    /// The mean row, in f64.
    pub(crate) fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0f64; self.cols];
        for row in self.iter() {
            mean.iter_mut().zip(row).for_each(|(mean, &v)| *mean += f64::from(v));
        }
        mean.iter_mut().for_each(|mean| *mean /= self.rows as f64);
        mean
    }

    /// The rows less their mean, as an f64 tensor.
    pub(crate) fn centered(&self) -> Result<Tensor> {
        let mean = self.mean();
        let data: Vec<f64> =
            self.iter().flat_map(|row| row.iter().zip(&mean).map(|(&v, mean)| f64::from(v) - mean)).collect();
        Tensor::from_vec(data, (self.rows, self.cols), &Device::Cpu)
    }

    pub(crate) fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.data.chunks_exact(self.cols)
    }

    /// As an f64 tensor.
    pub(crate) fn double(&self) -> Result<Tensor> {
        let data: Vec<f64> = self.data.iter().map(|&v| f64::from(v)).collect();
        Tensor::from_vec(data, (self.rows, self.cols), &Device::Cpu)
    }

    /// Rows `start..start + size` as a tensor, with zero rows after the last.
    ///
    /// Every product then has one shape, so the same pair of rows has the same similarity to the last bit wherever it stands.
    pub(crate) fn block(&self, start: usize, size: usize) -> Result<Tensor> {
        let end = self.rows.min(start + size);
        let mut data = self.data[start * self.cols..end * self.cols].to_vec();
        data.resize(size * self.cols, 0.0);
        Tensor::from_vec(data, (size, self.cols), &Device::Cpu)
    }
}
