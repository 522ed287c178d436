//! Singular values of embeddings and the rank they amount to.

use candle_core::{Result, Tensor};

use crate::eigen::eigenvalues;
use crate::matrix::Matrix;

/// The singular values of `x` `[M, F]`, largest first: min(M, F) of them.
///
/// They come from the smaller Gram matrix in f64, so those below 1e-8 of the largest are noise.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn singular_values(x: &Tensor) -> Result<Vec<f64>> {
    let x = Matrix::finite("singular values", x)?;
    let (n, x) = (x.rows.min(x.cols), if x.rows < x.cols { x.double()? } else { x.double()?.t()?.contiguous()? });
    let gram = x.matmul(&x.t()?)?.flatten_all()?.to_vec1::<f64>()?;
    let mut values: Vec<f64> = eigenvalues(gram, n).into_iter().map(|v| v.max(0.0).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values)
}

/// RankMe (Garrido et al. 2023, arXiv:2210.02885, eq. 2): `exp(-sum_k p_k log p_k)` with `p_k = s_k / sum s + 1e-7` over the singular
/// values s of `x` `[M, F]`, which is neither centered nor normalized. Between 1 (all rows on one line) and min(M, F); 0 if x is zero.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn effective_rank(x: &Tensor) -> Result<f64> {
    let values = singular_values(x)?;
    let sum: f64 = values.iter().sum();
    if sum == 0.0 {
        return Ok(0.0);
    }
    let entropy: f64 = values.iter().map(|s| s / sum + 1e-7).map(|p| -p * p.ln()).sum();
    Ok(entropy.exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, rotate};
    use candle_core::Device;

    /// By hand: a diagonal matrix shows its singular values, in any shape.
    #[test]
    fn a_diagonal_shows_its_values() -> Result<()> {
        let x = Tensor::new(&[[0f32, 3.0, 0.0], [-4.0, 0.0, 0.0]], &Device::Cpu)?;
        for x in [x.clone(), x.t()?] {
            let s = singular_values(&x)?;
            assert!((s[0] - 4.0).abs() < 1e-12 && (s[1] - 3.0).abs() < 1e-12 && s.len() == 2, "{s:?}");
        }
        Ok(())
    }

    /// Equal singular values count in full, rows on a line count once.
    #[test]
    fn rank_of_known_spectra() -> Result<()> {
        let eye = Tensor::eye(16, candle_core::DType::F32, &Device::Cpu)?;
        assert!((effective_rank(&eye)? - 16.0).abs() < 1e-3);
        let line = random(40, 1, 1).matmul(&random(1, 12, 2))?;
        assert!((effective_rank(&line)? - 1.0).abs() < 1e-3, "{}", effective_rank(&line)?);
        assert_eq!(effective_rank(&eye.zeros_like()?)?, 0.0);
        Ok(())
    }

    #[test]
    fn rotation_and_scale_do_not_change_the_rank() -> Result<()> {
        let x = (random(90, 10, 3) * Tensor::arange(1f32, 11.0, &Device::Cpu)?.broadcast_as((90, 10))?)?;
        let rank = effective_rank(&x)?;
        assert!((rank - effective_rank(&rotate(&x)?)?).abs() < 1e-4);
        assert!((rank - effective_rank(&(x * 7.0)?)?).abs() < 1e-5);
        Ok(())
    }

    /// The squares of the singular values add up to the sum of squares.
    #[test]
    fn squares_add_up() -> Result<()> {
        let x = random(211, 230, 4);
        let squares: f64 = singular_values(&x)?.iter().map(|s| s * s).sum();
        let expected: f64 = x.flatten_all()?.to_vec1::<f32>()?.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!((squares / expected - 1.0).abs() < 1e-12, "{squares} {expected}");
        Ok(())
    }
}
