//! How embeddings lie on the unit sphere: alignment, uniformity, standard deviation.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::matrix::Matrix;

/// Rows of one product of [`uniformity`].
const BLOCK: usize = 512;

/// Alignment of positive pairs (Wang and Isola 2020, arXiv:2005.10242, eq. 2 with alpha = 2): the mean over rows of
/// `|f(x) - f(y)|^2`, rows L2-normalized here. 0 is perfect, 2 is what unrelated rows have.
///
/// `x`, `y`: `[M, F]`, row i of both from the same image.
///
/// # Errors
/// If the shapes differ or a value is not finite.
pub fn alignment(x: &Tensor, y: &Tensor) -> Result<f64> {
    if x.dims() != y.dims() {
        bail!("alignment: shapes {:?} and {:?} differ", x.dims(), y.dims())
    }
    let x = Matrix::finite("alignment: the first view", x)?.normalized();
    let y = Matrix::finite("alignment: the second view", y)?.normalized();
    let sum: f64 = x.data.iter().zip(&y.data).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    Ok(sum / x.rows as f64)
}

/// Uniformity (Wang and Isola 2020, arXiv:2005.10242, eq. 3 with t = 2): `log mean over pairs i < j of exp(-2 |f(x_i) - f(x_j)|^2)`,
/// rows L2-normalized here. 0 when all rows are one, about -4 when they fill a sphere of many dimensions; lower is more uniform.
///
/// `x`: `[M, F]` with M >= 2. Memory is O(M F); the result does not depend on the number of threads.
///
/// # Errors
/// If there are fewer than 2 rows or a value is not finite.
pub fn uniformity(x: &Tensor) -> Result<f64> {
    let x = Matrix::finite("uniformity", x)?.normalized();
    if x.rows < 2 {
        bail!("uniformity: needs at least 2 rows, got {}", x.rows)
    }
    let squares: Vec<f32> = x.iter().map(|r| r.iter().map(|v| v * v).sum()).collect();
    let size = BLOCK.min(x.rows);
    let blocks = (0..x.rows).step_by(size).map(|start| x.block(start, size)).collect::<Result<Vec<Tensor>>>()?;
    let mut sum = 0.0;
    for (i, a) in blocks.iter().enumerate() {
        for (j, b) in blocks.iter().enumerate().skip(i) {
            let products = a.matmul(&b.t()?)?.flatten_all()?.to_vec1::<f32>()?;
            let part = |r: usize| -> f64 {
                let row = i * size + r;
                let from = if i == j { r + 1 } else { 0 };
                let end = size.min(x.rows - j * size);
                (from..end)
                    .map(|c| {
                        let distance = squares[row] + squares[j * size + c] - 2.0 * products[r * size + c];
                        f64::from((-2.0 * distance.max(0.0)).exp())
                    })
                    .sum()
            };
            // Summed in the order of the rows, whoever made the parts.
            let parts: Vec<f64> = (0..size.min(x.rows - i * size)).into_par_iter().map(part).collect();
            sum += parts.iter().sum::<f64>();
        }
    }
    let pairs = x.rows as f64 * (x.rows - 1) as f64 / 2.0;
    Ok((sum / pairs).ln())
}

/// Mean over the features of the standard deviation over rows (biased) of the L2-normalized embedding: the sign of collapse of SimSiam (Chen
/// and He 2021, arXiv:2011.10566, section 4.1). 0 when all rows are one, `1 / sqrt(F)` when they spread over the whole sphere.
///
/// `x`: `[M, F]`. A NaN in x gives a NaN.
///
/// # Errors
/// If x is not a matrix.
pub fn embedding_std(x: &Tensor) -> Result<f64> {
    let x = Matrix::new("embedding std", x)?;
    if x.data.iter().any(|v| !v.is_finite()) {
        return Ok(f64::NAN);
    }
    let x = x.normalized();
    let rows = x.rows as f64;
    let mut mean = vec![0f64; x.cols];
    for row in x.iter() {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / rows);
    }
    let mut var = vec![0f64; x.cols];
    for row in x.iter() {
        for ((s, m), &v) in var.iter_mut().zip(&mean).zip(row) {
            *s += (f64::from(v) - m).powi(2) / rows;
        }
    }
    Ok(var.iter().map(|v| v.sqrt()).sum::<f64>() / x.cols as f64)
}

/// Mean and standard deviation (biased) of the lengths of the rows of `x` `[M, F]`, before any normalization.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn norms(x: &Tensor) -> Result<(f64, f64)> {
    let x = Matrix::finite("norms", x)?;
    let lengths: Vec<f64> = x.iter().map(|r| r.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()).collect();
    let mean = lengths.iter().sum::<f64>() / x.rows as f64;
    let var = lengths.iter().map(|length| (length - mean).powi(2)).sum::<f64>() / x.rows as f64;
    Ok((mean, var.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, rotate};
    use candle_core::Device;

    /// By hand: (1, 0) to (1, 0) is 0, (0, 1) to (1, 0) is 2; the scale does not matter.
    #[test]
    fn alignment_of_a_hand_made_case() -> Result<()> {
        let x = Tensor::new(&[[2f32, 0.0], [0.0, 0.5]], &Device::Cpu)?;
        let y = Tensor::new(&[[9f32, 0.0], [1.0, 0.0]], &Device::Cpu)?;
        assert_eq!(alignment(&x, &y)?, 1.0);
        assert_eq!(alignment(&x, &x)?, 0.0);
        Ok(())
    }

    /// All pairs in f64, over more rows than one block.
    #[test]
    fn uniformity_equals_a_double_loop() -> Result<()> {
        let x = random(BLOCK + 61, 5, 1);
        let rows: Vec<Vec<f64>> = x
            .to_vec2::<f32>()?
            .iter()
            .map(|r| {
                let norm = r.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                r.iter().map(|&v| f64::from(v) / norm).collect()
            })
            .collect();
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (i, a) in rows.iter().enumerate() {
            for b in &rows[..i] {
                let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
                sum += (-2.0 * distance).exp();
                pairs += 1.0;
            }
        }
        let expected = (sum / pairs).ln();
        assert!((uniformity(&x)? - expected).abs() < 1e-6, "{} {expected}", uniformity(&x)?);
        Ok(())
    }

    #[test]
    fn collapse_is_seen() -> Result<()> {
        let one = random(1, 8, 2).broadcast_as((40, 8))?.contiguous()?;
        assert!(uniformity(&one)?.abs() < 1e-6);
        assert!(embedding_std(&one)? < 1e-7);
        Ok(())
    }

    /// Gaussian rows spread over the sphere: std is 1 / sqrt(F).
    #[test]
    fn std_of_a_full_sphere_is_one_over_root_f() -> Result<()> {
        let std = embedding_std(&random(4000, 64, 3))?;
        assert!((std - 0.125).abs() < 1e-3, "{std}");
        Ok(())
    }

    /// By hand: rows (1, 0) and (-1, 0) have std 1 and 0.
    #[test]
    fn std_of_a_hand_made_case() -> Result<()> {
        assert_eq!(embedding_std(&Tensor::new(&[[3f32, 0.0], [-1.0, 0.0]], &Device::Cpu)?)?, 0.5);
        assert!(embedding_std(&Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu)?)?.is_nan());
        Ok(())
    }

    #[test]
    fn lengths_of_a_hand_made_case() -> Result<()> {
        assert_eq!(norms(&Tensor::new(&[[3f32, 4.0], [0.0, 7.0]], &Device::Cpu)?)?, (6.0, 1.0));
        Ok(())
    }

    #[test]
    fn rotation_changes_neither_alignment_nor_uniformity() -> Result<()> {
        let (x, y) = (random(70, 6, 4), random(70, 6, 5));
        assert!((alignment(&x, &y)? - alignment(&rotate(&x)?, &rotate(&y)?)?).abs() < 1e-5);
        assert!((uniformity(&x)? - uniformity(&rotate(&x)?)?).abs() < 1e-5);
        Ok(())
    }
}
